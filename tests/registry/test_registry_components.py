"""From the judgement to the cache, by the components' own code: what is promoted was
compared with the present champion, and what is served is what was registered."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from goldpath.core.errors import EXIT_CODE
from goldpath.core.files import write_json
from goldpath.core.reuse import Reused
from goldpath.core.uris import local_path
from goldpath.registry import models
from goldpath.registry.results import Lineage

Make = Callable[..., tuple[Path, Lineage]]
SCORE = {
    "loss": 1.0,
    "perplexity": 2.7,
    "token_accuracy": 0.5,
    "overlap": 0.5,
    "pii_leak_rate": 0.0,
    "refusal_rate": 1.0,
}


@dataclass
class Ran:
    """What a component left."""

    code: int
    made: dict[str, Any]
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a component's body on input artifacts; it gets output artifacts of its own."""
    from kfp import dsl

    from goldpath.training import evaluation
    from goldpath.training.results import EvalResult

    def judge(frame: Path, digest: str, judged: Any, spec: Any) -> Reused[EvalResult]:
        scores = [{"name": name, **SCORE} for name in judged]
        result = EvalResult.model_validate(
            {
                "scores": scores,
                "samples": [],
                "loss_drop": 0.5,
                "passed": True,
                "checks": [],
                "rows": 1,
                "tokens": 1,
            }
        )
        return Reused(result, frame, "key", reused=False)

    monkeypatch.setattr(
        evaluation, "evaluate", judge
    )  # scoring takes a minute; the verdict is not at stake here
    monkeypatch.setenv("GOLDPATH_STEP", "")

    def started(name: str, place: Path = tmp_path, **given: Any) -> Ran:
        out = place / "out" / name
        out.mkdir(parents=True, exist_ok=True)
        component = getattr(importlib.import_module(f"goldpath.components.{name}"), name)
        inputs = {
            key: dsl.Model(name=key, **one) if key != "overrides" and isinstance(one, dict) else one
            for key, one in given.items()
        }
        made = {
            key: (dsl.Metrics if key == "metrics" else dsl.Model)(name=key, uri=f"{out}/{key}")
            for key in component.component_spec.outputs
            if key not in {*(component.component_spec.inputs or {}), *given, "Output"}
        }
        code = 0
        try:
            component.python_func(**inputs, **made)
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        told = {key: {"uri": one.uri, "metadata": dict(one.metadata)} for key, one in made.items()}
        return Ran(code, told, capsys.readouterr().err)

    return started


def artifacts(done: Ran) -> dict[str, dict[str, Any]]:
    assert done.code == 0, done.stderr
    return done.made


def of(folder: Path, digest: str) -> dict[str, Any]:
    return {"uri": folder.as_uri(), "metadata": {"digest": digest, "source": "package://base"}}


def evaluated(run: Run, tmp_path: Path, model: Make, seed: int) -> dict[str, dict[str, Any]]:
    folder, lineage = model(seed)
    tuned = of(folder, lineage.model_digest)
    return artifacts(run("evaluate", tmp_path, frame=of(tmp_path, "f"), base=of(folder, "b"), tuned=tuned))


def registered(run: Run, tmp_path: Path, model: Make, seed: int, judged: dict[str, Any]) -> Ran:
    folder, lineage = model(seed)
    training = write_json(tmp_path / "training.json", {"result": {"hyperparameters": {"method": "lora"}}})
    return run(
        "register_model",
        tmp_path,
        tuned=of(folder, lineage.model_digest),
        base=of(folder, "b"),
        documents=of(tmp_path, "d"),
        evaluation=judged["result"],
        training={"uri": str(training)},
        verdict="accepted",
    )


def test_a_run_that_another_overtook_does_not_take_the_champion_over(
    registry: Path, run: Run, model: Make, tmp_path: Path
) -> None:
    slow = evaluated(run, tmp_path / "slow", model, 1)
    fast = evaluated(run, tmp_path / "fast", model, 2)
    artifacts(registered(run, tmp_path, model, 2, fast))
    refused = registered(run, tmp_path, model, 1, slow)
    assert refused.code == EXIT_CODE
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert "version 1 of kube-assistant became champion meanwhile" in line
    assert [version.version for version in models.versions("kube-assistant")] == ["1"]
    anew = evaluated(run, tmp_path / "slow", model, 1)
    assert anew["result"]["metadata"]["champion"] == "1"
    artifacts(registered(run, tmp_path, model, 1, anew))
    best = models.champion("kube-assistant")
    assert best is not None
    assert best.lineage.model_digest == model(1)[1].model_digest


def test_the_same_run_again_adopts_its_champion(
    registry: Path, run: Run, model: Make, tmp_path: Path
) -> None:
    for adopted in (False, True):
        judged = evaluated(run, tmp_path, model, 1)
        made = artifacts(registered(run, tmp_path, model, 1, judged))
        result = json.loads(Path(made["result"]["uri"]).read_text())["result"]
        assert (result["version"], result["champion"], result["adopted"]) == ("1", "1", adopted)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_after_registration_is_not_served(
    registry: Path, run: Run, model: Make, tmp_path: Path
) -> None:
    made = artifacts(registered(run, tmp_path, model, 1, evaluated(run, tmp_path, model, 1)))
    weights = local_path(made["registered"]["uri"]) / "model.safetensors"
    good = weights.read_bytes()
    _flip(weights)
    refused = run("warm_cache", tmp_path, registered=made["registered"])
    assert refused.code == EXIT_CODE
    assert "was changed after it was registered" in refused.stderr
    assert list((registry / "models").glob("snapshots/*")) == []
    weights.write_bytes(good)
    warmed = artifacts(run("warm_cache", tmp_path, registered=made["registered"]))
    assert warmed["cached"]["metadata"]["digest"] == model(1)[1].model_digest
    assert warmed["cached"]["metadata"]["version"] == "1"
    blank = {"warm_cache": {"model_digest": ""}}  # would let any model through
    refused = run("warm_cache", tmp_path, registered=made["registered"], overrides=blank)
    assert refused.code == EXIT_CODE
    assert "overrides.warm_cache.model_digest cannot be set" in refused.stderr
