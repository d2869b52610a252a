"""The model cache of a cluster: copies on nodes, kept beyond the run; and clusters that have no place for them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from goldpath.components.warm_cache import warm_cache
from goldpath.core.errors import MachineError, ModelError, SpecError, StepError
from goldpath.core.files import read_json
from goldpath.core.kubernetes import ClusterError
from goldpath.serving import endpoints, model_cache
from goldpath.serving.results import CachedModel
from goldpath.serving.specs import CacheSpec
from tests.kube import Server
from tests.kube.roles import Rule
from tests.kube.things import Thing
from tests.serving.cluster.conftest import Keep
from tests.serving.cluster.played import KServe, group
from tests.serving.cluster.test_cluster_endpoints import hurry, spec


def warm(model: tuple[str, str], **cluster: Any) -> CachedModel:
    overrides = {"warm_cache": {"cluster": cluster}} if cluster else {}
    return model_cache.warm(CacheSpec.from_form(uri=model[0], model_digest=model[1], overrides=overrides))


def cache(server: Server, kind: str = "LocalModelNamespaceCache") -> Thing:
    (found,) = server.find(kind)
    return found


def test_the_nodes_of_the_only_group_get_copies(server: Server, kserve: KServe, keep: Keep) -> None:
    uri, digest = keep()
    warmed = warm((uri, digest))
    assert (warmed.path, warmed.uri, warmed.digest, warmed.source) == (uri, uri, digest, uri)
    made = cache(server)
    assert made["spec"]["sourceModelUri"] == uri
    assert made["spec"]["nodeGroups"] == ["gpu"]
    files = fsspec.filesystem("s3").find(uri, detail=True)
    assert warmed.bytes == warmed.bytes_fetched == sum(info["size"] for info in files.values())
    assert made["spec"]["modelSize"] == f"{-(-warmed.bytes // 2**20)}Mi"
    assert "ownerReferences" not in made["metadata"], "it outlives the run"


def test_another_run_finds_them_there(
    server: Server, kserve: KServe, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keep()
    warm(model)
    before = cache(server)
    monkeypatch.setenv("GOLDPATH_RUN", "run-2")
    assert warm(model).bytes_fetched == 0
    assert cache(server) == before


def test_the_step_hands_on_the_uri_that_kserve_compares(
    server: Server, kserve: KServe, keep: Keep, tmp_path: Path
) -> None:
    uri, digest = keep()
    cached = SimpleNamespace(uri="", metadata={})
    warm_cache.python_func(
        registered=SimpleNamespace(uri=uri, metadata={"digest": digest, "version": "3"}),
        cached=cached,
        result=SimpleNamespace(path=str(tmp_path / "result.json")),
        overrides={},
    )
    assert cached.uri == cache(server)["spec"]["sourceModelUri"] == uri
    assert (cached.metadata["digest"], cached.metadata["version"]) == (digest, "3")
    assert CachedModel.model_validate(read_json(tmp_path / "result.json")["result"]).bytes_fetched > 0


def test_a_cache_for_all_namespaces_by_spec(server: Server, kserve: KServe, keep: Keep) -> None:
    groups, plurals, verbs = map(frozenset, (["serving.kserve.io"], ["localmodelcaches"], ["create"]))
    assert server.rules
    with pytest.raises(ClusterError, match="may not create localmodelcaches"):
        warm(keep(), namespaced=False)
    server.enforce([*server.rules, Rule(groups, plurals, verbs, namespaced=False)])
    warm(keep(), namespaced=False, storage_key="models")
    made = cache(server, "LocalModelCache")
    assert made["spec"]["storage"] == {"key": "models"}
    assert "namespace" not in made["metadata"]


def test_the_account_of_the_settings_reads_for_cache_and_service(
    server: Server, kserve: KServe, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keep()
    warm(model)
    monkeypatch.setenv("GOLDPATH_MODEL_ACCOUNT", "model-reader")
    warm(model)
    plain, read = sorted(server.find("LocalModelNamespaceCache"), key=lambda one: len(str(one["spec"])))
    assert "serviceAccountName" not in plain["spec"]
    assert read["spec"]["serviceAccountName"] == "model-reader"
    assert read["metadata"]["name"] != plain["metadata"]["name"], "what a cache reads by cannot be changed"
    endpoints.deploy(spec(model))
    (service,) = server.find("InferenceService")
    assert service["spec"]["predictor"]["serviceAccountName"] == "model-reader"


def test_a_failed_download_names_the_node_and_the_next_try_begins_anew(
    server: Server, kserve: KServe, keep: Keep
) -> None:
    model = keep()
    kserve.download = "error"
    with pytest.raises(StepError, match=r"node-2: the download failed.*Jobs of namespace team-a") as raised:
        warm(model)
    assert model[0] in raised.value.remedy
    assert "kubectl delete localmodelnamespacecache" in raised.value.remedy, "node-1 has its copy"
    kserve.blind.add(cache(server)["metadata"]["uid"])
    server.edit("LocalModelNamespaceCache", cache(server)["metadata"]["name"], no_copies)
    kserve.download = "done"
    assert warm(model).bytes_fetched > 0


def no_copies(cache: Thing) -> None:
    cache["status"]["copies"]["available"] = 0


def test_copies_that_do_not_come_are_given_up(
    server: Server, kserve: KServe, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    kserve.download = "stuck"
    hurry(server, monkeypatch)
    server.deny("watch", "localmodelnamespacecaches")
    with pytest.raises(StepError, match=r"is not there: .*60 s.*no node of the node groups gpu"):
        warm(keep(), wait_seconds=60)


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda s: s.lack("LocalModelNamespaceCache"), "the cluster has no LocalModelNamespaceCache"),
        (lambda s: s.lack("LocalModelNodeGroup"), "the cluster has no LocalModelNodeGroup"),
        (lambda s: s.drop("LocalModelNodeGroup", "gpu"), "it has no LocalModelNodeGroup"),
        (lambda s: s.put(group("big")), "it has the node groups big, gpu, and .*node_groups chooses none"),
    ],
)
def test_a_cluster_without_a_place_for_copies_goes_on_and_says_so(
    server: Server, kserve: KServe, keep: Keep, prepare: Any, why: str
) -> None:
    model = keep()
    prepare(server)
    warmed = warm(model)
    assert (warmed.path, warmed.bytes_fetched) == (model[0], 0)
    assert warmed.said == warmed.note
    assert warmed.note.startswith("no copies on nodes, the pods fetch the model themselves")
    with pytest.raises(MachineError, match=rf"cannot keep copies of s3://.*: {why}"):
        warm(model, required=True)
    assert server.created == []


def test_no_permission_is_an_error_with_its_remedy(server: Server, kserve: KServe, keep: Keep) -> None:
    server.deny("create", "localmodelnamespacecaches")
    with pytest.raises(StepError, match="may not create localmodelnamespacecaches") as raised:
        warm(keep())
    assert "Grant it" in raised.value.remedy


def test_a_model_that_was_changed_after_it_was_registered_is_refused(
    server: Server, kserve: KServe, keep: Keep
) -> None:
    (uri, digest), other = keep(), "0" * 64
    with pytest.raises(ModelError, match=f"its digest is {digest[:12]}, the registered one's {other[:12]}"):
        warm((uri, other))
    fsspec.filesystem("s3").rm(f"{uri}/config.json")
    with pytest.raises(ModelError, match="changed after it was registered"):
        warm((uri, digest))
    assert server.created == []


def test_a_folder_inside_a_build_is_checked_by_the_digests_of_the_build(
    kserve: KServe, keep: Keep, tmp_path: Path
) -> None:
    from goldpath.core import storage
    from goldpath.core.digest import digest_manifest, manifest

    keep()
    (tmp_path / "build").mkdir()
    (tmp_path / "model").rename(tmp_path / "build" / "model")
    (tmp_path / "build" / "log.txt").write_text("x")
    digest = digest_manifest(manifest(tmp_path / "build" / "model"))
    uri = f"{storage.keep('tuned', 'k', tmp_path / 'build')}/model"
    assert warm((uri, digest)).digest == digest
    with pytest.raises(ModelError, match="changed after it was registered"):
        warm((uri, "0" * 64))


def test_what_a_step_left_in_the_store_is_found_in_the_storage(
    server: Server, kserve: KServe, keep: Keep, home: Path
) -> None:
    uri, digest = keep()
    here = home / "store" / "model" / "model"
    fsspec.filesystem("s3").get(uri, str(here), recursive=True)
    assert warm((here.as_uri(), digest)).path == uri
    with pytest.raises(ModelError, match="lies on this machine"):
        warm((str(home), ""))


def test_a_wrong_field_is_told_as_it_was_typed(home: Path) -> None:
    with pytest.raises(SpecError, match=r"overrides\.warm_cache\.cluster\.wait_seconds is 1"):
        CacheSpec.from_form(
            uri="s3://x/y", model_digest="", overrides={"warm_cache": {"cluster": {"wait_seconds": 1}}}
        )
