"""An HTTP server that behaves as a Kubernetes API server, for tests of all that talks to one.

    with Server() as server:                       # loopback, namespace `team-a`, all kinds of `kinds.KINDS`
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
        cluster = Cluster.connect(run="run-1", step="fine_tune", retry=QUICK)

What a test may do with `server`:

- `server.on(kind, function)`: a controller. `function(thing)` is called in the server's thread after each change of
  an object of that kind (a copy). What it returns, unless None, becomes the new `status`, which is a change too: so
  it is a state machine from one status to the next. It may call the methods below, for its children.
- `server.admit(kind, function)`: an admission check, `function(new, old)` (`old` is None at creation); it raises
  `Refusal(status, reason, message, causes)` to refuse: webhooks, quotas, invalid and immutable fields.
- `server.put(manifest)`, `server.edit(kind, name, function, namespace)`, `server.drop(kind, name, namespace)`: create,
  change in place and delete, past faults and admission; `server.event(thing, reason, message)`: a Warning about it;
  `server.logs[namespace, pod] = text`.
- `server.find(kind, namespace)`: all objects of a kind; `server.left()`: `Kind/name` of all but what was there from
  the start; `server.created`: `Kind/name` of each creation that took effect through the API, in order.
- `server.lack(kind)`: a cluster without that kind, or with `server.lack(kind, but="v1alpha1")` an older version only;
  `server.lack_field(kind, field)`: its version knows no such field of `spec`;
  `server.enforce(rules)`: 403 for all that no rule grants, as for the pipelines' own account (`roles`);
  `server.deny(verb, plural)`: 403, and "no" from SelfSubjectAccessReview; `server.forget()`: watches from older
  versions get 410; `server.requests`: `(method, path, status)` of each request.
- `server.faults = Faults(rate=0.2, seed=7)`: see `faults`. `server.faults = Faults(script=["drop-after"])` gives the
  next requests that it can happen to those faults, one each.

Controllers run in one thread of their own, one call after the other; `server.errors` holds what they raised, and
leaving the `with` block raises the first.
"""

from goldpath.core.kubernetes.retry import Retry
from tests.kube.faults import Faults
from tests.kube.server import Server
from tests.kube.store import Refusal

QUICK = Retry(limit_s=20, first_limit_s=20, base_s=0.001, cap_s=0.01, poll_s=0.01)
"""Tries again at once: tests take seconds."""

__all__ = ["QUICK", "Faults", "Refusal", "Server"]
