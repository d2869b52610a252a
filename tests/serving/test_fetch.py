"""Fetching: from local folders, memory and a real S3 protocol; resumed, verified, retried, explained."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from goldpath.core import fetch as fetching
from goldpath.core import files as core_files
from goldpath.core.errors import DataError, InputError, Interrupted, MachineError, ModelError
from goldpath.core.fetch import fetch

BIG = os.urandom(300_000)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "CHUNK", 64 * 1024)
    monkeypatch.setattr(fetching, "_BACKOFF_S", 0.001)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source dir"
    (folder / "sub").mkdir(parents=True)
    (folder / "big.bin").write_bytes(BIG)
    (folder / "sub" / "small.txt").write_text("small")
    (folder / "empty").write_bytes(b"")
    return folder


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class Wire:
    """Counts the bytes read from the source and breaks where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = 0
        self.seeks: list[int] = []
        self.break_after: int | None = None
        self.failure: BaseException = ConnectionResetError("reset by peer")
        self.breaks = 1
        original = fetching.Source.open
        wire = self

        def opened(source: Any, file: Any, block: int) -> Any:
            return _Tapped(original(source, file, block), wire)

        monkeypatch.setattr(fetching.Source, "open", opened)


class _Tapped:
    def __init__(self, file: Any, wire: Wire) -> None:
        self.file, self.wire = file, wire

    def __enter__(self) -> _Tapped:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def seek(self, offset: int) -> None:
        self.wire.seeks.append(offset)
        self.file.seek(offset)

    def read(self, size: int) -> bytes:
        wire = self.wire
        if wire.break_after is not None and wire.read >= wire.break_after and wire.breaks:
            wire.breaks -= 1
            raise wire.failure
        data: bytes = self.file.read(size)
        wire.read += len(data)
        return data


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(monkeypatch)


@pytest.mark.parametrize("form", ["path", "file-uri"])
def test_a_local_folder_arrives_whole(source: Path, tmp_path: Path, form: str) -> None:
    uri = str(source) if form == "path" else source.as_uri().replace("%20", " ")
    got = fetch(uri, tmp_path / "out")
    assert got == {"big.bin": sha(BIG), "empty": sha(b""), "sub/small.txt": sha(b"small")}
    assert tree(tmp_path / "out") == ["big.bin", "empty", "sub/small.txt"]
    assert (tmp_path / "out/big.bin").read_bytes() == BIG


def test_a_copy_does_not_share_the_sources_inode(source: Path, tmp_path: Path) -> None:
    fetch(str(source), tmp_path / "out")
    with (source / "big.bin").open("r+b") as file:
        file.write(b"changed in place")
    assert (tmp_path / "out/big.bin").read_bytes() == BIG


def test_one_file_keeps_its_name(source: Path, tmp_path: Path) -> None:
    assert fetch(str(source / "big.bin"), tmp_path / "out") == {"big.bin": sha(BIG)}


def test_select_picks_files(source: Path, tmp_path: Path) -> None:
    got = fetch(str(source), tmp_path / "out", select=lambda names: [n for n in names if n.endswith(".txt")])
    assert list(got) == ["sub/small.txt"] == tree(tmp_path / "out")


def test_memory_source(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe({"/models/m/a.bin": BIG, "/models/m/deep/b": b"b"})
    try:
        assert fetch("memory://models/m", tmp_path / "out") == {"a.bin": sha(BIG), "deep/b": sha(b"b")}
    finally:
        fs.rm("/models", recursive=True)


def test_goes_on_after_a_reset_within_one_call(source: Path, tmp_path: Path, wire: Wire) -> None:
    wire.break_after = 128 * 1024
    fetch(str(source / "big.bin"), tmp_path / "out")
    assert wire.seeks == [128 * 1024]
    assert wire.read == len(BIG)  # no byte twice
    assert (tmp_path / "out/big.bin").read_bytes() == BIG


def test_gives_up_after_a_few_tries_and_goes_on_in_the_next_call(
    source: Path, tmp_path: Path, wire: Wire
) -> None:
    wire.break_after, wire.breaks = 128 * 1024, 99
    with pytest.raises(MachineError, match=r"cannot reach big\.bin of .*reset by peer.*offline"):
        fetch(str(source / "big.bin"), tmp_path / "out")
    assert wire.breaks == 99 - 4
    assert not (tmp_path / "out/big.bin").exists()
    wire.breaks = 0
    assert fetch(str(source / "big.bin"), tmp_path / "out") == {"big.bin": sha(BIG)}
    assert wire.read == len(BIG)
    assert tree(tmp_path / "out") == ["big.bin"]


def test_a_stop_in_the_middle_keeps_finished_files(source: Path, tmp_path: Path, wire: Wire) -> None:
    wire.break_after, wire.failure = 128 * 1024, Interrupted("stopped")
    with pytest.raises(Interrupted):
        fetch(str(source), tmp_path / "out", parallel=1)
    fetch(str(source), tmp_path / "out", parallel=1)
    assert wire.read == len(BIG) + len("small")


def test_a_changed_source_is_not_glued_to_the_old_part(source: Path, tmp_path: Path, wire: Wire) -> None:
    wire.break_after, wire.failure = 128 * 1024, Interrupted("stopped")
    with pytest.raises(Interrupted):
        fetch(str(source / "big.bin"), tmp_path / "out")
    other = os.urandom(len(BIG))
    (source / "big.bin").write_bytes(other)
    os.utime(source / "big.bin", (1, 1))
    assert fetch(str(source / "big.bin"), tmp_path / "out") == {"big.bin": sha(other)}
    assert wire.seeks == []


def test_a_file_that_stands_is_kept_only_if_its_digest_is_known(
    source: Path, tmp_path: Path, wire: Wire
) -> None:
    out = tmp_path / "out"
    (source / "SHA256SUMS").write_text(f"{sha(BIG)}  big.bin\n{sha(b'small')} *./sub/small.txt\n")
    fetch(str(source), out)
    wire.read = 0
    (out / "big.bin").write_bytes(bytes(len(BIG)))  # same size, other content
    got = fetch(str(source), out)
    assert got["big.bin"] == sha(BIG) == sha((out / "big.bin").read_bytes())
    assert wire.read == len(BIG) + (source / "SHA256SUMS").stat().st_size  # small.txt was good


@pytest.mark.parametrize("form", ["SHA256SUMS", "manifest.json"])
def test_a_wrong_digest_is_refused(source: Path, tmp_path: Path, form: str) -> None:
    line = f"{'0' * 64}  big.bin" if form == "SHA256SUMS" else '{"big.bin": "%s"}' % ("0" * 64)
    (source / form).write_text(line)
    with pytest.raises(ModelError, match=r"big\.bin of .* is damaged at its source"):
        fetch(str(source), tmp_path / "out", error=ModelError)
    assert "big.bin" not in tree(tmp_path / "out")


def test_a_manifest_that_is_no_list_of_digests_is_only_a_file(source: Path, tmp_path: Path) -> None:
    (source / "manifest.json").write_text("not json")
    assert "manifest.json" in fetch(str(source), tmp_path / "out")


@pytest.mark.parametrize(
    ("uri", "kind", "words"),
    [
        ("/no/such/place", DataError, "there is nothing at /no/such/place"),
        ("memory://nowhere", DataError, "there is nothing at memory://nowhere"),
        ("nope://x/y", DataError, "Use a path, file://, s3://"),
        ("{empty}", DataError, "no files to fetch"),
    ],
)
def test_bad_addresses(tmp_path: Path, uri: str, kind: type[InputError], words: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(kind, match=words) as caught:
        fetch(uri.format(empty=tmp_path / "empty"), tmp_path / "out", error=DataError)
    assert "\n" not in caught.value.line()
    assert not (tmp_path / "out").exists()


def test_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.store["/evil/../../x"] = fs.store.get("/evil/a") or _memory_file(fs, "/evil/../../x")
    try:
        with pytest.raises(InputError, match="would leave the folder"):
            fetch("memory://evil", tmp_path / "out")
    finally:
        fs.store.clear()


def _memory_file(fs: Any, path: str) -> Any:
    fs.pipe("/tmp-evil", b"x")
    return fs.store.pop("/tmp-evil")


def test_too_little_space_is_seen_before_the_first_byte(
    source: Path, tmp_path: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(core_files.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(MachineError, match="GB free"):
        fetch(str(source), tmp_path / "out")
    assert wire.read == 0


class _Hub(BaseHTTPRequestHandler):
    """Answers everything with one status."""

    status = 401

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def s3(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_s3_over_its_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: Wire) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        s3(monkeypatch, f"http://{host}:{port}")
        fs = fsspec.filesystem("s3")
        fs.mkdir("bucket")
        fs.pipe({"bucket/m/model.bin": BIG, "bucket/m/sub/c.json": b"{}"})
        wire.break_after = 100 * 1024
        got = fetch("s3://bucket/m", tmp_path / "out", parallel=1)
        assert got == {"model.bin": sha(BIG), "sub/c.json": sha(b"{}")}
        assert wire.seeks == [128 * 1024]
        with pytest.raises(ModelError, match="nothing at s3://bucket/other"):
            fetch("s3://bucket/other", tmp_path / "x", error=ModelError)
        with pytest.raises(ModelError, match="nothing at s3://nobucket/m"):
            fetch("s3://nobucket/m", tmp_path / "x", error=ModelError)
    finally:
        server.stop()


def test_s3_without_a_server_says_how_to_work_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(MachineError, match=r"cannot reach s3://bucket/m .* work offline give a folder"):
        fetch("s3://bucket/m", tmp_path / "out")


def test_s3_that_refuses_names_the_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: str
) -> None:
    s3(monkeypatch, web)
    monkeypatch.setattr(_Hub, "status", 403)
    with pytest.raises(ModelError, match=r"no permission to read s3://bucket/m.*AWS_ACCESS_KEY_ID"):
        fetch("s3://bucket/m", tmp_path / "out", error=ModelError)


def test_no_permission_on_a_local_file(source: Path, tmp_path: Path, wire: Wire) -> None:
    wire.break_after, wire.failure, wire.breaks = 0, PermissionError(13, "Permission denied"), 99
    with pytest.raises(InputError, match=r"no permission to read .* of .*source dir"):
        fetch(str(source / "big.bin"), tmp_path / "out")
    assert wire.breaks == 98  # not tried again


def test_an_unreachable_hub_says_how_to_work_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    fsspec.get_filesystem_class("hf").clear_instance_cache()
    with pytest.raises(MachineError, match=r"cannot reach hf://team/model .* give a folder of this machine"):
        fetch("hf://team/model", tmp_path / "out", error=ModelError)
    fsspec.get_filesystem_class("hf").clear_instance_cache()


def test_a_missing_extra_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gdrive://x cannot be read .*Install the package that it names"):
        fetch("gdrive://x", tmp_path / "out")
