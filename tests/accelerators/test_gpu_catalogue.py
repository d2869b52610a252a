"""The catalogue of GPUs: facts that contradict each other are found, and mistakes are named."""

from __future__ import annotations

import re

import pytest

from goldpath.accelerators import catalogue, profiles
from goldpath.accelerators.granted import granted
from goldpath.accelerators.places import places
from goldpath.accelerators.requests import parse
from goldpath.core.errors import SpecError

MIG = [gpu for gpu in catalogue.gpus() if gpu.mig]


def test_the_gpus_that_the_docs_promise_are_there():
    names = {gpu.name for gpu in catalogue.gpus()}
    assert {"A30", "A100-40GB", "A100-80GB", "H100", "H100-NVL", "H200", "B200", "L4", "L40S", "T4"} <= names
    assert len(names) == len(catalogue.gpus())


def test_a_name_is_one_gpu_only():
    owners: dict[str, set[str]] = {}
    for gpu in catalogue.gpus():
        for word in (gpu.name, *gpu.aliases, *gpu.products):
            owners.setdefault(catalogue._plain(word), set()).add(gpu.name)
    assert {word: names for word, names in owners.items() if len(names) > 1} == {}


@pytest.mark.parametrize("gpu", MIG, ids=lambda gpu: gpu.name)
def test_profiles_fit_into_their_gpu(gpu):
    slices = 4 if gpu.name == "A30" else 8
    units = 4 if gpu.name == "A30" else 7
    for profile in gpu.mig:
        compute, memory = profile.name.removesuffix("+me").split("g.")
        assert profile.compute_slices == int(compute)
        assert profile.memory_slices * profile.instances <= slices
        assert profile.compute_slices * profile.instances <= units
        assert profile.sms * profile.instances <= gpu.sms
        assert profile.memory_mib * profile.instances <= gpu.memory_mib
        # The name rounds, and says a little more than a process can use.
        named = int(memory.removesuffix("gb")) * 1024
        assert 0.85 * named < profile.memory_mib <= named
        if profile.name.endswith("+me"):
            assert profile.instances <= 1


@pytest.mark.parametrize("gpu", MIG, ids=lambda gpu: gpu.name)
def test_no_slice_has_more_than_the_whole_gpu(gpu):
    """Each counts with what `nvidia-smi` shows; the driver's share is taken off the whole alone."""
    whole = next(place for place in places(gpu.name) if place.request.startswith("whole"))
    slices = [place for place in places(gpu.name) if place.request.startswith("mig")]
    assert slices
    assert max(place.has for place in slices) <= whole.has
    largest = max(gpu.mig, key=lambda one: one.memory_mib)
    assert granted(parse(f"mig:{largest.resource_name}")).has <= whole.has


def test_the_smallest_comes_first_and_the_driver_keeps_its_share():
    sizes = [gpu.usable_bytes for gpu in catalogue.gpus()]
    assert sizes == sorted(sizes)
    # `torch.cuda.get_device_properties` on an H100 SXM says 79.1 GiB, on a T4 14.56 GiB.
    assert catalogue.find("H100").usable_bytes <= 79.1 * 2**30
    assert catalogue.find("T4").usable_bytes <= 14.56 * 2**30


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("h100", "H100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA-A100-SXM4-40GB", "A100-40GB"),
        ("Tesla-T4", "T4"),
        ("h100 94gb", "H100-NVL"),
        ("a100_80gb", "A100-80GB"),
    ],
)
def test_a_gpu_is_found_as_people_and_nodes_write_it(given, name):
    assert catalogue.find(given).name == name


@pytest.mark.parametrize("gpu", catalogue.gpus(), ids=lambda gpu: gpu.name)
def test_a_name_is_words_of_every_product_in_their_order(gpu):
    """So a request `whole:NAME` selects nodes by their label, whichever product they have."""
    words = r"([ -].*)?[ -]".join(map(re.escape, gpu.name.split("-")))
    for product in (*gpu.products, *gpu.labels):
        assert re.search(rf"(^|[ -]){words}([ -]|$)", product, re.IGNORECASE)


def test_precision_follows_the_generation():
    assert [catalogue.find(name).bf16 for name in ("V100-16GB", "T4", "A30", "H100")] == [
        False,
        False,
        True,
        True,
    ]
    assert [catalogue.find(name).fp8 for name in ("A100-80GB", "L4", "B200")] == [False, True, True]
    assert "NVIDIA-H100-80GB-HBM3" in catalogue.find("H100").labels


def test_an_unknown_gpu_names_those_that_are_near():
    with pytest.raises(SpecError, match="A100-40GB, A100-80GB") as caught:
        catalogue.find("A100")
    assert "'A100'" in caught.value.message
    with pytest.raises(SpecError, match=r"Near it: .*H100"):
        catalogue.find("H1000")


def test_an_unknown_profile_names_those_that_the_gpu_has():
    with pytest.raises(SpecError) as caught:
        catalogue.check_profile("A30", "1g.10gb")
    assert caught.value.message == "A30 has no profile 1g.10gb; it has 1g.6gb, 2g.12gb, 4g.24gb"
    assert "A100-80GB" in caught.value.remedy
    with pytest.raises(SpecError, match="L4 has no MIG"):
        catalogue.check_profile("L4", "1g.10gb")


def test_both_spellings_of_media_extensions_are_one_profile():
    plus, dot = (catalogue.check_profile("A100-40GB", name) for name in ("1g.5gb+me", "1g.5gb.me"))
    assert plus == dot
    assert plus.resource_name == "1g.5gb.me"
    assert profiles.gpus_with("1g.5gb.me") == ("A100-40GB",)
