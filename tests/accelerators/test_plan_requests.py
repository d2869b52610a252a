"""What the plan answers is a request: it parses, stays as it is, and names GPUs by words of their product."""

from __future__ import annotations

import pytest

from goldpath.accelerators import catalogue, products, profiles, requests
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
        assert profiles.BY_GPU.get(gpu.name, ()) == tuple(profile.resource_name for profile in gpu.mig)
        assert products.LABELS[gpu.name] == gpu.labels


def test_a_gpu_of_which_only_names_are_known_can_be_asked_for_and_is_not_planned_for():
    asked = requests.parse("mig:1g.24gb.gfx")
    assert profiles.gpus_with(asked.terms[0].profile) == ("RTX-PRO-6000",)
    assert products.slice_labels("3g.48gb") == ("NVIDIA-GH200-480GB-MIG-3g.48gb",)
    assert not {place.request for place in places("any")} & {"mig:1g.24gb.gfx", "mig:3g.48gb", "whole:GH200"}
    owners = [name for names in catalogue.product_names().values() for name in names]
    assert len(owners) == len(set(owners)), "a fact stands once"
