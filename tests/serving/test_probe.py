"""The probe and the chat, against the fake engine for faults and against `transformers serve` for the truth."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from goldpath.core.errors import InputError, SpecError, StepError
from goldpath.serving import endpoints
from goldpath.serving.chat import stream_chat
from goldpath.serving.contexts import check_fits, token_counter, unseen_context
from goldpath.serving.model_cache import warm
from goldpath.serving.probe import probe
from goldpath.serving.results import Endpoint, Timing
from goldpath.serving.specs import CacheSpec, ProbeSpec, ServeSpec
from tests.conftest import TRACED
from tests.models import make_tiny_model
from tests.serving.conftest import FakeEngine

DOCUMENTS = ["The replicas field of a Deployment counts its pods.", "A label selects pods."]


@pytest.fixture
def bot(fake: FakeEngine, tiny: Path) -> Endpoint:
    return endpoints.deploy(ServeSpec(name="bot", model_uri=str(tiny), model_name="bot-v1"))


def small(**more: Any) -> ProbeSpec:
    return ProbeSpec.parse(
        {"context_tokens": 300, "repeats": 2, "max_new_tokens": 8, "questions": ["Why?"], **more}
    )


def timing(result: Any, name: str) -> Timing:
    return next(one for one in result.timings if one.name == name)


def test_a_probe_reports_what_the_client_saw(bot: Endpoint, fake: FakeEngine) -> None:
    asked: list[tuple[str, int]] = []

    def retrieve(query: str, k: int) -> list[str]:
        asked.append((query, k))
        return DOCUMENTS

    got = probe(bot, small(questions=("one?", "two?"), retrieved_chunks=2), retrieve)
    assert [row["question"] for row in got.answers] == ["one?", "two?"]
    assert got.answers[0]["answer"] == "bot-v1 says: one?"
    assert got.streamed_chunks == 8
    assert got.tokens_per_second > 0
    assert [one.name for one in got.timings] == ["cold", "repeated", "retrieved-cold", "retrieved-repeated"]
    assert {len(one.ttft_seconds) for one in got.timings} == {2}
    cold, repeated = timing(got, "cold"), timing(got, "repeated")
    assert min(cold.ttft_seconds) > 0.2  # the fake one's price of a long context that is new
    ratio = median(cold.ttft_seconds) / median(repeated.ttft_seconds)
    assert got.repeat_speedup == pytest.approx(ratio, rel=0.02)
    assert asked == [("one?", 2), ("two?", 2)]
    assert got.retrieval_examples[0]["chunks"] == "\n\n".join(DOCUMENTS)
    assert got.retrieval_examples[1]["answer"].startswith(
        "bot-v1 says: Answer the question from these notes."
    )
    assert (fake.faults / "forgot").exists()  # the engine was asked to drop its prefixes first


@pytest.mark.parametrize("how", ["no retriever", "no chunks"])
def test_a_probe_without_retrieval(bot: Endpoint, how: str) -> None:
    retrieve = None if how == "no retriever" else (lambda _query, _k: DOCUMENTS)
    got = probe(bot, small(repeats=1, retrieved_chunks=0 if how == "no chunks" else 4), retrieve)
    assert [one.name for one in got.timings] == ["cold", "repeated"]
    assert got.retrieval_examples == []


def test_the_callers_questions_are_asked_where_the_spec_has_none(bot: Endpoint) -> None:
    got = probe(bot, small(repeats=1, questions=()), None, ["theirs?"])
    assert [row["question"] for row in got.answers] == ["theirs?"]
    got = probe(bot, small(repeats=1, questions=("ours?",)), None, ["theirs?"])
    assert [row["question"] for row in got.answers] == ["ours?"]
    with pytest.raises(InputError, match="nothing to ask"):
        probe(bot, small(questions=()), None)


def test_a_context_that_does_not_fit_is_refused_before_the_first_request(bot: Endpoint) -> None:
    endpoints.stop("bot")
    with pytest.raises(SpecError, match=r"context_tokens is 2000: .* the 512 tokens .* at most 448"):
        probe(bot, ProbeSpec(max_new_tokens=8), None, ["Why?"])


def test_a_context_must_fit_a_nested_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"text_config": {"max_position_embeddings": 500}}')
    check_fits(tmp_path, 400, 100)
    with pytest.raises(SpecError, match="at most 400"):
        check_fits(tmp_path, 401, 100)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("refuse", "endpoint bot refused the request: .*no such model here"),
        ("silent", "endpoint bot did not answer within 1 s.*timeout_seconds"),
        ("break", "endpoint bot does not answer at http"),
        ("empty", "endpoint bot streamed no token"),
    ],
)
def test_faults_of_the_endpoint(bot: Endpoint, fake: FakeEngine, fault: str, words: str) -> None:
    (fake.faults / fault).touch()
    with pytest.raises(StepError, match=words) as caught:
        probe(bot, small(timeout_seconds=1), None)
    assert caught.value.remedy


def test_chat_tells_that_an_answer_was_cut(bot: Endpoint, fake: FakeEngine) -> None:
    cut: list[bool] = []
    asked = [{"role": "user", "content": "hi"}]
    assert list(stream_chat(bot, asked, 3, lambda: cut.append(True))) == ["w0 ", "w1 ", "w2 "]
    assert cut == [True]
    (fake.faults / "done").touch()
    assert list(stream_chat(bot, asked, 3, lambda: cut.append(False))) == ["w0 ", "w1 ", "w2 "]
    assert cut == [True]


def test_chat_with_an_endpoint_that_is_gone(bot: Endpoint) -> None:
    endpoints.stop("bot")
    with pytest.raises(StepError, match=r"does not answer at .*goldpath endpoints list"):
        list(stream_chat(bot, [{"role": "user", "content": "hi"}]))


def test_contexts_are_new_each_time_and_of_the_length_asked_for(tiny: Path) -> None:
    count = token_counter(tiny)
    texts = [unseen_context(300, count) for _ in range(3)]
    assert all(240 <= count(text) <= 300 for text in texts)
    assert len({text[:8] for text in texts}) == 3


def test_tokens_are_counted_without_tokenizer_json_too(tiny: Path, tmp_path: Path) -> None:
    import transformers

    text = DOCUMENTS[0]
    expected = token_counter(tiny)(text)
    slow = tmp_path / "slow"
    plain = transformers.AutoTokenizer.from_pretrained(str(tiny))
    plain.save_pretrained(str(slow))
    fast = slow / "tokenizer.json"
    original = Path.exists

    def hidden(self: Path, **more: Any) -> bool:
        return self != fast and original(self, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "exists", hidden)
        assert token_counter(slow)(text) == expected


# --- the real engine ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """`transformers serve` on the tiny model, by way of the cache, once for all tests here."""
    root = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOLDPATH_HOME", str(root / "home"))
        patch.delenv("GOLDPATH_BACKEND", raising=False)
        patch.delenv(TRACED, raising=False)  # the engine is not ours, and slow to import as it is
        cached = warm(CacheSpec(uri=str(make_tiny_model(root / "model", seed=7))))
        yield endpoints.deploy(
            ServeSpec(name="real", model_uri=cached.path, model_name="tiny", cache_blocks=64)
        )
        endpoints.stop("real")


def test_the_real_engine_answers_streams_and_lists_its_model(real: Endpoint) -> None:
    from openai import OpenAI

    with OpenAI(base_url=real.url, api_key="none", max_retries=0) as client:
        assert [one.id for one in client.models.list()] == ["tiny"]
        asked = {
            "model": "tiny",
            "max_tokens": 6,
            "messages": [{"role": "user", "content": "What is a Pod?"}],
        }
        whole = client.chat.completions.create(**asked)
        pieces = list(client.chat.completions.create(**asked, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces if chunk.choices)
    assert (
        whole.choices[0].message.content == text == " run" * 6
    )  # greedy: the same question gets the same answer
    assert whole.usage.completion_tokens <= 6
    assert "".join(stream_chat(real, asked["messages"], 6)) == text


def test_the_real_engine_survives_a_whole_probe(real: Endpoint) -> None:
    got = probe(real, small(context_tokens=380), lambda _query, _k: DOCUMENTS)
    assert got.model == "tiny"
    assert timing(got, "cold").prompt_tokens > 350
    assert all(0 < seconds < 60 for one in got.timings for seconds in one.ttft_seconds)
    assert got.repeat_speedup > 0


def test_only_loopback_listens(real: Endpoint) -> None:
    import psutil

    supervisor = psutil.Process(real.pid)
    listening = [
        one.laddr.ip
        for process in (supervisor, *supervisor.children(recursive=True))
        for one in process.connections("tcp")
        if one.status == psutil.CONN_LISTEN
    ]
    assert len(listening) == 2
    assert set(listening) == {"127.0.0.1"}
    assert os.getsid(real.pid) == real.pid  # a session of its own: it outlives us
