"""`goldpath render`: what is printed and written, what each kind takes, and mistakes in one line with their place."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from goldpath.cli import render as cli
from goldpath.core.errors import SpecError
from goldpath.pipelines import manifests
from goldpath.training.manifests import runtime
from tests.cli.typed import in_this_process

URIS = "uris: {frame: s3://data/frame, base: s3://models/base, out: s3://models/out}\n"
TRAIN = f"name: bot\ntrain: {{max_steps: 7}}\n{URIS}"
SERVE = "name: bot\nserve: {model_uri: s3://models/out/model}\n"


def kinds(text: str, kind: str = "all") -> list[str]:
    return [one["kind"] for one in manifests.render(text, "spec.yaml", kind)]


def refused(text: str, kind: str = "all") -> str:
    with pytest.raises(SpecError) as told:
        manifests.render(text, "spec.yaml", kind)
    return told.value.line()


def test_the_command_lists_what_the_library_renders() -> None:
    assert tuple(manifests.KINDS) == cli.KINDS
    assert cli.command.help
    assert all(kind in cli.command.help for kind in cli.KINDS)


def test_without_a_kind_it_names_the_kinds_in_a_line(tmp_path: Path) -> None:
    typed = [sys.executable, "-m", "goldpath.cli.main", "render", "-f", "spec.yaml"]
    done = subprocess.run(typed, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: Missing argument 'KIND'. Choose from: trainjob, pytorchjob, ")


@pytest.mark.parametrize("kind", ["trainjob", "pytorchjob"])
def test_a_disk_of_this_machine_is_refused_with_its_line(kind: str) -> None:
    text = TRAIN.replace("uris: {frame: s3://data/frame", "uris:\n  {frame: file:///home/me/frame")
    told = refused(text, kind)
    assert told.startswith("spec.yaml, line ")
    assert "uris.frame" in told
    assert "a pod cannot read this machine's disk" in told


def test_its_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['goldpath', 'render', '--help']\n"
        "from goldpath.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'pydantic', 'yaml', 'kfp', 'kubernetes'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "gpu-claim" in done.stdout


@pytest.mark.parametrize(
    ("text", "kind", "made"),
    [
        (TRAIN, "trainjob", ["TrainJob"]),
        (TRAIN, "pytorchjob", ["PyTorchJob"]),
        (TRAIN, "all", ["TrainJob"]),
        (TRAIN + "job: {image: a/b}\n", "trainjob", ["TrainJob", "TrainJob"]),
        (f"name: bot\nsearch: {{}}\n{URIS}", "experiment", ["TrainingRuntime", "Experiment"]),
        (SERVE, "inference-service", ["InferenceService"]),
        (SERVE + "cache: {bytes: 5, node_groups: [gpu]}\n", "model-cache", ["LocalModelNamespaceCache"]),
        (SERVE.replace("}", ", kind: llm-inference-service}"), "llm-inference-service", ["LLMInferenceService"]),
        ("name: bot\ngpu: whole", "gpu-claim", ["Pod"]),
        ("name: bot\ngpu: whole\npaths: dra", "all", ["ResourceClaimTemplate", "Pod"]),
        (SERVE + "gpu: whole\n", "all", ["InferenceService"]),
    ],
)  # fmt: skip
def test_each_kind_takes_its_sections(text: str, kind: str, made: list[str]) -> None:
    assert kinds(text, kind) == made


def test_sections_inherit_what_stands_above_them() -> None:
    text = SERVE + "namespace: team\ngpu: mig:1g.10gb\ncache: {bytes: 5, node_groups: [gpu]}\n"
    cache, service = manifests.render(text, "spec.yaml")
    assert cache["spec"]["sourceModelUri"] == "s3://models/out/model"
    assert {one["metadata"]["name"] for one in (cache, service)} == {"bot"}
    assert {one["metadata"]["namespace"] for one in (cache, service)} == {"team"}
    limits = service["spec"]["predictor"]["model"]["resources"]["limits"]
    assert limits["nvidia.com/mig-1g.10gb"] == "1"


def test_a_training_runs_where_the_section_cluster_says() -> None:
    (job,) = manifests.render(TRAIN + "cluster: {memory: 99Gi, secret: keys}\n", "spec.yaml")
    asked = json.loads(job["spec"]["trainer"]["env"][0]["value"])
    assert job["spec"]["trainer"]["resourcesPerNode"]["limits"]["memory"] == "99Gi"
    assert asked["max_steps"] == 7


def test_a_runtime_in_the_file_carries_claims_and_retries() -> None:
    theirs = runtime.render("theirs")
    text = yaml.safe_dump(
        {
            "name": "bot",
            "gpu": "whole",
            "paths": ["dra"],
            "runtimes": [theirs],
            "job": {"runtime": "theirs", "retries": 7},
        }
    )
    objects = manifests.render(text, "spec.yaml")
    carrier = next(one for one in reversed(objects) if one["kind"] == "TrainingRuntime")
    assert carrier["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"] == 7
    text = text.replace("name: theirs", "name: other")
    assert "theirs is not at hand" in refused(text)


def test_two_objects_of_one_name_are_refused_and_equal_ones_are_written_once() -> None:
    both = f"{TRAIN}gpu: whole:H100\npaths: dra\nserve: {{model_uri: s3://m/o%s}}\n"
    assert "two different objects would be the ResourceClaimTemplate bot-gpu" in refused(
        both % ", gpu: whole:L4"
    )
    assert kinds(both % "") == ["ResourceClaimTemplate", "TrainingRuntime", "TrainJob", "InferenceService"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: bot\ntrain:\n  lr: 3\n", "spec.yaml, line 3: train.lr is not a field of TrainSpec. Fields of T"),
        ("name: bot\ntrain:\n  max_steps: 0\n", "spec.yaml, line 3: train.max_steps is 0"),
        ("name: bot\nserve:\n  model_uri: s3://m\n  kv:\n    mode: x\n", "spec.yaml, line 5: serve.kv.mode is"),
        ("name: bot\nserve:\n  model_uri: /m\n", "spec.yaml, line 3: serve.model_uri is '/m', which a cluster"),
        ("name: bot\nserve:\n  kind: x\n", "spec.yaml, line 3: serve.kind is"),
        ("name: bot\nsevre: {}\n", "spec.yaml, line 2: sevre is not a section. Did you mean 'serve'?"),
        ("name: bot\ngpu: 1\n", "spec.yaml, line 2: gpu is 1"),
        ("name: bot\ngpu: hhh\n", "spec.yaml, line 2: gpu: GPU request 'hhh'"),
        ("name: bot\npaths: draa\n", "spec.yaml, line 2: paths has 'draa'. Did you mean 'dra'?"),
        ("name: bot\npaths: {paths: [dra], nodes: 3}\n", "spec.yaml, line 2: paths.nodes is not a field of"),
        ("name: bot\ngpu: whole:H100\npaths: [plugin-mps]\n", "line 3: a cluster with these paths cannot serve"),
        ("name: bot\ngpu: auto\n", "spec.yaml, line 2: gpu asks for the GPU auto"),
        ("name: Bot_\n", "spec.yaml, line 1: name is \"Bot_\": use lower-case letters"),
        ("gpu: whole\n", "spec.yaml: name is missing"),
        ("name: bot\ntrain: {}\n", "spec.yaml has no section uris"),
        (TRAIN.replace(", out: s3://models/out", ""), "spec.yaml, line 2: there is no place for checkpoints"),
        (TRAIN + "cluster: {storage: 's3://a', claim: b}\n", "line 4: cluster: storage and claim are both given"),
        (TRAIN.replace("max_steps: 7", "cluster: {nodes: 2}"), "spec.yaml, line 2: train.cluster is given. Move it"),
        ("name: bot\nserve: 5\n", "spec.yaml, line 2: serve is 5. Give fields: kind, name"),
        ("name: bot\nname: bob\n", "spec.yaml, line 2: name is given twice, first in line 1"),
        ("name: [bot\n", "spec.yaml, line 2: this is no YAML"),
        ("name: bot\n---\nname: bob\n", "spec.yaml, line 2: there are several documents"),
        ("", "spec.yaml holds nothing"),
        ("- 1\n", "spec.yaml holds no sections"),
        ("name: bot\n", "spec.yaml has nothing to render"),
        ("name: \x07\n", "spec.yaml: this is no YAML"),
        ("apiVersion: v1\nkind: Pod\n", "spec.yaml: this is a Kubernetes object (Pod), not a spec. Put it into"),
        ("name: bot\ngpu: whole\nworkloads: 3\n", "spec.yaml, line 3: workloads is 3"),
        ("name: bot\ngpu: whole\nruntimes:\n- {apiVersion: a/v1, kind: TrainingRuntime, metadata: {name: a}}\n",
         "spec.yaml, line 4: runtimes.0 is no training runtime"),
        ("gpu: whole\nworkloads:\n- {apiVersion: v1, kind: [Pod], metadata: {name: a}}\n", "line 3: workloads.0 is no"),
        ("name: bot\npaths: {paths: true}\n", "spec.yaml, line 2: paths.paths is true"),
        ("name: bot\ntrain:\n", "spec.yaml has no section uris"),
        ("gpu: whole\nworkloads:\n- {kind: Pod}\n", "spec.yaml, line 3: workloads.0 is no Kubernetes object"),
        ("gpu: whole\nworkloads:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n", "the Pod a in workloads"),
        ("gpu: whole\nworkloads:\n- {apiVersion: v1, kind: Job, metadata: {name: a}}\n", "workloads has a Job, which"),
        ("cache: {name: a, model_uri: 's3://m', bytes: 9999999, node_groups: [g]}\nnode_group: {name: g, storage: 1Mi, "
         "node_labels: {a: b}}\n", "spec.yaml, line 1: s3://m has 10Mi and the node group g 1Mi"),
        ("name: " + "b" * 60 + "\n" + TRAIN.partition("\n")[2], "spec.yaml, line 2: 'bbb"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_where(text: str, told: str) -> None:
    line = refused(text)
    assert told in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        (SERVE, "llm-inference-service", "line 2: serve.kind is inference-service. Use `goldpath render inf"),
        (SERVE, "experiment", "spec.yaml has no section search. Add it; there is serve."),
        (SERVE, "gpu-claim", "spec.yaml has no section gpu"),
        (SERVE, "trainjob", "spec.yaml has no section train"),
        (SERVE, "model-cache", "spec.yaml has no section cache"),
    ],
)  # fmt: skip
def test_a_kind_whose_section_is_missing_says_so(text: str, kind: str, told: str) -> None:
    assert told in refused(text, kind)


def test_the_pod_of_a_gpu_claim_is_restricted() -> None:
    (pod,) = manifests.render("name: bot\ngpu: whole", "spec.yaml", "gpu-claim")
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert pod["spec"]["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def typed(patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = in_this_process(patch, "render", *words)
    out, err = capsys.readouterr()
    return code, out, err


def test_it_prints_yaml_or_a_list_in_json_and_reads_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("name: bot\ngpu: whole\npaths: dra\n")
    _, out, _ = typed(monkeypatch, capsys, "all", "-f", str(file))
    objects = list(yaml.safe_load_all(out))
    assert [one["kind"] for one in objects] == ["ResourceClaimTemplate", "Pod"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    code, out, _ = typed(monkeypatch, capsys, "all", "-f", "-", "--json")
    assert (code, json.loads(out)) == (0, {"apiVersion": "v1", "kind": "List", "items": objects})


def test_a_folder_gets_one_file_each_in_order_and_none_of_an_earlier_time_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "spec.yaml", tmp_path / "made" / "here"
    file.write_text(SERVE)
    typed(monkeypatch, capsys, "all", "-f", str(file), "-o", str(folder))
    (folder / "README.md").write_text("mine")
    file.write_text(SERVE + "cache: {bytes: 5, node_groups: [gpu]}\n")
    code, out, _ = typed(monkeypatch, capsys, "all", "-f", str(file), "-o", str(folder))
    names = ["01-localmodelnamespacecache-bot.yaml", "02-inferenceservice-bot.yaml"]
    assert (code, out.split()) == (0, [str(folder / name) for name in names])
    assert sorted(one.name for one in folder.iterdir()) == [*names, "README.md"]
    made: Any = [yaml.safe_load((folder / name).read_text()) for name in names]
    assert made == manifests.render(file.read_text(), "spec.yaml")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "cannot read"),
        (b"\xff\xfe", "is no text in UTF-8"),
        (b"name: bot\nserve: 5", "line 2: serve is 5"),
    ],
)
def test_mistakes_end_with_exit_code_2(
    data: bytes | None,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "spec.yaml"
    if data is not None:
        file.write_bytes(data)
    code, out, err = typed(monkeypatch, capsys, "all", "-f", str(file))
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
