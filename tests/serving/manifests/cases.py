"""Specs, placements and what is rendered of them, for the tests of this folder."""

from __future__ import annotations

import os
from pathlib import Path as File
from typing import Any

import yaml

from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.models import load
from goldpath.accelerators.placement import ClusterPaths, Path, Placement
from goldpath.accelerators.render import place
from goldpath.serving.cluster import ClusterServeSpec
from goldpath.serving.manifests import inference_service, llm_inference_service

Manifest = dict[str, Any]
GOLDEN = File(__file__).parent / "golden"
URI = "s3://models/chat/1"
CLUSTERS = {
    "none": ("none", ClusterPaths(paths=())),
    "plugin-mig": ("mig:1g.10gb", ClusterPaths(paths=(Path.MIG_MIXED,))),
    "dra": ("whole:H100*2", ClusterPaths(paths=(Path.DRA,))),
}
KINDS = ("inference-service", "llm-inference-service")
KV: dict[str, dict[str, Any]] = {
    "none": {"mode": "none"},
    "prefix": {"mode": "prefix"},
    "lmcache-in-process": {
        "mode": "lmcache-in-process", "cpu_gib": 20, "disk_gib": 50, "remote_url": "redis://kv:6379",
    },
    "lmcache-mp": {"mode": "lmcache-mp", "cpu_gib": 20.5, "disk_gib": 50},
    "offload": {"mode": "offload", "cpu_gib": 20, "disk_gib": 50, "eviction": "arc"},
}  # fmt: skip


def model() -> Architecture:
    return load("Llama-3.1-8B")


def serve_spec(kind: str = "inference-service", **fields: Any) -> ClusterServeSpec:
    return ClusterServeSpec.parse({"kind": kind, "name": "chat", "model_uri": URI, **fields})


def placed(spec: ClusterServeSpec, cluster: str = "dra") -> Placement:
    return place(spec.gpu, CLUSTERS[cluster][1], name=spec.name, namespace="team")


def rendered(
    spec: ClusterServeSpec, cluster: str = "dra", prefill: Placement | None = None
) -> list[Manifest]:
    if spec.kind == "inference-service":
        return inference_service.render(spec, placed(spec, cluster), model(), "team")
    return llm_inference_service.render(spec, placed(spec, cluster), model(), "team", prefill)


def container(service: Manifest) -> Manifest:
    """The engine's."""
    spec = service["spec"]
    found: Manifest = spec["predictor"]["model"] if "predictor" in spec else spec["template"]["containers"][0]
    return found


def check_golden(name: str, objects: list[Manifest]) -> None:
    """Hold objects against a kept file; GOLDPATH_GOLDEN=write writes it anew."""
    text = "---\n".join(yaml.safe_dump(item, sort_keys=False, width=1000) for item in objects)
    file = GOLDEN / f"{name}.yaml"
    if os.environ.get("GOLDPATH_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()
