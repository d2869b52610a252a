"""The model cache: instant when warm, whole again when damaged, safe with two at once, after a kill, on a full disk."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from goldpath.core import fetch as fetching
from goldpath.core.digest import digest_file, digest_manifest, manifest
from goldpath.core.errors import MachineError, ModelError
from goldpath.serving.model_cache import warm
from goldpath.serving.specs import CacheSpec
from tests.models import make_tiny_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny_model(tmp_path / "model")


def cached(model: Path | str) -> Any:
    return warm(CacheSpec(uri=str(model)))


def leftovers(home: Path) -> list[Path]:
    return [path for path in (home / "models" / "incoming").rglob("*") if path.is_file()]


def test_a_warm_up_copies_verifies_and_the_second_fetches_nothing(home: Path, model: Path) -> None:
    first = cached(model)
    assert first.digest == digest_manifest(manifest(model)) == digest_manifest(manifest(first.path))
    assert first.bytes_fetched == first.bytes == sum(path.stat().st_size for path in model.iterdir())
    second = cached(model.as_uri())
    assert (second.path, second.digest, second.files) == (first.path, first.digest, first.files)
    third = cached(model)
    assert third.bytes_fetched == 0
    assert leftovers(home) == []


def test_the_source_can_be_written_to_without_changing_the_cache(home: Path, model: Path) -> None:
    first = cached(model)
    with (model / "model.safetensors").open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\1" * 8)
    assert digest_manifest(manifest(first.path)) == first.digest
    os.utime(model / "model.safetensors", (1, 1))
    fresh = cached(model)
    assert fresh.digest != first.digest  # a new version at the source is a new snapshot
    assert fresh.bytes_fetched == (model / "model.safetensors").stat().st_size  # and only its file is fetched
    assert Path(first.path).exists()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    stamp = path.stat()
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # nothing but the content tells


def _cut(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, 100)


def _foreign(path: Path) -> None:
    (path.parent / "evil.py").write_text("print()")


@pytest.mark.parametrize(
    ("harm", "fetched"), [(_flip, True), (_cut, True), (Path.unlink, False), (_foreign, False)]
)
def test_damage_is_found_and_only_that_file_is_fetched(
    home: Path, model: Path, harm: Any, fetched: bool
) -> None:
    first = cached(model)
    weights = Path(first.path) / "model.safetensors"
    size = weights.stat().st_size
    harm(weights)
    again = cached(model)
    assert again.digest == first.digest == digest_manifest(manifest(again.path))
    assert again.bytes_fetched == (size if fetched else 0)  # a name lost from the snapshot is linked again


def asked(model: Path, digest: str) -> Any:
    return warm(CacheSpec(uri=str(model), model_digest=digest))


def test_a_model_that_was_changed_after_it_was_registered_is_refused(home: Path, model: Path) -> None:
    digest = digest_manifest(manifest(model))
    _flip(model / "model.safetensors")
    with pytest.raises(ModelError, match=rf"{model} was changed .* registered one's {digest[:12]}") as caught:
        asked(model, digest)
    assert "Run the pipeline again" in caught.value.remedy
    assert [path for path in (home / "models").rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    _flip(model / "model.safetensors")  # put right, with its old times
    assert asked(model, digest).digest == digest


def test_what_is_known_of_another_model_proves_nothing_about_the_registered_one(
    home: Path, model: Path
) -> None:
    digest = digest_manifest(manifest(model))
    _flip(model / "model.safetensors")
    cached(model)
    with pytest.raises(ModelError, match="was changed after it was registered"):
        asked(model, digest)
    _flip(model / "model.safetensors")
    assert asked(model, digest).digest == digest
    (model / "generation_config.json").unlink()
    with pytest.raises(ModelError, match="was changed after it was registered"):
        asked(model, digest)


def test_a_flipped_bit_in_the_cache_is_mended_from_the_registered_files(home: Path, model: Path) -> None:
    first = cached(model)
    _flip(Path(first.path) / "model.safetensors")
    again = asked(model, first.digest)
    assert digest_manifest(manifest(again.path)) == first.digest


def test_a_lost_blob_and_index_are_made_again(home: Path, model: Path) -> None:
    first = cached(model)
    for path in (home / "models" / "blobs").iterdir():
        path.unlink()
    for path in (home / "models" / "index").iterdir():
        path.write_text("{broken")
    assert cached(model).bytes_fetched == first.bytes


def test_equal_files_of_two_models_are_kept_once(home: Path, model: Path, tmp_path: Path) -> None:
    other = make_tiny_model(tmp_path / "other", seed=1)
    cached(model)
    cached(other)
    names = {digest_file(path) for folder in (model, other) for path in folder.iterdir()}
    assert {path.name for path in (home / "models" / "blobs").iterdir()} == names
    assert len(names) == len(list(model.iterdir())) + 1  # the weights differ


def test_other_formats_of_the_same_weights_stay_away(home: Path, model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"pickled")
    (model / ".gitattributes").write_text("x")
    got = cached(model)
    assert not (Path(got.path) / "pytorch_model.bin").exists()
    assert not (Path(got.path) / ".gitattributes").exists()


def _only_pickle(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def _half_weights(model: Path) -> None:
    os.truncate(model / "model.safetensors", 2_000)


def _no_config(model: Path) -> None:
    (model / "config.json").unlink()


@pytest.mark.parametrize("harm", [_only_pickle, _half_weights, _no_config])
def test_a_bad_model_is_refused_and_nothing_of_it_stays(home: Path, model: Path, harm: Any) -> None:
    harm(model)
    with pytest.raises(ModelError, match=str(model)) as caught:
        cached(model)
    assert "\n" not in caught.value.line()
    assert caught.value.remedy
    assert list((home / "models").glob("snapshots/*")) == []
    assert list((home / "models").glob("index/*")) == []
    assert leftovers(home) == []


@pytest.mark.parametrize("uri", ["/no/such/model", "nope://x"])
def test_an_unknown_model(home: Path, uri: str) -> None:
    with pytest.raises(ModelError, match=uri):
        cached(uri)


def test_without_network_a_whole_cached_model_is_used_and_a_damaged_one_is_not(
    home: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(f"{model}/", "/hub/m/", recursive=True)
    try:
        first = cached("memory://hub/m")

        def down(*_: object, **__: object) -> None:
            raise ConnectionResetError("no route")

        monkeypatch.setattr(fs, "find", down)
        assert cached("memory://hub/m").path == first.path
        _flip(Path(first.path) / "model.safetensors")
        with pytest.raises(MachineError, match="cannot reach memory://hub/m"):
            cached("memory://hub/m")
    finally:
        fs.store.clear()


# --- processes ---------------------------------------------------------------------------------------------------

_WARM = """
import sys, time
from goldpath.core import fetch
from goldpath.serving.model_cache import warm
from goldpath.serving.specs import CacheSpec
fetch.CHUNK = 4096
plain = fetch._Fetch._count
def slowly(self, amount):
    plain(self, amount)
    time.sleep(float(sys.argv[2]))
fetch._Fetch._count = slowly
print(warm(CacheSpec(uri=sys.argv[1])).model_dump_json())
"""


def start(model: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _WARM, str(model), str(pause)], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_at_once_fetch_it_once(home: Path, model: Path) -> None:
    children = [start(model, 0.002), start(model, 0.002)]
    results = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    total = sum(path.stat().st_size for path in model.iterdir())
    fetched = sorted(int(text.split('"bytes_fetched":')[1].split(",")[0]) for text in results)
    assert fetched == [0, total]
    assert cached(model).digest == digest_manifest(manifest(model))


def parts(home: Path) -> list[tuple[Path, int]]:
    found = []
    with contextlib.suppress(FileNotFoundError):  # renamed just now
        for path in (home / "models").rglob("*.part"):
            found.append((path, path.stat().st_size))
    return found


def test_kill_9_in_the_middle_then_it_goes_on(
    home: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start(model, 0.05)
    while not (big := [path for path in parts(home) if path[1] > 20_000]):
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.stdout
    child.stdout.close()
    kept = big[0][0].stat().st_size
    starts: list[int] = []
    original = fetching._Fetch._offset

    def spy(self: Any, file: Any) -> int:
        starts.append(original(self, file))
        return starts[-1]

    monkeypatch.setattr(fetching._Fetch, "_offset", spy)
    got = cached(model)
    assert kept in starts
    assert got.digest == digest_manifest(manifest(model))
    assert leftovers(home) == []


# --- disks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB where we may mount one; else a limit on the size of files does the same."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    if not mounted:
        import resource

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    yield folder
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk(model: Path, small_disk: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLDPATH_HOME", str(small_disk / "home"))
    monkeypatch.setattr(fetching, "require_space", lambda *_: None)  # someone else fills it meanwhile
    with pytest.raises(MachineError) as caught:
        cached(model)
    assert "\n" not in caught.value.line()
    assert caught.value.remedy
    stay = [path for path in (small_disk / "home").rglob("*") if path.is_file()]
    assert [path for path in stay if path.suffix != ".lock"] == []


@pytest.fixture
def read_only_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system mounted read-only where we may mount one; else a folder without the right to write."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    if not mounted:
        folder.chmod(0o555)
    yield folder
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_disk(
    model: Path, home: Path, read_only_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOLDPATH_HOME", str(read_only_disk / "home"))
    with pytest.raises(MachineError, match=rf"{read_only_disk}.*Set GOLDPATH_HOME"):
        cached(model)
    assert list(read_only_disk.iterdir()) == []
