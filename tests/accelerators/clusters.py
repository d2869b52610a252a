"""Objects of clusters as their API gives them: nodes with the device plugin's resources, slices of NVIDIA's driver."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
TYPE = "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == '{}'"


def node(name: str, gpus: dict[str, str], labels: dict[str, str] | None = None, taint: str = "") -> Object:
    taints = [{"key": taint, "effect": "NoSchedule"}] if taint else []
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"taints": taints},
        "status": {"allocatable": {"cpu": "8", "memory": "32Gi", **gpus}},
    }


def gpu(name: str, product: str, memory: str, architecture: str = "Hopper") -> Object:
    return {
        "name": name,
        "attributes": {
            "type": {"string": "gpu"},
            "productName": {"string": product},
            "architecture": {"string": architecture},
            "driverVersion": {"version": "580.126.20"},
            "resource.kubernetes.io/pcieRoot": {"string": "pci0000:64"},
        },
        "capacity": {"memory": {"value": memory}},
    }


def mig(name: str, profile: str, parent: str = "GPU-1") -> Object:
    return {
        "name": name,
        "attributes": {
            "type": {"string": "mig"},
            "productName": {"string": "NVIDIA A100-SXM4-80GB"},
            "profile": {"string": profile},
            "parentUUID": {"string": parent},
        },
        "capacity": {"memory": {"value": "9856Mi"}, "multiprocessors": {"value": "14"}},
    }


def a_slice(
    node_name: str, devices: list[Object], generation: int = 1, driver: str = "gpu.nvidia.com"
) -> Object:
    return {
        "metadata": {"name": f"{node_name}-{generation}"},
        "spec": {
            "driver": driver,
            "nodeName": node_name,
            "pool": {"name": node_name, "generation": generation, "resourceSliceCount": 1},
            "devices": devices,
        },
    }


def a_class(name: str, expression: str, extended: str = "") -> Object:
    more = {"extendedResourceName": extended} if extended else {}
    return {"metadata": {"name": name}, "spec": {"selectors": [{"cel": {"expression": expression}}], **more}}


CLASSES = [
    a_class("gpu.nvidia.com", TYPE.format("gpu"), "nvidia.com/gpu"),
    a_class("mig.nvidia.com", TYPE.format("mig")),
]
SLICES = [
    a_slice("old", [gpu("gpu-9", "NVIDIA H100 80GB HBM3", "81559Mi")], generation=1),
    a_slice(
        "old",
        [
            gpu("gpu-0", "NVIDIA H100 80GB HBM3", "81559Mi"),
            gpu("gpu-1", "NVIDIA L4", "23034Mi", "Ada Lovelace"),
            mig("mig-0", "1g.10gb"),
            mig("mig-1", "1g.10gb"),
            mig("mig-2", "1g.10gb+me"),
        ],
        generation=2,
    ),
]
