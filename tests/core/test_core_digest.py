"""Content digests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pydantic
import pytest

from goldpath.core import digest
from goldpath.core.errors import MachineError


def test_a_folder_is_its_names_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "sub").mkdir(parents=True)
        (folder / "a.txt").write_bytes(b"a")
        (folder / "sub" / "b.bin").write_bytes(b"b" * 100_000)
    found = digest.manifest(one)
    assert list(found) == ["a.txt", "sub/b.bin"]
    assert found["sub/b.bin"] == hashlib.sha256(b"b" * 100_000).hexdigest()
    assert digest.digest_manifest(found) == digest.digest_manifest(digest.manifest(two))
    (two / "sub" / "b.bin").rename(two / "sub" / "c.bin")
    assert digest.digest_manifest(found) != digest.digest_manifest(digest.manifest(two))


def test_json_is_digested_whatever_the_order_of_its_keys() -> None:
    assert digest.digest_json({"a": 1, "b": [1, 2]}) == digest.digest_json({"b": [1, 2], "a": 1})
    assert digest.digest_json({"b": [2, 1]}) != digest.digest_json({"b": [1, 2]})


def test_code_is_digested_by_package_and_by_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "goldpath_probe"
    package.mkdir()
    for name in ("__init__", "one", "two"):
        (package / f"{name}.py").write_text(f"NAME = {name!r}\n")
    import importlib.util

    real = importlib.util.find_spec

    def find(name: str) -> object:
        inside = name.removeprefix("goldpath.probe")
        if name == inside:
            return real(name)
        file = package / (f"{inside[1:]}.py" if inside else "__init__.py")
        where = [str(package)] if not inside else None
        return importlib.util.spec_from_file_location(name, file, submodule_search_locations=where)

    monkeypatch.setattr(importlib.util, "find_spec", find)

    def digests() -> tuple[str, str]:
        digest.code_digest.cache_clear()
        return digest.code_digest("probe"), digest.code_digest("probe.one")

    before = digests()
    (package / "two.py").write_text("NAME = 'changed'\n")
    changed = digests()
    assert changed[0] != before[0]
    assert changed[1] == before[1]
    (package / "one.py").write_text("NAME = 'changed'\n")
    assert digests()[1] != before[1]
    digest.code_digest.cache_clear()


def test_code_that_does_not_exist_has_no_digest() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"goldpath\.nowhere"):
        digest.code_digest("nowhere")


def test_modules_of_the_package_differ() -> None:
    assert digest.code_digest("core.files") != digest.code_digest("core.reuse")
    assert digest.code_digest("core") == digest.code_digest("core")


def test_the_code_version_is_the_package_version_and_a_digest() -> None:
    version, _, code = digest.code_version().partition("+")
    assert version[0].isdigit()
    assert len(code) == 12


def test_versions_are_those_of_the_installed_packages() -> None:
    found = digest.versions("pytest", "pydantic")
    assert found == {"pytest": pytest.__version__, "pydantic": pydantic.VERSION}
    with pytest.raises(MachineError, match=r"no-such-package is not installed\. Install it: `make setup`"):
        digest.versions("pytest", "no-such-package")
