"""Files are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from goldpath.core import files
from goldpath.core.errors import MachineError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "result.json"
    files.write_json(target, {"naïve": 1, "path": tmp_path})
    assert files.read_json(target) == {"naïve": 1, "path": str(tmp_path)}
    assert "naïve" in target.read_text(encoding="utf-8")
    assert names(target.parent) == ["result.json"]


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = files.write_text(tmp_path / "a.txt", "before")

    def half() -> None:
        with files.write_beside(target) as fresh:
            fresh.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert target.read_text() == "before"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for name in ("old.bin", "new.bin"):
        with files.write_beside(target) as fresh:
            fresh.mkdir()
            (fresh / name).write_text(name)
    assert names(target) == ["new.bin"]
    assert names(tmp_path) == ["model"]


def test_a_block_that_writes_nothing_does_not_cost_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "keep").touch()
    with pytest.raises(MachineError, match="model"), files.write_beside(target):
        pass
    assert names(target) == ["keep"]


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    target = tmp_path / "weights.bin"

    def write() -> None:
        with files.write_beside(target) as fresh:
            fresh.symlink_to("/dev/full")  # the kernel's own "no space left on device"
            fresh.write_bytes(b"x" * 10_000)

    with pytest.raises(MachineError, match=r"the disk is full: cannot write .*weights\.bin"):
        write()
    assert names(tmp_path) == []


def test_a_real_small_disk_that_fills_up(small_disk: Path) -> None:
    with pytest.raises(MachineError, match="the disk is full") as raised:
        files.write_text(small_disk / "big.txt", "x" * 4_000_000)
    assert "GOLDPATH_HOME" in raised.value.remedy
    assert names(small_disk) == []
    with pytest.raises(MachineError, match=r"GB free and 100\.00 GB are needed"):
        files.require_space(small_disk, 100_000_000_000)


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(MachineError, match=r"no permission to write /sys/goldpath/x\.txt"):
        files.write_text("/sys/goldpath/x.txt", "x")


def test_a_missing_input_inside_the_block_is_named_as_itself(tmp_path: Path) -> None:
    def copy() -> None:
        with files.write_beside(tmp_path / "out.txt") as fresh:
            fresh.write_bytes((tmp_path / "input.txt").read_bytes())

    with pytest.raises(MachineError, match=r"input\.txt: No such file"):
        copy()


@pytest.mark.parametrize(("content", "says"), [("{broken", "is not valid JSON"), (None, "No such file")])
def test_json_that_cannot_be_read_is_named(tmp_path: Path, content: Any, says: str) -> None:
    file = tmp_path / "result.json"
    if content:
        file.write_text(content)
    with pytest.raises(MachineError, match=says) as raised:
        files.read_json(file)
    assert "result.json" in raised.value.message


def test_a_link_shares_the_bytes_and_replaces_what_was_there(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "sub" / "b"
    source.write_text("content")
    files.link_or_copy(source, target)
    files.link_or_copy(source, target)
    assert target.samefile(source)


def test_where_links_are_refused_the_file_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("content")
    files.link_or_copy(source, target)
    assert target.read_text() == "content"
    assert not target.samefile(source)


def test_space_that_is_there_is_enough(tmp_path: Path) -> None:
    files.require_space(tmp_path, 1)
