"""Names that a retried step finds again: the same for the same run, step and part, and never two of one name."""

from __future__ import annotations

import re

from goldpath.core.digest import digest_json
from goldpath.core.errors import SpecError

MOST = 63
"""A DNS label; what a controller derives from a name (pods, host names) is longer, so ask for less where it matters."""
_TAIL = 8
_LABEL = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def object_name(run: str, step: str, part: str = "", most: int = MOST) -> str:
    """A DNS-1035 label from run, step and part, the readable start cut and a digest of all three at its end.

    Args:
        run: the run's id.
        step: the step's name.
        part: what tells several objects of one step apart.
        most: characters at most, 20 to 63. JobSet, for one, appends job, index and a random end to its own name.

    Raises:
        SpecError: there is neither run nor step, or `most` leaves no room.
    """
    if not run or not step:
        raise SpecError(
            "an object on the cluster needs a run and a step for its name",
            "Call goldpath.pipelines.kubeflow.for_kubeflow(task) where the pipeline makes the step, and compile it "
            "again; outside a pipeline set GOLDPATH_RUN.",
        )
    if not 20 <= most <= MOST:
        raise SpecError(f"a name of at most {most} characters", f"Choose 20 to {MOST}.")
    tail = digest_json([run, step, part])[:_TAIL]
    text = re.sub(r"[^a-z0-9]+", "-", "-".join(x for x in (run, step, part) if x).lower()).strip("-") or "x"
    text = text if text[0].isalpha() else f"r{text}"  # a Service's name starts with a letter
    return f"{text[: most - _TAIL - 1].rstrip('-')}-{tail}"


def label_value(text: str) -> str:
    """`text` where it can be a label's value, else the same with what is not allowed replaced and a digest."""
    if _LABEL.fullmatch(text):
        return text
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")
    return f"{clean[: MOST - _TAIL - 1]}-{digest_json(text)[:_TAIL]}".lstrip("-_.")


def check_name(kind: str, name: str) -> None:
    """Refuse at once what the API server, or worse a controller later, would refuse.

    Raises:
        SpecError: the name is too long or holds other characters.
    """
    if len(name) > MOST:
        raise SpecError(
            f"the name of {kind} {name!r} has {len(name)} characters, {MOST} are allowed",
            "Give the run a shorter name.",
        )
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name):
        raise SpecError(
            f"{name!r} cannot name a {kind}",
            "Use lower-case letters, digits and dashes, with a letter or digit at both ends.",
        )
