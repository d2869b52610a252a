"""The service account of the pipelines may do what the backends do, and owners end what they own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest

from goldpath.core import environment
from goldpath.core.checks import needs
from goldpath.core.checks.api import Api
from goldpath.core.checks.results import State
from goldpath.core.kubernetes import Cluster, ClusterError, Ref
from goldpath.pipelines.doctor import diagnose
from tests.cluster_contract import accounts
from tests.cluster_contract.accounts import DOCTOR, PIPELINE, NoAccounts
from tests.cluster_contract.bench import Bench, Manifest
from tests.cluster_contract.objects import FILES, moved, objects

OWNED = [use for use in needs.NAMESPACED if "create" in use.verbs]
Pod = Callable[[str], Ref]


@pytest.fixture(scope="module")
def _deployed(bench: Bench) -> None:
    try:
        accounts.deploy(bench)
    except NoAccounts as error:
        pytest.skip(str(error))


@pytest.fixture
def connect(bench: Bench, _deployed: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    """A step of the pipelines: their service account, and the pod that owns what it makes."""

    def step(owner: Ref | None = None, run: str = "") -> Cluster:
        for key, value in (
            ("NAME", owner.name if owner else ""),
            ("UID", uid(bench, owner) if owner else ""),
        ):
            monkeypatch.setenv(f"KFP_POD_{key}", value)
        made = Cluster(
            accounts.connection(bench, PIPELINE), run=run or f"run-{bench.suffix}", step="fine_tune"
        )
        assert owner is None or made.owner.reference, "read now, while it is the one of the environment"
        accounts.check_enforced(made)
        return made

    try:
        step()
    except NoAccounts as error:
        pytest.skip(str(error))
    return step


@pytest.fixture
def pod(bench: Bench) -> Iterator[Pod]:
    made: list[Ref] = []

    def make(name: str) -> Ref:
        made.append(accounts.pod(bench, name))
        return made[-1]

    yield make
    assert all(bench.remove(ref) for ref in made)


def uid(bench: Bench, ref: Ref) -> str:
    return str((bench.cluster.get(ref) or {})["metadata"]["uid"])


def example_of(bench: Bench, kind: str) -> Manifest:
    """The first of that kind in what our code renders."""
    if kind == "ConfigMap":
        return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "lmcache"}, "data": {"a": "b"}}
    for file in FILES:
        for one in objects(file):
            if one["kind"] == kind:
                return moved([one], bench.namespace, bench.suffix, set())[0]
    raise AssertionError(f"no golden file shows a {kind}")


def there(bench: Bench, use: needs.Use) -> Manifest:
    """The example of a kind that the cluster has."""
    if bench.kind({"apiVersion": use.api, "kind": use.kind}) is None:
        pytest.skip(f"the cluster lacks {use.kind}")
    return example_of(bench, use.kind)


def named(use: needs.Use) -> str:
    return use.plural


@pytest.mark.parametrize("use", [*needs.NAMESPACED, *needs.CLUSTER_WIDE], ids=named)
def test_the_pipelines_may_do_what_the_table_says(
    bench: Bench, connect: Callable[..., Cluster], use: needs.Use
) -> None:
    if bench.kind({"apiVersion": use.api, "kind": use.kind}) is None:
        pytest.skip(f"the cluster lacks {use.kind}")
    step, part = connect(), use.plural.partition("/")[2]
    if use.kind == "Namespace":  # its own, which is asked for by name
        assert step.get(Ref("v1", "Namespace", bench.namespace))
        return
    assert not [verb for verb in use.verbs if not step.allowed(verb, use.api, use.kind, part)]
    assert not step.allowed("deletecollection", use.api, use.kind, part)


@pytest.mark.parametrize("use", OWNED, ids=named)
def test_a_step_makes_adopts_watches_changes_and_removes(
    bench: Bench, connect: Callable[..., Cluster], pod: Pod, use: needs.Use
) -> None:
    manifest = there(bench, use)
    first, second = pod("first-try"), pod("second-try")
    ref = Ref.of(manifest)
    bench.made.append(ref)
    one, other = connect(first), connect(second)
    kept = use.verbs == needs.SHARED or "delete" not in use.verbs
    live = one.create_or_adopt(manifest, keep=kept)
    adopted = other.create_or_adopt(manifest, keep=kept)
    assert adopted["metadata"]["uid"] == live["metadata"]["uid"]
    if not kept:
        assert [owner["name"] for owner in adopted["metadata"]["ownerReferences"]] == ["second-try"]
    assert other.wait(ref, lambda thing: thing["metadata"]["uid"], 20) == live["metadata"]["uid"]
    assert ref.name in [found["metadata"]["name"] for found in other.find(use.api, use.kind)]
    if "update" in use.verbs:
        changed = other.change(ref, lambda thing: thing["metadata"]["labels"].update(tried="twice"))
        assert changed["metadata"]["labels"]["tried"] == "twice"
        other.apply(changed_labels(manifest))
    if "delete" in use.verbs:
        # In the foreground, as by default, the collector lets it go: a bare API server has none.
        assert other.remove(ref, propagation="Foreground" if bench.controllers else "Background", wait_s=30)
        assert other.get(ref) is None
    assert bench.remove(ref)
    bench.done["made, adopted, watched and removed as goldpath-pipeline"] += 1


def changed_labels(manifest: Manifest) -> Manifest:
    made = copy.deepcopy(manifest)
    made["metadata"].setdefault("labels", {})["applied"] = "again"
    return made


def test_the_pipelines_may_not_touch_what_is_not_theirs(
    bench: Bench, connect: Callable[..., Cluster]
) -> None:
    step = connect()
    for kind, verb in (("Secret", "list"), ("Pod", "create"), ("Pod", "delete"), ("ServiceAccount", "get")):
        assert not step.allowed(verb, "v1", kind)
    with pytest.raises(ClusterError) as refused:
        step.find("v1", "Secret")
    told = refused.value
    assert (
        f"system:serviceaccount:{bench.namespace}:{PIPELINE} may not list secrets in {bench.namespace}"
        in told.message
    )
    assert "kubectl auth can-i list secrets --as" in told.remedy
    with pytest.raises(ClusterError):
        step.find("v1", "ConfigMap", namespace="kube-system")


def test_the_step_of_a_pod_reads_which_pod_it_is(
    bench: Bench, connect: Callable[..., Cluster], pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = pod("who-am-i")
    step = connect()
    monkeypatch.setenv("KFP_POD_NAME", ref.name)
    assert step.owner.reference == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": ref.name,
        "uid": uid(bench, ref),
    }


@pytest.mark.parametrize("use", [use for use in OWNED if use.verbs == needs.OWN], ids=named)
def test_what_a_pod_owns_goes_with_it_and_what_its_retry_adopted_stays(
    bench: Bench, connect: Callable[..., Cluster], pod: Pod, use: needs.Use
) -> None:
    if not bench.controllers:
        pytest.skip("no controller collects what nobody owns")
    manifest = there(bench, use)
    first, second = pod("first-try"), pod("second-try")
    left = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "left-behind"}}
    one, other = connect(first), connect(second)
    ref, witness = Ref.of(manifest), Ref.of(left)
    bench.made += [ref, witness]
    one.create_or_adopt(manifest)
    one.create_or_adopt(left)
    other.create_or_adopt(manifest)
    assert bench.remove(first)
    assert gone(bench, witness), "the collector removes what the first pod owned"
    assert bench.cluster.get(ref), "and not what the second has become the owner of"
    assert bench.remove(second)
    assert gone(bench, ref)
    bench.done["collected with the pod that owned it"] += 1


def gone(bench: Bench, ref: Ref) -> bool:
    return bool(bench.until(lambda: bench.cluster.get(ref) is None or None, 60))


@pytest.mark.parametrize(("account", "own"), [(PIPELINE, False), (DOCTOR, True)])
def test_the_doctor_sees_all_that_it_looks_at(
    bench: Bench, connect: Callable[..., Cluster], account: str, own: bool
) -> None:
    """As goldpath-doctor every check is told; as the pipelines all that they need is allowed."""
    found = diagnose(Api(accounts.connection(bench, account).api, bench.namespace), bench.namespace)
    unknown = [check.name for check in found.checks if check.state is State.UNKNOWN and "403" in check.note]
    may = [check for check in found.checks if " may: " in check.name]
    if own:
        assert unknown == [f"Secret {environment.STORAGE}"], (
            "leave to see that it is there would be leave to read it"
        )
        assert found.gpus is not None
    else:
        assert may
        assert not [check.name for check in may if check.state is not State.OK]


def test_the_doctor_asks_in_the_name_of_the_pipelines(bench: Bench, connect: Callable[..., Cluster]) -> None:
    admin = Api(bench.cluster.connection.api, bench.namespace)
    found = diagnose(admin, bench.namespace, PIPELINE)
    may = [check for check in found.checks if check.name.startswith(f"{PIPELINE} may: ")]
    assert may
    assert not [check.name for check in may if check.state is not State.OK]
    looker = Api(accounts.connection(bench, DOCTOR).api, bench.namespace)
    told = [check for check in diagnose(looker, bench.namespace, PIPELINE).checks if " may: " in check.name]
    assert {check.state for check in told} == {State.UNKNOWN}, "it may not impersonate, and says so"
