"""A new model beside the one that serves: promoted or rolled back by what the probe sees of both."""

from __future__ import annotations

from typing import Any

import pytest

from goldpath.core.errors import SpecError, StepError
from goldpath.serving import endpoints
from goldpath.serving.backends import kubernetes, kubernetes_canary
from tests import schemas
from tests.kube import Server
from tests.serving.cluster.conftest import Keep
from tests.serving.cluster.played import KServe
from tests.serving.cluster.test_cluster_endpoints import service, spec

PROBE = {"context_tokens": 150, "repeats": 1, "max_new_tokens": 4}
LENIENT = {"max_cold_ttft_ratio": 100, "max_repeated_ttft_ratio": 100, "min_speed_ratio": 0.001}
STRICT = {"max_cold_ttft_ratio": 0.0001}


def canary(**limits: float) -> dict[str, Any]:
    return {"cluster": {"canary": {"percent": 20, "limits": limits, "probe": PROBE}}}


@pytest.fixture
def asked(kserve: KServe, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Which predictors were probed, by service and revision."""
    seen: list[tuple[str, str]] = []

    def address(cluster: object, name: str, revision: str) -> str:
        seen.append((name, revision))
        return kserve.url

    monkeypatch.setattr(kubernetes_canary, "address", address)
    return seen


def test_a_good_one_takes_over_with_its_own_pods(
    server: Server, kserve: KServe, keep: Keep, asked: list[tuple[str, str]]
) -> None:
    old, new = keep("old"), keep("new")
    endpoints.deploy(spec(old))
    live = endpoints.deploy(spec(new, canary(**LENIENT), version="2"))
    assert (live.model_path, live.model_version, live.adopted) == (new[0], "2", False)
    assert kserve.canaries == [new[0]]
    (stable, _), (tried, revision) = asked
    assert stable == tried == "bot"
    spec_now = service(server)["spec"]
    assert "canary" not in spec_now
    assert spec_now["predictor"]["name"] == revision
    (pod,) = server.find("Pod")
    assert pod["metadata"]["annotations"]["goldpath.io/model-uri"] == new[0]
    assert sum(made.startswith("Pod/") for made in server.left()) == 1
    assert endpoints.deploy(spec(new, canary(**LENIENT), version="2")).adopted


def test_a_bad_one_goes_and_the_model_before_serves_on(
    server: Server, kserve: KServe, keep: Keep, asked: list[tuple[str, str]]
) -> None:
    old, new = keep("old"), keep("new")
    endpoints.deploy(spec(old))
    before = service(server)["spec"]
    with pytest.raises(
        StepError, match=r"canary of bot was rolled back: time to first token, cold: .*at most 0.0001"
    ):
        endpoints.deploy(spec(new, canary(**STRICT)))
    assert service(server)["spec"] == before
    assert endpoints.get("bot").model_path == old[0]
    assert kserve.canaries == [new[0]]


def test_the_object_with_a_canary_is_what_kserve_takes(
    server: Server, kserve: KServe, keep: Keep, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a step that is killed meanwhile leaves a canary that the next deployment takes away."""
    old, new = keep("old"), keep("new")
    endpoints.deploy(spec(old))
    with monkeypatch.context() as patch:
        patch.setattr(kubernetes.objects, "restore", lambda *_: None)  # a kill cleans nothing
        with pytest.raises(StepError):
            endpoints.deploy(spec(new, canary(**STRICT)))
    between = service(server)
    (beside,) = between["spec"]["canary"]
    assert (beside["trafficPercent"], beside["predictor"]["model"]["storageUri"]) == (20, new[0])
    found = {key: value for key, value in between.items() if key != "status"}
    assert schemas.problems(found) == []
    assert not endpoints.deploy(spec(old)).adopted
    assert "canary" not in service(server)["spec"]


def test_without_a_model_that_serves_there_is_nothing_to_compare_with(
    kserve: KServe, keep: Keep, asked: list[tuple[str, str]]
) -> None:
    assert not endpoints.deploy(spec(keep(), canary(**STRICT))).adopted
    assert asked == kserve.canaries == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"canary": {"percent": 200}}, r"overrides\.deploy\.cluster\.canary\.percent is 200"),
        ({"canary": 5}, r"overrides\.deploy\.cluster\.canary is 5"),
        ({"canary": {}, "kind": "llm-inference-service"}, r"canary does not go with the kind llm-inference"),
        (
            {"canary": {"limits": {"fast": 1}}},
            r"overrides\.deploy\.cluster\.canary\.limits\.fast is not a field",
        ),
        ({"canary": {"probe": {"repeats": 0}}}, r"overrides\.deploy\.cluster\.canary\.probe\.repeats is 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_starts(
    home: object, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        spec(("/model", ""), {"cluster": fields})
