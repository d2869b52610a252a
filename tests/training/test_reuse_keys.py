"""Work is not reused once a library or a module of ours that decides its result has changed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from goldpath.core import digest
from goldpath.training import base_models, evaluation, finetune, search
from goldpath.training.specs import EvalSpec, SearchSpec, TrainSpec
from tests.models import make_tiny_model

HERE = Path("frame")


class Asked(Exception):
    """Raised in place of the work, with its key."""


def of_model(folder: Path) -> None:
    base_models.resolve(str(folder))


def of_package(folder: Path) -> None:
    base_models.resolve("package://reuse-gguf")


def of_search(folder: Path) -> None:
    search.tune(HERE, "frame", folder, "base", SearchSpec(), TrainSpec())


def of_training(folder: Path) -> None:
    finetune.fine_tune(HERE, "frame", folder, "base", TrainSpec())


def of_search_elsewhere(folder: Path) -> None:
    search.tune(HERE, "frame", folder, "base", SearchSpec(), TrainSpec(gpu="mig:1g.10gb"))


def of_training_elsewhere(folder: Path) -> None:
    finetune.fine_tune(HERE, "frame", folder, "base", TrainSpec(gpu="none"))


def of_evaluation(folder: Path) -> None:
    evaluation.evaluate(HERE, "frame", {"base": (folder, "base"), "tuned": (folder, "tuned")}, EvalSpec())


def of_score(folder: Path) -> None:
    evaluation._score_once("base", folder, "base", "frame", [], EvalSpec())


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    digest.code_digest.cache_clear()
    yield
    digest.code_digest.cache_clear()


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], None]], str]:
    """The key under which a call looks for finished work."""
    model = make_tiny_model(tmp_path / "model")

    def asked(kind: str, inputs: dict[str, Any], *_: Any, **__: Any) -> None:
        raise Asked(digest.digest_json([kind, inputs]))

    modules: tuple[ModuleType, ...] = (base_models, evaluation, finetune, search)
    for module in modules:
        monkeypatch.setattr(module, "reuse", asked)
    for name, content in (
        ("reuse_gguf/__init__.py", ""),
        ("reuse_gguf/tiny.gguf", ""),
        ("reuse_gguf-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: reuse-gguf\nVersion: 1.0\n"),
    ):
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path / "site")

    def found(call: Callable[[Path], None]) -> str:
        with pytest.raises(Asked) as caught:
            call(model)
        return str(caught.value)

    return found


@pytest.mark.parametrize(
    ("call", "libraries"),
    [
        (of_package, ["torch", "transformers", "gguf"]),
        (of_search, ["torch", "transformers", "accelerate", "trl", "peft", "optuna", "cmaes"]),
        (of_training, ["torch", "transformers", "accelerate", "trl", "peft"]),
        (of_evaluation, ["torch", "transformers", "presidio-analyzer"]),
        (of_score, ["torch", "transformers", "presidio-analyzer"]),
    ],
)
def test_another_version_of_a_library_is_other_work(
    key: Callable[..., str], monkeypatch: pytest.MonkeyPatch, call: Any, libraries: list[str]
) -> None:
    before = key(call)
    assert before == key(call)
    version = importlib.metadata.version
    for library in libraries:
        with monkeypatch.context() as patch:
            patch.setattr(
                importlib.metadata,
                "version",
                lambda name, new=library: "0.0" if name == new else version(name),
            )
            assert key(call) != before, library


@pytest.mark.parametrize("kind", ["search", "training"])
def test_on_a_cluster_the_trainers_image_stands_for_its_libraries_which_a_step_lacks(
    key: Callable[..., str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    version = importlib.metadata.version

    def lacking(name: str) -> str:
        if name in {*finetune.LIBRARIES, "optuna", "cmaes"} - {"transformers"}:
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    def with_image(tag: str) -> str:
        spec = TrainSpec.parse({"cluster": {"image": f"registry.example/goldpath/trainer:{tag}"}})
        if kind == "search":
            return key(lambda folder: search.tune(HERE, "frame", folder, "base", SearchSpec(), spec))
        return key(lambda folder: finetune.fine_tune(HERE, "frame", folder, "base", spec))

    monkeypatch.setattr(importlib.metadata, "version", lacking)
    monkeypatch.setenv("GOLDPATH_BACKEND", "kubernetes")
    assert with_image("1") == with_image("1") != with_image("2")


@pytest.mark.parametrize(
    ("call", "modules"),
    [
        (of_model, ["training/modeling.py", "core/modelfiles.py"]),
        (of_package, ["training/modeling.py", "training/base_models.py"]),
        (of_search, ["training/search.py", "training/frames.py", "core/hardware.py"]),
        (of_training, ["training/loop.py", "training/packing.py", "training/frames.py", "core/hardware.py"]),
        (of_evaluation, ["training/gate.py", "core/modelfiles.py", "core/hardware.py"]),
        (of_score, ["training/scoring.py", "core/modelfiles.py", "core/hardware.py"]),
    ],
)
def test_other_code_is_other_work(
    key: Callable[..., str], monkeypatch: pytest.MonkeyPatch, call: Any, modules: list[str]
) -> None:
    before = key(call)
    digest_file = digest.digest_file
    for module in modules:
        digest.code_digest.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(
                digest,
                "digest_file",
                lambda path, new=module: "changed" if str(path).endswith(new) else digest_file(path),
            )
            assert key(call) != before, module


def test_another_gpu_is_no_reason_to_train_again(key: Callable[[Callable[[Path], None]], str]) -> None:
    assert key(of_training) == key(of_training_elsewhere)
    assert key(of_search) == key(of_search_elsewhere)
