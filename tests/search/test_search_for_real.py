"""The search over real trainings of a tiny model."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from goldpath.core import settings
from goldpath.core.digest import digest_manifest, manifest
from goldpath.core.errors import DataError
from goldpath.training import search
from goldpath.training.specs import SearchSpec, TrainSpec
from tests.models import make_frame, make_tiny_model

TRAIN = {
    "sequence_length": 64,
    "batch_size": 2,
    "validation_rows": 4,
    "precision": "fp32",
    "lora_rank": 4,
    "seed": 3,
}


@pytest.mark.e2e
def test_trials_are_trainings_side_by_side(home: Path, tmp_path: Path) -> None:
    frame, base = make_frame(tmp_path / "frame"), make_tiny_model(tmp_path / "base")
    before = digest_manifest(manifest(base))
    rates = [1e-4, 2e-2]
    spec = SearchSpec.parse(
        {
            "algorithm": "grid",
            "parameters": [{"name": "learning_rate", "type": "discrete", "list": rates}],
            "trial_steps": 6,
            "parallel_trials": 2,
            "early_stopping": {"algorithm": "medianstop", "min_trials": 9, "start_step": 2},
        }
    )
    found = search.tune(frame, "frame", base, "base", spec, TrainSpec.parse(TRAIN))
    slow, fast = found.result.trials
    assert [slow.status, fast.status] == ["succeeded", "succeeded"], [slow.error, fast.error]
    assert [step for step, _ in slow.curve] == [1, 2, 3, 4, 5, 6]
    assert slow.curve[-1][1] > 5.5  # hardly moved from ln 512
    assert fast.objective is not None
    assert fast.objective < 0.95 * slow.curve[-1][1]
    assert found.result.best == fast
    assert found.result.hyperparameters["learning_rate"] == 2e-2
    assert digest_manifest(manifest(base)) == before
    assert sorted(path.name for path in found.path.iterdir()) == ["result.json", "trials.jsonl"]
    assert not psutil.Process().children(recursive=True)
    assert tracked_trials() == {"trial-0": slow.curve[-1][1], "trial-1": fast.objective}


def tracked_trials() -> dict[str, float]:
    """Name to last eval_loss of the runs in the embedded MLflow store."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=settings.tracking_uri())
    experiment = client.get_experiment_by_name(search.EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    assert all(run.info.status == "FINISHED" for run in runs)
    return {run.info.run_name: run.data.metrics["eval_loss"] for run in runs}


def test_a_frame_without_rows_ends_the_search_before_any_trial(home: Path, tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base")
    with pytest.raises(DataError, match=r"train\.parquet"):
        search.tune(tmp_path / "nowhere", "frame", base, "base", SearchSpec(), TrainSpec.parse(TRAIN))
