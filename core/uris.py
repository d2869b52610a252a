"""URIs between steps: every hand-over is a URI; work needs a path."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from goldpath.core.storage import here


def local_path(uri: str) -> Path:
    """The path behind a `file://` URI or a plain path, or of a copy of what another pod left in the storage.

    Raises:
        InputError: the URI lies on another machine, outside the storage.
        MachineError: the storage cannot be reached; the disk is full.
    """
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme and "://" in uri:
        return here(uri)
    return Path(uri)
