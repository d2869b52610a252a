"""The openai client for an endpoint, and its errors in our words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from goldpath.core.errors import StepError
from goldpath.serving.results import Endpoint

if TYPE_CHECKING:
    from openai import OpenAI


@contextmanager
def connect(endpoint: Endpoint, timeout_s: float = 120) -> Iterator[OpenAI]:
    """The real client for the block; what goes wrong in it is raised as StepError.

    Raises:
        StepError: the endpoint does not answer, answers too late, or refuses.
    """
    import openai

    try:
        # No proxy between us and the loopback address; one retry, for a connection that a restart closed.
        with openai.OpenAI(
            base_url=endpoint.url,
            api_key="none",
            timeout=timeout_s,
            max_retries=1,
            http_client=openai.DefaultHttpxClient(trust_env=False, timeout=timeout_s),
        ) as client:
            yield client
    except openai.APITimeoutError as error:
        raise StepError(
            f"endpoint {endpoint.name} did not answer within {timeout_s:g} s",
            f"Ask for less, raise timeout_seconds, or look at {endpoint.log}.",
        ) from error
    except openai.APIConnectionError as error:
        raise _gone(endpoint) from error
    except openai.APIError as error:
        raise StepError(
            f"endpoint {endpoint.name} refused the request: {error.message}", f"Look at {endpoint.log}."
        ) from error
    except Exception as error:
        if type(error).__module__.startswith(
            "httpx"
        ):  # a stream that broke off; openai passes these on as they are
            raise _gone(endpoint) from error
        raise


def _gone(endpoint: Endpoint) -> StepError:
    return StepError(
        f"endpoint {endpoint.name} does not answer at {endpoint.url}",
        "`goldpath endpoints list` shows what is up; run the pipeline again to deploy it.",
    )
