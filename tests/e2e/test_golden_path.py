"""The golden path for real: the compiled YAML through kfp.local, every component, on a tiny model and data set.

Three runs in this order, as a user would: a first one, the same again, and a longer one that is killed in the middle
of its fine-tuning, resumed, and rejected by the gate.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from goldpath.core.errors import InputError
from goldpath.reporting.numbers import duration
from tests.conftest import TRACED
from tests.models import make_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

COMPONENTS = {
    "prepare_data",
    "build_features",
    "import_model",
    "plan_resources",
    "tune",
    "fine_tune",
    "evaluate",
    "register_model",
    "warm_cache",
    "deploy",
    "probe",
    "report",
}
OVERRIDES = {
    "prepare_data": {"validation_fraction": 0.2, "test_fraction": 0.2},
    "tune": {"trial_steps": 2, "parameters": [{"name": "lora_rank", "type": "categorical", "list": [4, 8]}]},
    "fine_tune": {"sequence_length": 64, "checkpoint_steps": 2, "evaluate_steps": 2, "validation_rows": 4},
    "evaluate": {"loss_rows": 8, "generate_rows": 2, "max_new_tokens": 4, "gate": {"min_refusal_rate": 0}},
    "probe": {"context_tokens": 128, "repeats": 1, "max_new_tokens": 4, "retrieved_chunks": 2},
}


def goldpath(home: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-m", "goldpath.cli.main", *words],
        capture_output=True,
        text=True,
        timeout=500,
        env=environment(home),
    )
    if check:
        logs = "\n".join(file.read_text()[-3000:] for file in home.glob("runs/*/logs/*.log"))
        assert done.returncode == 0, done.stdout + done.stderr + logs
    return done


def environment(home: Path) -> dict[str, str]:
    """Without coverage of children: a fixture of a module is made before a test's own mark has its effect."""
    return {**{k: v for k, v in os.environ.items() if k != TRACED}, "GOLDPATH_HOME": str(home)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A home, a data set and a base model of the user's own."""
    root = tmp_path_factory.mktemp("golden")
    make_tiny_model(root / "base")
    verbs = ["start", "stop", "scale", "drain", "label", "cordon", "delete", "patch"]
    nouns = ["pod", "node", "job", "service", "volume", "secret", "ingress", "quota"]
    with (root / "chats.jsonl").open("w") as file:
        for verb in verbs:
            for noun in nouns:
                question = f"How do I {verb} a {noun}?"
                answer = f"Type kubectl {verb} {noun} and wait until the {noun} says that it is {verb}ed."
                file.write(
                    json.dumps({"prompt": question, "completion": answer, "source": f"{verb}.md"}) + "\n"
                )
    yield root
    goldpath(root / "home", "endpoints", "stop", "tiny", check=False)


def arguments(place: Path, **more) -> list[str]:
    values = {
        "dataset": place / "chats.jsonl",
        "model": place / "base",
        "name": "tiny",
        "max_steps": 4,
        "max_trials": 1,
        "min_loss_drop": -5,
        "max_pii_leak_rate": 1,
        "overrides": json.dumps(OVERRIDES),
        **more,
    }
    return [word for key, value in values.items() for word in ("-p", f"{key}={value}")]


@pytest.fixture(scope="module")
def first(place):
    words = arguments(place)
    return json.loads(goldpath(place / "home", "run", "finetune", "--json", *words).stdout)


@pytest.fixture(scope="module")
def again(place, first):
    return json.loads(goldpath(place / "home", "run", "finetune", "--json", *arguments(place)).stdout)


def kill_at_once(root: psutil.Process) -> None:
    """SIGKILL to a whole tree as if the power went: frozen first, so that none sees another die and writes it down."""
    root.suspend()
    family = [root, *root.children(recursive=True)]
    for send in ("suspend", "kill"):
        for one in family:
            getattr(one, send)()


@pytest.fixture(scope="module")
def resumed(place, again):
    """A longer training, all of whose processes get SIGKILL after its second checkpoint, and which is then resumed."""
    home = place / "home"
    longer = {
        **OVERRIDES,
        "fine_tune": {**OVERRIDES["fine_tune"], "checkpoint_steps": 10, "evaluate_steps": 30},
    }
    words = arguments(place, min_loss_drop=0.99, max_steps=60, overrides=json.dumps(longer))
    process = subprocess.Popen(
        [sys.executable, "-m", "goldpath.cli.main", "run", "finetune", "-n", "killed", *words],
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list((home / "store" / "fine-tune").glob("*/checkpoints/checkpoint-20/goldpath.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    kill_at_once(psutil.Process(process.pid))
    process.wait()
    assert json.loads(goldpath(home, "runs", "show", "killed", "--json").stdout)["status"] == "interrupted"
    return json.loads(goldpath(home, "run", "--resume", "killed", "--json").stdout)


def steps_of(place: Path, run: str) -> dict[str, dict]:
    folder = place / "home" / "runs" / run / "results"
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def test_every_component_ran_and_left_its_result(place, first):
    assert first["status"] == "succeeded"
    assert set(steps_of(place, first["run"])) == COMPONENTS
    assert not any(step["reused"] for name, step in steps_of(place, first["run"]).items() if name != "report")


def test_the_training_ran_as_it_was_planned(place, first):
    steps = steps_of(place, first["run"])
    plan, trained = steps["plan_resources"]["result"], steps["fine_tune"]["result"]
    assert (plan["asked"], plan["gpu"]) == ("auto", "none")
    assert plan["shape"]["lora_rank"] == 8, "the largest that the search may choose"
    assert plan["shape"]["sequence_length"] == trained["hyperparameters"]["sequence_length"] == 64
    assert "gpu" not in trained["hyperparameters"], "where it ran is no part of what it is"
    assert plan["here"]["fits"]
    assert plan["cluster"]["place"].startswith("mig:")
    run = json.loads((place / "home" / "runs" / first["run"] / "run.json").read_text())
    assert "gpu" not in run["parameters"]
    page = Path(first["report"]).read_text(encoding="utf-8")
    assert "The fine-tuning was measured at" in page
    assert f"On a cluster: {plan['cluster']['place']}" in page


def test_the_model_is_champion_with_its_lineage(place, first):
    steps = steps_of(place, first["run"])
    version = steps["register_model"]["result"]
    assert (version["version"], version["champion"], version["accepted"]) == ("1", "1", True)
    lineage = version["lineage"]
    assert lineage["run"] == first["run"]
    assert lineage["dataset_digest"] == steps["prepare_data"]["result"]["digest"]
    assert lineage["base_model_digest"] == steps["import_model"]["result"]["digest"]
    assert lineage["model_digest"] == steps["fine_tune"]["result"]["model_digest"]
    assert lineage["pipeline"] == "finetune"
    assert lineage["pipeline_version"] == "1"
    run = json.loads((place / "home" / "runs" / first["run"] / "run.json").read_text())
    assert lineage["pipeline_digest"] == run["pipeline_digest"]


def test_the_endpoint_outlives_the_run_and_serves_the_tuned_model(place, first):
    import openai

    steps = steps_of(place, first["run"])
    registered = steps["register_model"]["result"]["lineage"]["model_digest"]
    assert steps["deploy"]["result"]["model_digest"] == registered
    client = openai.OpenAI(base_url=first["endpoint"]["url"], api_key="none")
    answer = client.chat.completions.create(
        model=first["endpoint"]["model"], messages=[{"role": "user", "content": "Hello"}], max_tokens=4
    )
    assert answer.choices[0].finish_reason in ("length", "stop")
    listed = json.loads(goldpath(place / "home", "endpoints", "list", "--json").stdout)
    assert [(one["name"], one["healthy"]) for one in listed] == [("tiny", True)]
    said = goldpath(place / "home", "chat", "-m", "How do I drain a node?", "--max-tokens", "4")
    assert said.returncode == 0


def test_the_report_tells_the_figures_of_this_run(place, first):
    page = Path(first["report"]).read_text(encoding="utf-8")
    assert first["run"] in page
    assert "kubectl" in page  # a sample of the data
    scores = {score["name"]: score for score in steps_of(place, first["run"])["evaluate"]["result"]["scores"]}
    assert f"{scores['tuned']['loss']:.3f}" in page
    assert f"12 steps in {duration(first['seconds'])}." in page  # as the terminal says it
    assert goldpath(place / "home", "report", first["run"]).stdout.strip() == first["report"]


def test_the_same_again_reuses_what_did_not_change(place, first, again):
    steps = steps_of(place, again["run"])
    reused = {name for name, step in steps.items() if step["reused"]}
    assert reused >= {
        "prepare_data",
        "build_features",
        "import_model",
        "tune",
        "fine_tune",
        "warm_cache",
        "deploy",
    }
    assert again["model"]["version"] == "1", "the same content is the same version"
    assert steps["register_model"]["result"]["adopted"]
    assert again["endpoint"] == first["endpoint"]


def test_a_model_below_the_gate_is_rejected_and_not_deployed(place, first, resumed):
    steps = steps_of(place, resumed["run"])
    assert set(steps) == COMPONENTS - {"warm_cache", "deploy", "probe"}
    assert resumed["evaluation"]["passed"] is False
    assert "endpoint" not in resumed
    (headline,) = re.findall(r"<h1>(.*?)</h1>", Path(resumed["report"]).read_text(encoding="utf-8"))
    assert headline == "Version 2 was rejected by the gate"
    assert (resumed["model"]["version"], resumed["model"]["champion"]) == ("2", "1")
    listed = json.loads(goldpath(place / "home", "endpoints", "list", "--json").stdout)
    served = steps_of(place, first["run"])["deploy"]["result"]["model_digest"]
    assert [one["model_digest"] for one in listed] == [served], "the champion, as before"


def test_a_second_run_with_the_same_name_is_refused_and_harms_nothing(place, again):
    file = place / "home" / "runs" / again["run"] / "run.json"
    before = file.read_bytes()
    done = goldpath(place / "home", "run", "finetune", "-n", again["run"], *arguments(place), check=False)
    assert done.returncode == 2
    assert f"there already is a run '{again['run']}'" in done.stderr
    assert file.read_bytes() == before


def test_a_killed_run_goes_on_where_it_stopped_and_ends_as_if_nothing_had_been(place, resumed, tmp_path):
    from goldpath.training import finetune
    from goldpath.training.specs import TrainSpec

    steps = steps_of(place, "killed")
    finished = {name for name, step in steps.items() if step["reused"]}
    assert finished >= {"prepare_data", "build_features", "import_model", "tune"}
    trained = steps["fine_tune"]["result"]
    assert trained["resumed_from"] >= 20
    store = place / "home" / "store"
    (frame,), (base,) = store.glob("features/*/train.parquet"), store.glob("base-model/*/model")
    spec = TrainSpec.parse(trained["hyperparameters"])
    whole = finetune.train_once(frame.parent, base, spec, tmp_path / "uninterrupted")
    assert whole.resumed_from == 0
    assert trained["eval_loss"] == whole.eval_loss
    assert [row["loss"] for row in trained["curve"]] == [row["loss"] for row in whole.curve]
    assert trained["model_digest"] == whole.model_digest
    assert resumed["evaluation"]["passed"] is False


def test_notebooks_get_the_same_errors(home):
    from goldpath import pipelines

    with pytest.raises(InputError, match="no parameter 'stepz'"):
        pipelines.run("finetune", stepz=3)
