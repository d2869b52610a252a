"""What `goldpath plan --gpu` reads: names, profiles, and each request whose memory is known."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from goldpath.accelerators import catalogue, models, plan
from goldpath.accelerators.chosen import choose, devices
from goldpath.accelerators.granted import granted
from goldpath.accelerators.places import places
from goldpath.accelerators.requests import parse
from goldpath.accelerators.training_shape import TrainingShape
from goldpath.cli.main import cli
from goldpath.core.errors import SpecError

SMALL = models.load("SmolLM2-135M")
HOPPER = "dra:gpu.nvidia.com[device.attributes['gpu.nvidia.com'].architecture == 'Hopper']{memory>=40Gi}"


def shown(*words: str) -> str:
    done = CliRunner().invoke(cli, ["plan", *words])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    "request_",
    [
        "shared:A100-40GB",
        "mps:A100-40GB,50%,10Gi",
        "mps:50%,10Gi",
        "mig:1g.10gb.shared",
        "mig:2g.20gb.mps:50%,6Gi",
        "dra:gpu.nvidia.com{memory>=40Gi}",
        HOPPER,
        "shared:L4;share=team-a",
    ],
)
def test_a_request_is_planned_for_with_what_it_is_sure_to_get(request_):
    (row,) = plan.train(SMALL, TrainingShape(), request_).rows
    assert (row.request, row.has) == (request_, granted(parse(request_)).has)
    assert request_ in shown("train", "--model", "SmolLM2-135M", "--gpu", request_)


@pytest.mark.parametrize(
    ("request_", "remedy"),
    [
        ("whole", "With a GPU's name it is known: whole:L4."),
        ("whole*2;same=resource.kubernetes.io/pcieRoot", "whole:L4."),
        ("shared", "shared:L4."),
        ("mps:L4,50%", "With a limit it is known: mps:L4,50%,10Gi."),
        ("mps", "mps:10Gi."),
        ("mig:2g.20gb.mps", "mig:2g.20gb.mps:10Gi."),
        ("dra:gpu.nvidia.com", "With a condition it is known: dra:gpu.nvidia.com{memory>=40Gi}."),
    ],
)
def test_what_is_not_known_before_it_is_granted_says_so(request_, remedy):
    with pytest.raises(SpecError, match="is not known before it is granted") as caught:
        places(request_)
    assert remedy in caught.value.remedy
    example = caught.value.remedy.rpartition(": ")[2].rstrip(".")
    assert places(example), "what it names is planned for"


def test_a_count_is_how_many_work_together():
    wide = json.loads(shown("train", "--model", "SmolLM2-135M", "--gpu", "whole:T4*4", "--json"))
    asked = ("train", "--model", "SmolLM2-135M", "--gpu", "whole:T4", "--gpus", "4", "--json")
    assert wide == json.loads(shown(*asked))
    assert wide["shape"]["gpus"] == 4
    served = json.loads(shown("serve", "--model", "SmolLM2-135M", "--gpu", "whole:L4*3", "--json"))
    assert served["shape"]["tensor_parallel"] == 3
    paired = "dra:gpu.nvidia.com{memory>=40Gi}*2;same=gpu.nvidia.com/parentUUID"
    assert devices(paired, "--gpus", 1) == 2
    assert places(paired, 2)[0].request == "dra:gpu.nvidia.com{memory>=40Gi}*2"
    with pytest.raises(SpecError, match=r"whole:T4\*4 asks for 4 devices, and the plan is for 1"):
        places("whole:T4*4")
    with pytest.raises(SpecError, match="shared:L4 is a share or a slice, and 2 devices that work together"):
        places("shared:L4", 2)


def test_what_has_no_known_memory_is_left_out_with_a_note():
    made = plan.train(SMALL, TrainingShape(), "B300,L4")
    assert [row.request for row in made.rows] == ["whole:L4"]
    assert made.notes[0].startswith("how much memory B300 has is not in the catalogue")
    with pytest.raises(catalogue.MemoryUnknown, match="B300"):
        places("B300,GH200")


def test_turns_have_a_note_and_auto_is_any():
    assert (
        "while the others who share it hold nothing"
        in plan.train(SMALL, TrainingShape(), "shared:L4").notes[0]
    )
    assert plan.train(SMALL, TrainingShape(), "mps:50%,10Gi").notes[0] == (
        "which GPU mps:50%,10Gi gives is not known: it counts as one with bf16 and fp8"
    )
    assert places("auto") == places("any")
    assert [place.request for place in places("A100-40GB:1g.5gb,mps:L4,50%,10Gi,T4")] == [
        "mig:1g.5gb",
        "mps:L4,50%,10Gi",
        "whole:T4",
    ]
    assert choose("A100,A100").notes == ("A100 is A100-40GB and A100-80GB",)


def test_text_and_json_have_the_same_notes():
    for words in (("train", "--gpu", "A100"), ("serve", "--gpu", "L4")):
        command = (*words, "--model", "SmolLM2-135M")
        text = shown(*command)
        notes = json.loads(shown(*command, "--json"))["notes"]
        assert text.count("Note: ") == len(notes) > 0
        assert all(note.rstrip(".") in text for note in notes)
