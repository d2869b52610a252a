"""What the tests of endpoints ask of live ones."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from goldpath.serving.results import Endpoint
from goldpath.serving.specs import ServeSpec
from tests.serving.conftest import SCRIPT


def spec(model: Path, **more: Any) -> ServeSpec:
    return ServeSpec.parse({"name": "bot", "model_uri": str(model), "ready_seconds": 20, **more})


def ask(endpoint: Endpoint, path: str = "/health") -> dict[str, Any]:
    with urllib.request.urlopen(endpoint.url.removesuffix("/v1") + path, timeout=5) as answer:
        return dict(json.load(answer))


def until(what: Callable[[], Any], seconds: float = 15) -> Any:
    end = time.monotonic() + seconds
    while not (got := what()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return got


def engines_running(tmp_path: Path) -> list[psutil.Process]:
    """Engines and supervisors of this test: theirs are the processes that name its folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        ours = words[1:3] == ["-m", "goldpath.serving.supervisor"] or str(SCRIPT) in words
        ours = ours and str(tmp_path) in " ".join(words)
        if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def generations(home: Path) -> list[str]:
    return [path.name for path in (home / "endpoints").glob("bot/g-*")]
