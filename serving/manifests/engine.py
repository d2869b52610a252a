"""vLLM's arguments and environment: context, GPUs, and what it keeps of prompts.

Read in vLLM 0.24 to 0.32, KServe 0.20 and LMCache 0.5. The server of LMCache's multi-process mode is started by the
connector, inside the engine's container: only there does it see the engine's GPU, which a second container would need
a claim for, and it comes and goes with the engine. Its memory counts as the engine's.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from goldpath.serving.cluster import GIB, KSERVE_RUNTIME, ClusterServeSpec
from goldpath.serving.manifests import lmcache
from goldpath.serving.manifests.parts import Manifest

IMAGE = "goldpath/vllm:0.32.0-lmcache0.5.6"
"""Of our runtime (`deploy/serving`): vLLM and an LMCache that fits it."""
_START_SECONDS = 120
"""LMCache's server pins its memory before it answers."""


def arguments(spec: ClusterServeSpec) -> list[str]:
    """The engine's arguments, each one element of `argv`."""
    kserve = spec.kind == "inference-service" and spec.serving_runtime == KSERVE_RUNTIME
    made = []
    if kserve:
        # Without a backend named it falls back to transformers, which reuses nothing and says so nowhere.
        made += [f"--model_name={spec.served_name}", "--backend=vllm"]
    elif spec.kind == "inference-service":
        made.append(f"--served-model-name={spec.served_name}")
    if spec.context_length:
        made.append(
            f"--max_model_len={spec.context_length}" if kserve else f"--max-model-len={spec.context_length}"
        )
    if spec.kind == "inference-service" and spec.workers > 1:
        made.append(f"--tensor-parallel-size={spec.workers}")
    made.append("--no-enable-prefix-caching" if spec.kv.mode == "none" else "--enable-prefix-caching")
    # KServe writes the connector of an LLMInferenceService itself, from spec.kvCacheOffloading.
    if not (spec.kind == "llm-inference-service" and spec.kv.mode == "offload") and (
        connector := _connector(spec)
    ):
        made.append(f"--kv-transfer-config={json.dumps(connector, separators=(',', ':'))}")
    return made


def environment(spec: ClusterServeSpec) -> list[Manifest]:
    """Variables of the engine's container."""
    named = {
        "HF_HUB_OFFLINE": "1",  # the model is mounted, and a pod that serves has no business on the hub
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if spec.kind == "inference-service":
        # The user has no home and no entry in the image's passwd; compilers want both for their caches.
        named |= {"HOME": "/home/goldpath", "USER": "goldpath", "HF_HOME": "/home/goldpath/hf"}
    if spec.kv.lmcache:
        # Keys of chunks are hashes: every process has to come to the same ones.
        named |= {"PYTHONHASHSEED": "0", "LMCACHE_TRACK_USAGE": "false"}
    if spec.kv.mode == "lmcache-in-process":
        named["LMCACHE_CONFIG_FILE"] = lmcache.PATH
    return [{"name": name, "value": value} for name, value in named.items()]


def volumes(spec: ClusterServeSpec) -> list[Manifest]:
    """What LMCache needs: its settings, and its part of the node's disk."""
    made: list[Manifest] = []
    if spec.kv.mode == "lmcache-in-process":
        made.append({"name": "lmcache-config", "configMap": {"name": lmcache.name(spec)}})
    if spec.kv.lmcache and spec.kv.disk_gib:
        room = lmcache.disk_gib(spec)
        made.append({"name": "lmcache-disk", "emptyDir": {"sizeLimit": f"{room}Gi"}})
    return made


def mounts(spec: ClusterServeSpec) -> list[Manifest]:
    """Where `volumes` are seen."""
    at = {"lmcache-config": lmcache.FOLDER, "lmcache-disk": lmcache.DISK}
    return [
        {
            "name": one["name"],
            "mountPath": at[one["name"]],
            **({"readOnly": True} if "configMap" in one else {}),
        }
        for one in volumes(spec)
    ]


def _connector(spec: ClusterServeSpec) -> dict[str, Any]:
    """`--kv-transfer-config`; empty where the engine keeps nothing outside the GPU."""
    if spec.kv.mode == "lmcache-in-process":
        return {"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}
    if spec.kv.mode == "lmcache-mp":
        return {
            "kv_connector": "LMCacheMPConnector",
            "kv_role": "kv_both",
            "kv_connector_extra_config": {
                "lmcache.mp.autostart": True,
                "lmcache.mp.autostart.wait_timeout": _START_SECONDS,
                "lmcache.mp.autostart.server_args": shlex.join(_server(spec)),
            },
        }
    if spec.kv.mode == "offload":
        return {
            "kv_connector": "OffloadingConnector",
            "kv_role": "kv_both",
            "kv_connector_extra_config": {
                "spec_name": "TieringOffloadingSpec",
                "cpu_bytes_to_use": round(spec.kv.cpu_gib * GIB),
                "eviction_policy": spec.kv.eviction,
            },
        }
    return {}


def _server(spec: ClusterServeSpec) -> list[str]:
    """Arguments of `lmcache server`."""
    made = ["--l1-size-gb", f"{spec.kv.cpu_gib:g}", "--eviction-policy", "LRU"]
    made += ["--chunk-size", str(spec.kv.chunk_size), "--supported-transfer-mode", "auto"]
    if spec.kv.disk_gib:
        made += ["--l2-adapter", json.dumps({"type": "fs", "base_path": lmcache.DISK}, separators=(",", ":"))]
    return made
