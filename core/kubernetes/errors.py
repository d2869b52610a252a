"""What a refusal of the API server means, and what to do about it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from goldpath.core.errors import StepError


class ClusterError(StepError):
    """The API server refused a request.

    Attributes:
        status: the HTTP status.
        reason: the server's word for it (`AlreadyExists`, `Conflict`, `Expired`); empty where it gave none.
    """

    status = 0
    reason = ""


@dataclass(frozen=True)
class Answer:
    """A `Status` that the server answered with."""

    status: int
    reason: str = ""
    message: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, status: int, reason: str, body: str | bytes | None) -> Answer:
        """Read it; a proxy's page becomes its first words."""
        text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
        try:
            said = json.loads(text)
        except ValueError:
            said = {"message": re.sub(r"<[^>]*>|\s+", " ", text).strip()[:200]}
        if not isinstance(said, dict):
            said = {}
        known = said.get("reason", "")
        return cls(status, known, said.get("message") or reason or "", said.get("details") or {})


def passes(answer: Answer) -> bool:
    """Whether a refusal ends by itself: a quota, or a kind that it counts, is new, and nobody has counted yet."""
    return answer.status == 403 and "status unknown for quota" in answer.message


def explain(answer: Answer, doing: str, host: str = "") -> ClusterError:
    """The error for an answer.

    Args:
        answer: what the server said.
        doing: the request in words (`create TrainJob team-a/x`).
        host: the server's address.
    """
    message, remedy = _words(answer, doing, host)
    error = ClusterError(message, remedy)
    error.status, error.reason = answer.status, answer.reason
    return error


_QUOTA = "Ask for less, remove what is no longer used, or have the quota raised."
_REMEDIES = {
    "exceeded quota": _QUOTA,
    "ImagePull|InvalidImageName|ErrImageNeverPull": (
        "Check name and tag of the image, that nodes reach its registry, and the pull secrets of the service account."
    ),
    "CreateContainerConfigError": "Make the Secret or ConfigMap that it names, or take it out.",
    "violates PodSecurity": (
        'Give the pods what Pod Security asks for, or the namespace another level ("When something is refused" in '
        "docs/from-laptop-to-cluster.md)."
    ),
    "error looking up service account": "Make the service account (`kubectl create serviceaccount`), or name another.",
}


def remedy_for(said: str) -> str:
    """What to do about a refusal that a controller met in our place, and quotes; empty where that is not known."""
    return next((remedy for words, remedy in _REMEDIES.items() if re.search(words, said)), "")


def _words(answer: Answer, doing: str, host: str) -> tuple[str, str]:
    said = _brief(answer.message)
    by_status = {
        400: _malformed,
        401: _unknown,
        403: _forbidden,
        404: _missing,
        409: _in_the_way,
        422: _invalid,
    }
    if hook := re.search(r'admission webhook "([^"]+)" denied the request:?\s*(.*)', said):
        why = hook[2] or "without a reason"
        return (
            f"cannot {doing}: {hook[1]} refused it: {why}",
            "Change what it names, or ask who runs that policy.",
        )
    if (
        answer.status == 413
        or "too large" in said
        or re.search(r"Too long: may not be more than \d+ bytes", said)
    ):
        return f"cannot {doing}: it is too large", "Keep data out of the manifest: pass a URI."
    if answer.status in by_status:
        return by_status[answer.status](answer, doing, said, host)
    if answer.status == 429:
        return f"cannot {doing}: the API server at {host} is overloaded", "Try again later."
    return (
        f"cannot {doing}: the API server at {host} answers {answer.status} ({said or answer.reason})",
        "Try again; if it stays, ask who runs the cluster.",
    )


def _malformed(answer: Answer, doing: str, said: str, host: str) -> tuple[str, str]:
    fields = re.findall(r'unknown field "([^"]+)"', said)
    if fields:
        return (
            f"cannot {doing}: this cluster's version of the kind has no {_and(fields)}",
            "Install the release that goldpath renders for: `goldpath doctor` names it.",
        )
    return f"cannot {doing}: {said}", "Mend the field that it names."


def _unknown(answer: Answer, doing: str, said: str, host: str) -> tuple[str, str]:
    return (
        f"cannot {doing}: the cluster at {host} does not accept the credentials (401)",
        "Log in again, or renew the kubeconfig's token.",
    )


def _forbidden(answer: Answer, doing: str, said: str, host: str) -> tuple[str, str]:
    if told := _by_admission(doing, said):
        return told
    if "is being terminated" in said:
        return f"cannot {doing}: its namespace is being deleted", "Choose another one: GOLDPATH_NAMESPACE."
    who = re.search(
        r'User "([^"]+)" cannot (\S+) resource "([^"]+)" in API group "([^"]*)"(?: in the namespace "([^"]+)")?',
        said,
    )
    if who is None:
        return f"cannot {doing}: {said or 'forbidden'}", "Ask who runs the cluster for that permission."
    user, verb, resource, group, namespace = who.groups()
    where = f" -n {namespace}" if namespace else ""
    named = f"{resource}.{group}" if group else resource
    return (
        f"cannot {doing}: {user} may not {verb} {named}{where and f' in {namespace}'}",
        f"Grant it (deploy/ has the roles) and check: `kubectl auth can-i {verb} {named} --as {user}{where}`.",
    )


def _by_admission(doing: str, said: str) -> tuple[str, str] | None:
    """What the server's own checks have against the object; None where it is permissions."""
    if quota := re.search(r"exceeded quota: ([^,]+), (.*)", said):
        return (
            f"cannot {doing}: the quota {quota[1]} is exceeded ({quota[2]})",
            _QUOTA,
        )
    if quota := re.search(r"status unknown for quota: ([^,]+), resources: (.*)", said):
        return (
            f"cannot {doing}: the quota {quota[1]} is not counted yet ({quota[2]})",
            "Try again in five minutes, which its controller may take for a kind that was installed after it.",
        )
    if lacking := re.search(r"error looking up service account ([^/]+)/(\S+): .*not found", said):
        return (
            f"cannot {doing}: there is no service account {lacking[2]!r} in {lacking[1]}",
            f"Make it (`kubectl create serviceaccount {lacking[2]} -n {lacking[1]}`), or name another.",
        )
    if policy := re.search(r'violates PodSecurity "([^"]+)":? ?(.*)', said):
        return (
            f"cannot {doing}: Pod Security {policy[1]!r} forbids it: {policy[2]}",
            "Remove the override that it names.",
        )
    return None


def _missing(answer: Answer, doing: str, said: str, host: str) -> tuple[str, str]:
    if answer.details.get("kind") == "namespaces":
        name = answer.details.get("name", "")
        return (
            f"cannot {doing}: the cluster has no namespace {name!r}",
            f"Make it (`kubectl create namespace {name}`) or set GOLDPATH_NAMESPACE.",
        )
    return f"cannot {doing}: it does not exist ({said})", "Check name, namespace and what is installed."


def _in_the_way(answer: Answer, doing: str, said: str, host: str) -> tuple[str, str]:
    if answer.reason == "AlreadyExists":
        return f"cannot {doing}: it exists already", "Choose another name, or remove it."
    return f"cannot {doing}: others keep changing it ({said})", "Try again."


def _invalid(answer: Answer, doing: str, said: str, host: str) -> tuple[str, str]:
    causes = [c for c in answer.details.get("causes") or [] if isinstance(c, dict) and _tells(c)]
    fixed = [c.get("field", "") for c in causes if "immutable" in c.get("message", "")]
    if fixed or "immutable" in said:
        return (
            f"cannot {doing}: {_and(fixed) if any(fixed) else _brief(said, 160)} cannot be changed once it exists",
            "Remove the object first, or give the run another name.",
        )
    if causes:
        told = "; ".join(f"{c.get('field', '?')}: {_brief(c.get('message', ''), 160)}" for c in causes[:4])
        return f"cannot {doing}: {told}", "Mend the fields that it names."
    return f"cannot {doing}: {said}", "Mend the field that it names."


def _tells(cause: dict[str, Any]) -> bool:
    """Whether it says something of the object: the API server adds that it stopped looking."""
    return "some validation rules were not checked" not in str(cause.get("message", ""))


def _brief(text: str, most: int = 400) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
