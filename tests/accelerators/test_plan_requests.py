"""What the plan answers is a request: it parses, stays as it is, and names GPUs by words of their product."""

from __future__ import annotations

import pytest

from goldpath.accelerators import catalogue, machine, products, profiles, requests
from goldpath.accelerators.granted import granted
from goldpath.accelerators.places import places


@pytest.mark.parametrize("count", [1, 4])
def test_every_answer_is_a_request_in_its_canonical_form(count):
    found = places("any", count)
    assert len(found) > 15
    for place in found:
        assert str(requests.parse(place.request)) == place.request


def test_a_whole_gpu_is_found_by_its_nodes_label():
    for gpu in catalogue.gpus():
        assert set(products.labels(gpu.name, known=gpu.labels)) == set(gpu.labels)


def test_a_gpu_of_the_catalogue_can_be_asked_for_by_its_profiles_and_found_by_its_labels():
    for gpu in catalogue.gpus():
        measured = tuple(profile.resource_name for profile in gpu.mig)
        assert profiles.BY_GPU.get(gpu.name, ()) == (*measured, *gpu.mig_names_only)
        assert products.LABELS[gpu.name] == gpu.labels


def test_a_gpu_of_which_only_names_are_known_can_be_asked_for_and_is_not_planned_for():
    asked = requests.parse("mig:1g.24gb.gfx")
    assert profiles.gpus_with(asked.terms[0].profile) == ("RTX-PRO-6000",)
    assert products.slice_labels("3g.48gb") == ("NVIDIA-GH200-480GB-MIG-3g.48gb",)
    assert not {place.request for place in places("any")} & {"mig:1g.24gb.gfx", "mig:3g.48gb", "whole:GH200"}
    assert str(requests.parse("mig:3g.93gb")) == "mig:3g.93gb", "of a GB200, whose other slices are known"
    assert granted(requests.parse("mig:3g.93gb")) is None
    owners = [name for names in catalogue.product_names().values() for name in names]
    assert len(owners) == len(set(owners)), "a fact stands once"


@pytest.mark.parametrize(
    ("request_", "gib", "count"),
    [
        ("mig:1g.10gb", 9.5, 1),  # of an A100 with 40 GB, the smallest that has it
        ("mig:1g.10gb.shared", 9.5, 1),
        ("mig:1g.10gb*2", 9.5, 2),
        ("mig:2g.20gb.mps:50%,6Gi", 6.0, 1),
        ("whole:L4", 21.9, 1),
        ("shared:L4", 21.9, 1),
        ("whole:A100*2", 39.1, 2),
        ("mps:50%,10Gi", 10.0, 1),
        ("mps:L4,10Gi", 10.0, 1),
        ("dra:gpu.nvidia.com{memory>=40Gi}*2", 40.0, 2),
        ("dra:mig.nvidia.com{gpu.nvidia.com/memory>=40Gi,a.b/memory>=1Gi}", 40.0, 1),
    ],
)
def test_what_a_request_is_sure_to_get(request_, gib, count):
    place = granted(requests.parse(request_))
    assert place.has / 2**30 == pytest.approx(gib, abs=0.06)
    assert (place.request, place.count) == (request_, count)


@pytest.mark.parametrize(
    "request_",
    [
        *("none", "auto", "whole", "shared", "whole:GH200", "mig:3g.48gb", "whole:L4+mig:1g.10gb"),
        *(
            "mps",
            "mps:L4",
            "mps:L4,50%",
            "mig:2g.20gb.mps",
            "mig:2g.20gb.mps:50%",
        ),  # how large a part is not said
        "dra:a.b{gpu.nvidia.com/memory>=1Gi}",
    ],
)
def test_what_is_not_known_before_it_is_granted(request_):
    assert granted(requests.parse(request_)) is None


def test_gpus_of_this_machine_are_asked_of_torch_where_there_is_a_driver(monkeypatch, tmp_path):
    machine.gpus.cache_clear()
    monkeypatch.setattr(machine, "DRIVERS", (tmp_path / "none",))
    assert machine.gpus() == ()
    machine.gpus.cache_clear()
    card = '[["NVIDIA L4", 21474836480, 23622320128, true]]'
    torch = tmp_path / "torch.py"  # stands before the real one in the child's path
    torch.write_text(f"import json\nprint('a warning')\nprint({card!r})\nraise SystemExit(0)\n")
    monkeypatch.setattr(machine, "DRIVERS", (tmp_path,))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    assert machine.gpus() == (
        machine.LocalGpu(name="NVIDIA L4", available=20 * 2**30, total=22 * 2**30, bf16=True),
    )
    machine.gpus.cache_clear()
    for broken in (
        "raise ImportError('libcuda is broken')\n",
        "raise SystemExit(0)\n",
        "import time\ntime.sleep(60)\n",
    ):
        torch.write_text(broken)
        monkeypatch.setattr(machine, "_ASK_S", 20.0 if "sleep" not in broken else 0.2)
        machine.gpus.cache_clear()
        assert machine.gpus() == ()
    machine.gpus.cache_clear()
