"""Making room: what is kept for reuse is removed, what is in use is not."""

import subprocess
import sys

import pytest

from goldpath.core.errors import InputError
from goldpath.pipelines import runs
from goldpath.pipelines.clean import clean_store
from goldpath.training.datasets import sources
from goldpath.training.datasets.preparation import prepare
from goldpath.training.specs import DatasetSpec


@pytest.fixture
def kept(home):
    """A folder with a file of 1,000 bytes in each place where work is kept, and in some where it is not."""
    places = (
        *("store/dataset/aa", "store/dataset/.bb.scratch", "features/cc", "spool/tmp1"),
        *("models/dd", "endpoints/bot", "mlartifacts/ee"),
    )
    for place in places:
        (home / place / "deep").mkdir(parents=True)
        (home / place / "deep" / "file").write_bytes(b"x" * 1000)
    return home


def standing(home) -> list[str]:
    return sorted(str(path.parents[1].relative_to(home)) for path in home.rglob("file"))


def test_all_kept_work_goes_and_nothing_else(kept):
    assert clean_store() == (4000, 0)
    assert standing(kept) == ["endpoints/bot", "mlartifacts/ee", "models/dd"]
    assert clean_store() == (0, 0)


def test_what_is_in_use_stays(kept):
    locks = ("store/dataset/.aa.lock", "store/dataset/.bb.lock", "features/.cc.lock")
    code = (
        "import sys\nfrom filelock import FileLock\n"
        "held = [FileLock(path) for path in sys.argv[1:]]\n[lock.acquire() for lock in held]\n"
        "print('held', flush=True)\nsys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, *(str(kept / lock) for lock in locks)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    assert clean_store() == (1000, 3)
    assert {"store/dataset/aa", "store/dataset/.bb.scratch", "features/cc"} <= set(standing(kept))
    holder.communicate("")
    assert clean_store() == (3000, 0)


def test_not_while_a_run_goes_on_or_is_about_to(kept):
    run = runs.create("small", {})
    before = standing(kept)
    with pytest.raises(InputError, match="'small-1' is running"):
        clean_store()
    assert standing(kept) == before
    run.release()
    assert clean_store() == (4000, 0)


def test_a_run_that_starts_after_the_look_is_seen_too(kept, monkeypatch):
    run = runs.create("small", {})
    monkeypatch.setattr(runs, "all_runs", list)
    before = standing(kept)
    with pytest.raises(InputError, match="a run has just started"):
        clean_store()
    assert standing(kept) == before
    run.release()
    assert clean_store() == (4000, 0)


def test_only_what_is_freed_counts(kept):
    (kept / "mlartifacts" / "link").hardlink_to(kept / "store" / "dataset" / "aa" / "deep" / "file")
    assert clean_store() == (3000, 0)


def test_the_locks_are_those_that_builders_take(home):
    """The names that we lock, against the code that builds."""
    from goldpath.core.reuse import reuse
    from goldpath.core.spec import Result
    from goldpath.feature_repo.repository import locked

    seen = {}

    def build(slot):
        (slot / "half").write_bytes(b"xx")
        seen["store"] = clean_store()
        return Result()

    reuse("sum", {}, Result, build)
    assert seen == {"store": (0, 1)}
    assert clean_store()[1] == 0
    (home / "features" / "ff").mkdir(parents=True)
    with locked(home / "features" / "ff"):
        assert clean_store() == (0, 1)
    assert clean_store() == (0, 0)
    assert not (home / "features" / "ff").exists()


def test_what_a_data_set_is_fetched_into_is_left_alone_and_then_gone(home, tmp_path, monkeypatch):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "What is {n}?", "completion": "It is {n}."}}\n' for n in range(40)))
    bring, seen = sources.bring, []

    def fetch(source, spool):
        (spool / "fetched").write_bytes(b"xx")
        seen.append(clean_store())
        assert (spool / "fetched").exists()
        return bring(source, spool)

    monkeypatch.setattr(sources, "bring", fetch)
    prepare(DatasetSpec(source=str(rows)))
    assert seen == [(0, 1)]
    assert list((home / "spool").iterdir()) == []


def test_a_spool_that_a_kill_has_left_goes_with_its_lock(home):
    (home / "spool" / "left").mkdir(parents=True)
    (home / "spool" / ".left.lock").touch()
    assert clean_store() == (0, 0)
    assert list((home / "spool").iterdir()) == []
