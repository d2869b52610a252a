"""The lock that says when it has to wait."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from goldpath.core.errors import MachineError
from goldpath.core.locks import locked


def test_who_has_to_wait_says_so_and_goes_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv("GOLDPATH_EVENTS", str(events))
    held = FileLock(tmp_path / "one.lock", thread_local=False)
    held.acquire()
    done: list[str] = []

    def work() -> None:
        with locked(tmp_path / "one.lock", "bread"):
            done.append("baked")

    thread = threading.Thread(target=work)
    thread.start()
    while not events.exists() or not events.read_text():
        assert thread.is_alive()
    assert done == []
    held.release()
    thread.join()
    assert done == ["baked"]
    (event,) = [json.loads(line) for line in events.read_text().splitlines()]
    assert (event["kind"], event["what"]) == ("waiting", "bread")


def test_an_error_in_the_block_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), locked(tmp_path / "a" / "one.lock", "bread"):
        raise ValueError("mine")
    FileLock(tmp_path / "a" / "one.lock").acquire(timeout=0).lock.release()


def test_a_lock_that_cannot_be_made_is_named_with_its_path() -> None:
    with pytest.raises(MachineError, match=r"/sys/goldpath"), locked(Path("/sys/goldpath/one.lock"), "bread"):
        pass
