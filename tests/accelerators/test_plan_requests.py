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


def test_the_catalogue_and_the_requests_know_the_same_profiles():
    for gpu in catalogue.gpus():
        if gpu.mig:
            name = {"H100": "H100-80GB", "H100-PCIe": "H100-80GB", "H100-NVL": "H100-94GB"}.get(
                gpu.name, gpu.name
            )
            assert sorted(profile.resource_name for profile in gpu.mig) == sorted(profiles.BY_GPU[name])
