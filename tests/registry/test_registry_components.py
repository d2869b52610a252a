"""From the judgement to the cache, by the components' own code in processes as KFP starts them: what is promoted was
compared with the present champion, and what is served is what was registered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from goldpath.core.errors import EXIT_CODE
from goldpath.core.files import write_json
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
BODY = """
import importlib, json, sys
from kfp import dsl
from goldpath.core.reuse import Reused
from goldpath.training import evaluation
from goldpath.training.results import EvalResult

def judge(frame, digest, judged, spec):
    scores = [{"name": name, **json.loads(sys.argv[4])} for name in judged]
    result = EvalResult(scores=scores, samples=[], loss_drop=0.5, passed=True, checks=[], rows=1, tokens=1)
    return Reused(result, frame, "key", reused=False)

evaluation.evaluate = judge  # scoring takes a minute, and the verdict is not at stake here
name, out = sys.argv[1], sys.argv[2]
given = {
    key: dsl.Model(name=key, **value) if isinstance(value, dict) and key != "overrides" else value
    for key, value in json.loads(sys.argv[3]).items()
}
component = getattr(importlib.import_module("goldpath.components." + name), name)
inputs = set(component.component_spec.inputs or {}) | set(given)
made = {
    key: (dsl.Metrics if key == "metrics" else dsl.Model)(name=key, uri=f"{out}/{key}")
    for key in component.component_spec.outputs
    if key not in inputs and key != "Output"
}
component.python_func(**given, **made)
print(json.dumps({key: {"uri": one.uri, "metadata": dict(one.metadata)} for key, one in made.items()}))
"""


def run(name: str, tmp_path: Path, **given: Any) -> subprocess.CompletedProcess[str]:
    """Run a component's body; its output artifacts are the last line of its output."""
    out = tmp_path / "out" / name
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", BODY, name, str(out), json.dumps(given), json.dumps(SCORE)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))


def artifacts(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def of(folder: Path, digest: str) -> dict[str, Any]:
    return {"uri": folder.as_uri(), "metadata": {"digest": digest, "source": "package://base"}}


def evaluated(tmp_path: Path, model: Make, seed: int) -> dict[str, dict[str, Any]]:
    folder, lineage = model(seed)
    tuned = of(folder, lineage.model_digest)
    return artifacts(run("evaluate", tmp_path, frame=of(tmp_path, "f"), base=of(folder, "b"), tuned=tuned))


def registered(
    tmp_path: Path, model: Make, seed: int, judged: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
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
    registry: Path, model: Make, tmp_path: Path
) -> None:
    slow = evaluated(tmp_path / "slow", model, 1)
    fast = evaluated(tmp_path / "fast", model, 2)
    artifacts(registered(tmp_path, model, 2, fast))
    refused = registered(tmp_path, model, 1, slow)
    assert refused.returncode == EXIT_CODE
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
    assert "version 1 of kube-assistant became champion meanwhile" in line
    assert [version.version for version in models.versions("kube-assistant")] == ["1"]
    anew = evaluated(tmp_path / "slow", model, 1)
    assert anew["result"]["metadata"]["champion"] == "1"
    artifacts(registered(tmp_path, model, 1, anew))
    best = models.champion("kube-assistant")
    assert best is not None
    assert best.lineage.model_digest == model(1)[1].model_digest


def test_the_same_run_again_adopts_its_champion(registry: Path, model: Make, tmp_path: Path) -> None:
    for adopted in (False, True):
        judged = evaluated(tmp_path, model, 1)
        made = artifacts(registered(tmp_path, model, 1, judged))
        result = json.loads(Path(made["result"]["uri"]).read_text())["result"]
        assert (result["version"], result["champion"], result["adopted"]) == ("1", "1", adopted)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_after_registration_is_not_served(registry: Path, model: Make, tmp_path: Path) -> None:
    made = artifacts(registered(tmp_path, model, 1, evaluated(tmp_path, model, 1)))
    weights = local_path(made["registered"]["uri"]) / "model.safetensors"
    good = weights.read_bytes()
    _flip(weights)
    refused = run("warm_cache", tmp_path, registered=made["registered"])
    assert refused.returncode == EXIT_CODE
    assert "was changed after it was registered" in refused.stderr
    assert list((registry / "models").glob("snapshots/*")) == []
    weights.write_bytes(good)
    warmed = artifacts(run("warm_cache", tmp_path, registered=made["registered"]))
    assert warmed["cached"]["metadata"]["digest"] == model(1)[1].model_digest
    assert warmed["cached"]["metadata"]["version"] == "1"
    blank = {"warm_cache": {"model_digest": ""}}  # would let any model through
    refused = run("warm_cache", tmp_path, registered=made["registered"], overrides=blank)
    assert refused.returncode == EXIT_CODE
    assert "overrides.warm_cache.model_digest cannot be set" in refused.stderr
