"""Where files are fetched from: one view of a folder on any file system of fsspec, and its errors explained."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from goldpath.core.errors import GoldpathError, InputError, MachineError

_OFFLINE = (
    "Check the network; to work offline give a folder of this machine (a path or file://), "
    "or leave the parameter at its default, which needs no network."
)
_CREDENTIALS = (
    "Give credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN), "
    "or correct the file's mode."
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGEST_FILES = ("SHA256SUMS", "manifest.json")
_MAX_DIGEST_FILE = 64 * 2**20
# By class name, so that no cloud library is imported: botocore, aiohttp, httpx, huggingface_hub.
_NETWORK = {
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "ClientConnectionError",
    "ServerDisconnectedError",
    "ClientPayloadError",
    "TransportError",
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
    "ResponseStreamingError",
    "IncompleteRead",
}
_DENIED = {"NoCredentialsError", "PartialCredentialsError", "GatedRepoError", "DefaultCredentialsError"}
_MISSING = {"RepositoryNotFoundError", "EntryNotFoundError", "RevisionNotFoundError", "NoSuchBucket"}


@dataclass(frozen=True)
class SourceFile:
    """A file at its source."""

    name: str
    """Relative POSIX path."""
    path: str
    """As the file system knows it."""
    size: int | None
    version: str
    """Changes whenever the content may have: entity tag, or size and modification time."""
    sha256: str
    """What the source says about its content; empty where it says nothing."""


class Source:
    """The files below one URI."""

    def __init__(self, uri: str, fs: Any, files: list[SourceFile], error: type[InputError]) -> None:
        self.uri, self.fs, self.files, self.error = uri, fs, files, error

    def open(self, file: SourceFile, block: int) -> Any:
        """Open for reading; `seek` and `read(n)` turn into range requests, with no cache of their own."""
        return self.fs.open(file.path, "rb", block_size=block, cache_type="none")

    def explain(self, failure: BaseException, name: str = "") -> GoldpathError:
        """What went wrong, and what to do about it."""
        return explain(failure, f"{name} of {self.uri}" if name else self.uri, self.error)

    @staticmethod
    def transient(failure: BaseException) -> bool:
        """Whether another try may work: anything but a missing file or a refused one."""
        return not (_is(failure, FileNotFoundError, _MISSING) or _is(failure, PermissionError, _DENIED))


def open_source(uri: str, error: type[InputError] = InputError) -> Source:
    """List the files below `uri` (a path or any URI of fsspec; a folder or one file).

    Raises:
        InputError: (as `error`) nothing there, no permission, unknown scheme, a missing extra.
        MachineError: no network.
    """
    import fsspec

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs tracebacks of failures that we explain
    try:
        fs, root = fsspec.url_to_fs(uri)
        fs.invalidate_cache()
        found: dict[str, dict[str, Any]] = fs.find(root, detail=True)
        if not found:
            fs.info(root)  # raises where there is nothing; an empty folder is told apart
        published = _published(fs, root, found)
    except Exception as failure:
        raise explain(failure, uri, error) from failure
    files = []
    for path, info in sorted(found.items()):
        name = PurePosixPath(path).name if path == root else path.removeprefix(root.rstrip("/") + "/")
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise error(f"{uri} holds {name!r}, which would leave the folder", "Do not use this source.")
        size = info.get("size")
        digest = _hub_digest(info) or published.get(name, "")
        files.append(SourceFile(name, path, None if size is None else int(size), _version(info), digest))
    return Source(uri, fs, files, error)


def explain(failure: BaseException, what: str, error: type[InputError] = InputError) -> GoldpathError:
    """The error to show for a failure to read `what`: an `error` about the source; MachineError: no network."""
    if isinstance(failure, GoldpathError):
        return failure
    if _is(failure, FileNotFoundError, _MISSING):
        return error(f"there is nothing at {what}", "Check the spelling, and that it was not deleted.")
    if _is(failure, PermissionError, _DENIED):
        return error(f"no permission to read {what}", _CREDENTIALS)
    if is_network(failure):
        return MachineError(f"cannot reach {what} ({_short(failure)})", _OFFLINE)
    remedy = "Check the address and try again."
    if isinstance(failure, ImportError):
        remedy = "Install the package that it names into .venv."
    elif isinstance(failure, ValueError) and "rotocol" in str(failure):
        remedy = "Use a path, file://, s3://, gs:// or hf://."
    return error(f"{what} cannot be read ({_short(failure)})", remedy)


def is_network(failure: BaseException) -> bool:
    """Whether the network failed, rather than the source or this machine."""
    return _is(failure, (ConnectionError, TimeoutError), _NETWORK)


def _is(failure: BaseException, kinds: Any, names: set[str]) -> bool:
    """Whether the failure, or one that it was raised from, is of these types, by type or by class name."""
    seen: BaseException | None = failure
    while seen is not None:
        if isinstance(seen, kinds) or any(kind.__name__ in names for kind in type(seen).__mro__):
            return True
        seen = seen.__cause__
    return False


def _short(failure: BaseException) -> str:
    text = " ".join(str(failure).split())
    return f"{type(failure).__name__}: {text[:120]}" if text else type(failure).__name__


def _version(info: dict[str, Any]) -> str:
    for key in ("ETag", "etag", "checksum", "md5Hash", "blob_id", "mtime", "LastModified", "created"):
        if info.get(key) is not None:
            return f"{info.get('size')}:{info[key]}"
    return ""


def _hub_digest(info: dict[str, Any]) -> str:
    """The hub's own SHA-256 of a large file."""
    lfs = info.get("lfs")
    digest = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
    return digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else ""


def _published(fs: Any, root: str, found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Digests that lie beside the files: `SHA256SUMS` (coreutils) or `manifest.json` (name to SHA-256)."""
    for name in _DIGEST_FILES:
        path = f"{root.rstrip('/')}/{name}"
        if path not in found or (found[path].get("size") or 0) > _MAX_DIGEST_FILE:
            continue
        text = fs.cat_file(path).decode("utf-8", "replace")
        if name == "SHA256SUMS":
            rows = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
            return {
                row[1].lstrip("*").removeprefix("./"): row[0].lower()
                for row in rows
                if len(row) == 2 and _SHA256.fullmatch(row[0].lower())
            }
        try:
            listed = json.loads(text)
        except ValueError:
            continue
        if isinstance(listed, dict):
            return {
                key: value
                for key, value in listed.items()
                if isinstance(value, str) and _SHA256.fullmatch(value)
            }
    return {}
