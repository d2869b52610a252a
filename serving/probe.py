"""Smoke test and probe of a live endpoint, as a client sees it: answers, streaming, TTFT, tokens per second.

Time to first token (TTFT) is taken from sending the request to the first piece of the answer, client and HTTP
included. A cold prompt has a context that the endpoint has never seen; a repeated one has the same context, sent
again with another question. Each is measured `repeats` times and the median quoted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from goldpath.core.errors import InputError, StepError
from goldpath.core.progress import Bar, progress
from goldpath.serving import engines
from goldpath.serving.client import connect
from goldpath.serving.contexts import check_fits, token_counter, tokenizer_folder, unseen_context
from goldpath.serving.results import Endpoint, ProbeResult, Timing
from goldpath.serving.specs import ProbeSpec

Retrieve = Callable[[str, int], list[str]]
_FIRST_QUESTION = "How many notes are there?"
_SECOND_QUESTION = "Which note is the shortest?"
_TIMED_TOKENS = 4
"""An engine may keep the context of a request only if more than one token was asked for."""
_ROOM = 64
"""Tokens for the chat template and the question."""


def probe(
    endpoint: Endpoint, spec: ProbeSpec, retrieve: Retrieve | None, questions: Sequence[str] = ()
) -> ProbeResult:
    """Ask, stream and time an endpoint with the openai client.

    Args:
        endpoint: a live endpoint.
        spec: what to measure.
        retrieve: query and k to the texts of the k nearest documents; None: no prompts with retrieved context.
        questions: what to ask where the spec names nothing.

    Raises:
        InputError: there is no question.
        SpecError: the context is longer than the model takes.
        StepError: the endpoint does not answer, refuses, or gives no token.
    """
    questions = spec.questions or questions
    if not questions:
        raise InputError("the probe has nothing to ask", 'Set overrides: {"probe": {"questions": ["..."]}}.')
    model = tokenizer_folder(endpoint)
    check_fits(model, spec.context_tokens, _ROOM)
    count = token_counter(model)
    chunks = {}
    if retrieve is not None and spec.retrieved_chunks:
        chunks = {question: retrieve(question, spec.retrieved_chunks) for question in questions}
    requests = len(questions) + len(chunks) + 1 + 2 * spec.repeats * (2 if chunks else 1)
    with connect(endpoint, spec.timeout_seconds) as client, progress("Probing", requests, "requests") as bar:
        caller = _Caller(client, endpoint, bar)
        answers = [
            {"question": question, "answer": caller.ask(question, spec.max_new_tokens)}
            for question in questions
        ]
        streamed = caller.stream(questions[0], spec.max_new_tokens)
        contexts = [unseen_context(spec.context_tokens, count) for _ in range(spec.repeats)]
        timings = caller.pair("", contexts, _FIRST_QUESTION, _SECOND_QUESTION)
        examples = []
        if chunks:
            question = questions[0]
            # A number in front makes each of these prompts unseen, as the next user's other documents would.
            contexts = [
                f"{unseen_context(48, count)}\n{_notes(chunks[question])}" for _ in range(spec.repeats)
            ]
            timings += caller.pair("retrieved-", contexts, question, _SECOND_QUESTION)
            examples = [
                {
                    "question": question,
                    "chunks": "\n\n".join(found),
                    "answer": caller.ask(_prompt(_notes(found), question), spec.max_new_tokens),
                }
                for question, found in chunks.items()
            ]
    return ProbeResult(
        model=endpoint.model,
        answers=answers,
        streamed_chunks=streamed.chunks,
        tokens_per_second=round(streamed.tokens_per_second, 2),
        timings=timings,
        repeat_speedup=round(median(timings[0].ttft_seconds) / median(timings[1].ttft_seconds), 2),
        retrieval_examples=examples,
    )


@dataclass(frozen=True)
class _Streamed:
    """One streamed answer."""

    ttft: float
    chunks: int
    prompt_tokens: int
    tokens_per_second: float


class _Caller:
    """Requests to one endpoint, each counted on the bar."""

    def __init__(self, client: Any, endpoint: Endpoint, bar: Bar) -> None:
        self.client, self.endpoint, self.bar = client, endpoint, bar

    def ask(self, prompt: str, max_tokens: int) -> str:
        """A whole answer."""
        answer = self._create(prompt, max_tokens)
        self.bar.advance()
        return str(answer.choices[0].message.content or "").strip()

    def stream(self, prompt: str, max_tokens: int) -> _Streamed:
        """A streamed answer, timed. Decoding speed is tokens after the first over the time they took."""
        began = time.perf_counter()
        first = last = 0.0
        chunks = prompt_tokens = tokens = 0
        for chunk in self._create(prompt, max_tokens, stream=True, stream_options={"include_usage": True}):
            if chunk.usage is not None:
                prompt_tokens, tokens = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
            if not chunk.choices:
                continue
            choice = chunk.choices[0]
            if choice.delta.content or choice.finish_reason:  # an answer may be nothing but its end
                last = time.perf_counter() - began
                first = first or last
                chunks += bool(choice.delta.content)
        if not first:
            raise StepError(
                f"endpoint {self.endpoint.name} streamed no token", f"Look at {self.endpoint.log}."
            )
        self.bar.advance(first_token_s=first)
        speed = (tokens - 1) / (last - first) if tokens > 1 and last > first else 0.0
        return _Streamed(first, chunks, prompt_tokens, speed)

    def pair(self, prefix: str, contexts: list[str], question: str, other: str) -> list[Timing]:
        """Cold and repeated TTFT over contexts that the endpoint has not seen."""
        self._forget()
        cold, repeated = [], []
        for context in contexts:
            cold.append(self.stream(_prompt(context, question), _TIMED_TOKENS))
            repeated.append(self.stream(_prompt(context, other), _TIMED_TOKENS))
        return [
            Timing(
                name=f"{prefix}{name}",
                prompt_tokens=round(median(one.prompt_tokens for one in found)),
                ttft_seconds=[round(one.ttft, 4) for one in found],
            )
            for name, found in (("cold", cold), ("repeated", repeated))
        ]

    def _create(self, prompt: str, max_tokens: int, **more: Any) -> Any:
        return self.client.chat.completions.create(
            model=self.endpoint.model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=max_tokens,
            temperature=0,
            **more,
        )

    def _forget(self) -> None:
        """Have the engine drop its cached prefixes, where it can: the first contexts then displace nothing."""
        path = engines.reset_path(self.endpoint.engine)
        if path is not None:
            base = self.endpoint.url.removesuffix("/v1")
            self.client.post(f"{base}{path}", cast_to=object)


def _notes(chunks: list[str]) -> str:
    return "\n".join(f"- {chunk}" for chunk in chunks)


def _prompt(context: str, question: str) -> str:
    """Context first: what is the same stands in front, so that its keys and values can be used again."""
    return f"Answer the question from these notes.\n\n{context}\n\nQuestion: {question}"
