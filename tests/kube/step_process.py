"""A step of its own process, for tests that kill it: makes a TrainJob and waits for it."""

from __future__ import annotations

import sys

from goldpath.core.kubernetes import Cluster, Ref
from goldpath.core.steps import step
from tests.kube import QUICK
from tests.kube.things import complete, config_map, train_job


def main() -> None:
    with step("fine_tune"):
        cluster = Cluster.connect(run="run-1", step="fine_tune", retry=QUICK)
        with cluster.children():
            cluster.create_or_adopt(config_map("lmcache"))
            job = cluster.create_or_adopt(train_job(cluster.name(most=40)))
            print("waiting", job["metadata"]["uid"], flush=True)
            print(cluster.wait(Ref.of(job), complete, 60), flush=True)


if __name__ == "__main__":
    sys.exit(main())
