"""Rules of the repository that no linter knows."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

from goldpath.pipelines import catalogue

ROOT = Path(__file__).resolve().parents[2]
MAX_MODULE, MAX_FUNCTION = 400, 60
NOT_CODE = {"tests", "benchmarks", "notebooks", "docs", "requirements", "deploy"}
LONG_MODULES = {
    "tests/reporting/samples.py": "the figures of a whole run, as data",
}
"""Path to the reason why it may be longer."""
LONG_FUNCTIONS = {
    "pipelines/finetune.py:finetune": "the pipeline as KFP reads it: a flat list of steps, which no loop can shorten",
    "tests/reporting/samples.py:evaluation": "one step's result, as data",
}
"""`path:name` to the reason why it may be longer."""


def tracked(*patterns: str) -> list[Path]:
    """Files under version control, and new ones that are not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / line for line in sorted(listed.splitlines()) if (ROOT / line).is_file()]


def code_folders() -> list[str]:
    """Top-level folders that hold a package of ours."""
    return sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name not in NOT_CODE)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def setup_folders() -> list[str]:
    tree = ast.parse((ROOT / "setup.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "FOLDERS":
            return list(ast.literal_eval(node.value))
    raise AssertionError("setup.py has no FOLDERS")


def test_no_file_names_an_index_or_a_registry_host() -> None:
    hosts = "|".join(["pypi" + r"\.org", "pythonhosted" + r"\.org", "index" + "-url", "trusted" + "-host"])
    pattern = re.compile(rf"{hosts}|https?://[^\s\"']+/simple\b|\"resolved\": *\"http")
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{relative(path)}:{n}" for n, row in enumerate(text.splitlines(), 1) if pattern.search(row)
        ]
    assert not found


@pytest.mark.parametrize(
    "file", ["goldpath.in", "dev.in", "lock.txt", "launcher.txt", "dev.txt", "models.txt"]
)
def test_requirements_are_names_with_one_version_each(file: str) -> None:
    rows = (ROOT / "requirements" / file).read_text().splitlines()
    pins = [row for row in rows if row and not row.startswith("#")]
    assert pins
    assert not [
        row for row in pins if not re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z0-9,-]+\])?==[0-9][0-9A-Za-z.]*", row)
    ]
    names = [re.split(r"[=\[]", row)[0].lower() for row in pins]
    assert len(names) == len(set(names))


def test_what_is_pinned_directly_is_locked_at_the_same_version() -> None:
    def pins(file: str) -> dict[str, str]:
        rows = (ROOT / "requirements" / file).read_text().splitlines()
        found = (re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[.*\])?==(.+)", row) for row in rows)
        return {re.sub(r"[-_.]+", "-", m[1]).lower(): m[2] for m in found if m}

    locked = pins("lock.txt") | pins("dev.txt")
    direct = pins("goldpath.in") | pins("dev.in")
    assert {name: locked.get(name) for name in direct} == direct


def test_every_dependency_of_the_package_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        row for rows in project["optional-dependencies"].values() for row in rows
    ]
    names = {re.split(r"[\[<>=~! ]", row)[0].lower() for row in wanted}
    rows = (ROOT / "requirements" / "goldpath.in").read_text().splitlines()
    assert not names - {re.split(r"[\[=]", row)[0].lower() for row in rows}


def test_every_code_folder_is_packaged_layered_and_measured() -> None:
    folders = code_folders()
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    layers = config["importlinter"]["contracts"][0]["layers"]
    assert setup_folders() == folders
    assert sorted(name for layer in layers for name in layer.split(" | ")) == folders
    assert config["coverage"]["run"]["source_dirs"] == folders


def test_every_folder_with_modules_is_a_package() -> None:
    homeless = []
    for path in tracked("*.py"):
        parts = path.relative_to(ROOT).parts
        if parts[0] in code_folders() and not (path.parent / "__init__.py").exists():
            homeless.append(relative(path))
    assert not homeless


def test_no_folder_hides_the_package_or_the_standard_library() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert "goldpath" not in folders
    assert not {name for name in code_folders() if name in sys.stdlib_module_names}


def test_the_wheel_holds_every_file_beside_code(tmp_path: Path) -> None:
    """What `setup.py` and `pyproject.toml` would pack, from empty files; `make wheel` checks a real one."""
    for path in tracked(
        "LICENSE", "setup.py", "pyproject.toml", *(f"{folder}/*" for folder in code_folders())
    ):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes() if path.parent == ROOT else b"")
    (tmp_path / "README.md").touch()
    inside = [path for folder in code_folders() for path in (tmp_path / folder).rglob("*") if path.is_file()]
    expected = {f"goldpath/{path.relative_to(tmp_path)}" for path in inside if path.suffix != ".md"}
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = {
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert sorted(expected - built) == []


def test_modules_are_small() -> None:
    long = {relative(path) for path in tracked("*.py") if len(path.read_text().splitlines()) > MAX_MODULE}
    assert not long - set(LONG_MODULES)
    assert not [path for path in LONG_MODULES if not (ROOT / path).exists()]


def test_functions_are_small() -> None:
    long = set()
    for path in tracked("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > MAX_FUNCTION:
                long.add(f"{relative(path)}:{node.name}")
    assert not long - set(LONG_FUNCTIONS)


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = node.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if is_docstring else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def test_nothing_is_left_for_later() -> None:
    words = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error"]))
    found = [relative(path) for path in tracked("*.py", "*.md", "Makefile") if words.search(path.read_text())]
    assert not found


def test_names_of_test_files_are_unique() -> None:
    names = [path.name for path in tracked("tests/*.py") if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))


def test_every_make_target_is_described_and_listed() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert phony
    listed = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    described = set(re.findall(r"^  make (\S+)", listed, re.MULTILINE))
    assert set(phony[1].split()) == described


def test_every_parameter_in_the_docs_is_in_the_form() -> None:
    form = {field.name for field in catalogue.form("finetune")}
    pattern = re.compile(r"""-p\s+['"]?([A-Za-z_]\w*)[.\w]*=""")
    named = []
    for path in tracked("docs/*.md", "README.md", "CONTRIBUTING.md", "Makefile", "cli/*.py"):
        named += [(relative(path), name) for name in pattern.findall(path.read_text())]
    assert {"Makefile", "README.md", "docs/quickstart.md", "docs/components/tune.md"} <= {p for p, _ in named}
    assert not [(path, name) for path, name in named if name not in form]


def test_the_checks_of_ci_are_targets_of_make() -> None:
    run = (ROOT / ".ci" / "run").read_text()
    wanted = re.search(r"^for target in (.+); do$", run, re.MULTILINE)
    assert wanted
    assert wanted[1].split()[-1] == "test"
    described = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(wanted[1].split()) <= described
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_a_warning_from_our_code_fails_a_test() -> None:
    """From a line of ours that warns itself, and from one that a library points at."""
    ours: dict[str, object] = {"__name__": "goldpath.core.files", "warn": warnings.warn}
    exec("def itself(): warn('old', DeprecationWarning)\ndef calls(library): library()", ours)
    itself, calls = ours["itself"], ours["calls"]
    assert callable(itself)
    assert callable(calls)
    with pytest.raises(DeprecationWarning):
        itself()
    with pytest.raises(FutureWarning):
        calls(lambda: warnings.warn("old", FutureWarning, stacklevel=2))


def test_the_figures_in_the_readme_are_the_measured_ones() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "bench_golden_path.py"))
    measured = json.loads((ROOT / "benchmarks" / "results" / "golden_path.json").read_text())
    assert script["table"](measured) in (ROOT / "README.md").read_text(), "`make bench` writes both"


@pytest.mark.xdist_group("alone")
def test_groups_of_tests_stay_on_one_worker(request: pytest.FixtureRequest) -> None:
    # pytest-xdist 3.8 loses them under pytest 9.2, and the golden path then runs once on every worker.
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@alone"), "pin a pytest that pytest-xdist's loadgroup works with"
