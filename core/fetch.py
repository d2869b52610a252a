"""Copy files from anywhere to this machine: resumable, verified, with retries.

A local source is copied, never linked: a hard link shares the inode, so whoever wrote to the source in place
would write to our copy too. The bytes have to be read anyway to know their digest.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from goldpath.core.digest import digest_file
from goldpath.core.errors import GoldpathError, InputError, MachineError, from_os_error
from goldpath.core.files import read_json, require_space, write_json
from goldpath.core.progress import Bar, progress
from goldpath.core.sources import Source, SourceFile, open_source

CHUNK = 8 * 2**20
"""Bytes a read, and the most that an interrupted download repeats."""
_ATTEMPTS = 4
_BACKOFF_S = 0.5
_WORK = ".fetch"
Select = Callable[[list[str]], Iterable[str]]


def fetch(
    uri: str,
    folder: Path,
    *,
    parallel: int = 2,
    label: str = "Fetching",
    select: Select | None = None,
    error: type[InputError] = InputError,
) -> dict[str, str]:
    """Copy every file below `uri` into `folder`.

    An interrupted call goes on where it stopped: finished files stay, an unfinished one goes on from its
    offset (`folder/.fetch/`), as long as the source still has the same version of it. Where the source
    publishes digests (`SHA256SUMS` or `manifest.json` beside the files, or the hub's own), each file must
    match. One call at a time may work on a folder: callers lock.

    Args:
        uri: a path, `file://`, `s3://`, `gs://`, `hf://` or another scheme of fsspec; a folder or a file.
        folder: where the files go; made if missing.
        parallel: files at a time.
        label: the progress bar's.
        select: picks from the relative names at the source; all of them without it.
        error: the kind of InputError to raise about the source (`ModelError`, `DataError`).

    Returns:
        Relative POSIX path to SHA-256 (hex), sorted, of the files at the source.

    Raises:
        InputError: (as `error`) nothing there, no permission to read, unknown scheme, wrong digest.
        MachineError: no network; the disk is full or read-only.
    """
    source = open_source(uri, error)
    files = source.files
    if select is not None:
        chosen = set(select([file.name for file in files]))
        files = [file for file in files if file.name in chosen]
    if not files:
        raise error(f"{uri} has no files to fetch", "Check the path; it must be a file or hold files.")
    try:
        work = _Work.at(folder)
        with progress(label, sum(file.size or 0 for file in files), "B") as bar:
            return _Fetch(source, folder, work, bar).all(files, parallel)
    except OSError as failure:
        raise from_os_error(failure, folder) from failure


@dataclass
class _Work:
    """What an interrupted fetch leaves: `.part` files and a journal of versions and digests."""

    folder: Path
    journal: dict[str, dict[str, Any]]

    @classmethod
    def at(cls, target: Path) -> _Work:
        folder = target / _WORK
        folder.mkdir(parents=True, exist_ok=True)
        try:
            journal = read_json(folder / "journal.json")
            return cls(folder, journal if isinstance(journal, dict) else {})
        except MachineError:
            return cls(folder, {})

    def part(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.part"

    def note(self, file: SourceFile, digest: str = "") -> None:
        self.journal[file.name] = {"version": file.version, "size": file.size, "sha256": digest}
        write_json(self.folder / "journal.json", self.journal)

    def same(self, file: SourceFile) -> bool:
        entry = self.journal.get(file.name, {})
        return bool(file.version) and (entry.get("version"), entry.get("size")) == (file.version, file.size)


class _StoppedError(Exception):
    """Another file failed, or the user stopped the fetch."""


class _WrongDigestError(Exception):
    """The bytes are not those that the source announces."""


class _Fetch:
    """One call of `fetch`."""

    def __init__(self, source: Source, folder: Path, work: _Work, bar: Bar) -> None:
        self.source, self.folder, self.work, self.bar = source, folder, work, bar
        self.stop = threading.Event()
        self.lock = threading.Lock()

    def all(self, files: list[SourceFile], parallel: int) -> dict[str, str]:
        digests = {file.name: digest for file in files if (digest := self._standing(file))}
        missing = [file for file in files if file.name not in digests]
        require_space(self.folder, sum((file.size or 0) - self._offset(file) for file in missing))
        for file in files:
            if file.name in digests:
                self._count(file.size or 0)
        with ThreadPoolExecutor(parallel) as pool:
            jobs = {pool.submit(self._file, file): file.name for file in missing}
            self._await(jobs)
        digests.update({name: job.result() for job, name in jobs.items()})
        shutil.rmtree(self.work.folder, ignore_errors=True)
        return dict(sorted(digests.items()))

    def _await(self, jobs: dict[Future[str], str]) -> None:
        try:
            done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
            for job in done:
                job.result()
        except BaseException:  # Ctrl-C and SIGTERM too: let the threads end at their next chunk
            self.stop.set()
            for job in jobs:
                job.cancel()
            raise

    def _standing(self, file: SourceFile) -> str:
        """The digest of a file that is here already and is the source's, else nothing."""
        path = self.folder / file.name
        if not path.is_file() or path.stat().st_size != file.size:
            return ""
        wanted = file.sha256 or (
            self.work.journal.get(file.name, {}).get("sha256", "") if self.work.same(file) else ""
        )
        return wanted if wanted and digest_file(path) == wanted else ""

    def _offset(self, file: SourceFile) -> int:
        part = self.work.part(file.name)
        if not part.exists():
            return 0
        size = part.stat().st_size
        if not self.work.same(file) or (file.size is not None and size > file.size):
            part.unlink()
            return 0
        return size

    def _file(self, file: SourceFile) -> str:
        """Bring one file here; each try goes on from what the last one got."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._attempt(file)
            except (GoldpathError, _StoppedError):
                raise
            except Exception as failure:
                last = attempt == _ATTEMPTS or not self.source.transient(failure)
                if last or self.stop.wait(_BACKOFF_S * 2 ** (attempt - 1)):
                    raise self._explained(failure, file) from failure
        raise AssertionError  # pragma: no cover

    def _explained(self, failure: Exception, file: SourceFile) -> GoldpathError:
        if isinstance(failure, _WrongDigestError):
            return self.source.error(
                f"{file.name} of {self.source.uri} is damaged at its source ({failure})",
                "Upload it again, or correct the digest beside it.",
            )
        return self.source.explain(failure, file.name)

    def _attempt(self, file: SourceFile) -> str:
        part = self.work.part(file.name)
        offset = self._offset(file)
        with self.lock:
            self.work.note(file)
        hasher = hashlib.sha256()
        if offset:
            with part.open("rb") as kept:
                while piece := kept.read(CHUNK):
                    hasher.update(piece)
        with part.open("ab") as out, self.source.open(file, CHUNK) as remote:
            if offset:
                remote.seek(offset)
            self._count(offset)
            try:
                self._copy(remote, out, hasher, part)
            except BaseException:
                self._count(-out.tell())
                raise
        return self._finish(file, part, hasher.hexdigest())

    def _copy(self, remote: Any, out: Any, hasher: Any, part: Path) -> None:
        while True:
            if self.stop.is_set():
                raise _StoppedError
            piece = remote.read(CHUNK)
            if not piece:
                return
            try:
                out.write(piece)
                out.flush()
            except OSError as failure:
                raise from_os_error(failure, part) from failure
            hasher.update(piece)
            self._count(len(piece))

    def _finish(self, file: SourceFile, part: Path, digest: str) -> str:
        size = part.stat().st_size
        if file.size is not None and size != file.size:
            if size > file.size:
                part.unlink()
            raise ConnectionError(f"{size} of {file.size} bytes arrived")
        if file.sha256 and digest != file.sha256:
            part.unlink()
            self._count(-size)
            raise _WrongDigestError(f"SHA-256 is {digest[:12]}…, the source says {file.sha256[:12]}…")
        target = self.folder / PurePosixPath(file.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        with self.lock:
            self.work.note(file, digest)
        return digest

    def _count(self, amount: int) -> None:
        with self.lock:
            self.bar.advance(amount)
