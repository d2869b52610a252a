"""Names of GPUs: ``H100`` in a request, ``NVIDIA H100 80GB HBM3`` by the driver, the same with dashes on a node.

A request gives words of the name, in order: ``A100-80GB`` is ``NVIDIA A100-SXM4-80GB`` and ``NVIDIA A100 80GB PCIe``.
Words are whole, so that ``L4`` is not ``L40S`` and ``H200`` not ``GH200``.
"""

from __future__ import annotations

import re

from goldpath.accelerators import catalogue
from goldpath.accelerators.profiles import gpus_with

PRODUCT_LABEL = "nvidia.com/gpu.product"
LABELS: dict[str, tuple[str, ...]] = {
    gpu: tuple(name.replace(" ", "-") for name in names) for gpu, names in catalogue.product_names().items()
}
"""What GPU feature discovery writes into `PRODUCT_LABEL`, for clusters whose own labels are not known."""


def pattern(product: str) -> str:
    """A regular expression (RE2 and Python) that finds the words of `product` in a name."""
    words = "([ -].*)?[ -]".join(re.escape(word) for word in product.split("-"))
    return f"(?i)(^|[ -]){words}([ -]|$)"


def selector(product: str) -> str:
    """CEL that takes NVIDIA's devices with these words in their name."""
    prefix = "r" if "\\" in pattern(product) else ""
    return f"device.attributes['gpu.nvidia.com'].productName.matches({prefix}'{pattern(product)}')"


def labels(product: str, known: tuple[str, ...] = (), suffix: str = "") -> tuple[str, ...]:
    """The values of `PRODUCT_LABEL` that fit, sorted.

    Args:
        product: words of the name; empty takes all.
        known: the values on a cluster's nodes; without any, those of well-known GPUs.
        suffix: ``-MIG-1g.10gb`` for a node whose slices pass for GPUs, ``-SHARED`` for one with time-slicing.
    """
    values = known or tuple(f"{name}{suffix}" for names in LABELS.values() for name in names)
    found = [value for value in values if value.endswith(suffix) and _whole(value.removesuffix(suffix))]
    return tuple(sorted(value for value in found if re.search(pattern(product), value.removesuffix(suffix))))


def slice_labels(profile: str, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The values of `PRODUCT_LABEL` on nodes all of whose GPUs are cut into `profile` (MIG strategy `single`)."""
    suffix = f"-MIG-{profile}"
    if known:
        return tuple(sorted(value for value in known if value.endswith(suffix)))
    return tuple(sorted(f"{name}{suffix}" for gpu in gpus_with(profile) for name in LABELS[gpu]))


def _whole(label: str) -> bool:
    """Whether the label names a GPU, neither a slice nor a share of one."""
    return "-MIG-" not in label and not label.endswith("-SHARED")
