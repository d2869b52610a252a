"""The step `deploy` in a process of its own, for tests that kill it: `step_process.py URI DIGEST FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

from goldpath.components.deploy import deploy
from goldpath.core.kubernetes import Cluster
from goldpath.serving.backends import kubernetes
from tests.kube import QUICK
from tests.serving.cluster.played import Bucket


def main(uri: str, digest: str, folder: str) -> None:
    vars(sys.modules["fsspec.registry"])["_registry"]["s3"] = Bucket
    kubernetes.connect = lambda: Cluster.connect(retry=QUICK)
    kubernetes.POLL_S = 0.01
    cached = SimpleNamespace(uri=uri, metadata={"digest": digest, "version": "1"})
    endpoint = SimpleNamespace(path=str(Path(folder) / "endpoint.json"))
    print(deploy.python_func(cached=cached, endpoint=endpoint, name="bot", overrides={}), flush=True)


if __name__ == "__main__":
    import fsspec  # noqa: F401

    main(*sys.argv[1:])
