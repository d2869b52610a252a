"""Talk to an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from goldpath.serving.client import connect
from goldpath.serving.results import Endpoint


def stream_chat(
    endpoint: Endpoint,
    messages: list[dict[str, str]],
    max_tokens: int = 256,
    on_cut: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """The answer to a conversation, in pieces as they are generated.

    Args:
        endpoint: who answers.
        messages: `{"role": "system" | "user" | "assistant", "content": ...}`, oldest first.
        max_tokens: the longest answer, in tokens.
        on_cut: called where the answer had more to say than that.

    Raises:
        StepError: the endpoint does not answer or refuses.
    """
    turns: Any = messages
    with connect(endpoint) as client:
        for chunk in client.chat.completions.create(
            model=endpoint.model, messages=turns, max_tokens=max_tokens, temperature=0, stream=True
        ):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content
            if chunk.choices and chunk.choices[0].finish_reason == "length":
                on_cut()
