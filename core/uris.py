"""URIs between steps: every hand-over is a URI; local work needs its path."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from goldpath.core.errors import InputError


def local_path(uri: str) -> Path:
    """The path behind a `file://` URI or a plain path.

    Raises:
        InputError: the URI lies on another machine.
    """
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme and "://" in uri:
        raise InputError(
            f"{uri} is not on this machine",
            "Run the step where it can be read, or fetch it first (`warm_cache`).",
        )
    return Path(uri)
