"""What a config.json says its weights are stored in: `quantization_config`, as transformers and vLLM read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from goldpath.core.errors import ModelError

_BY_NAME = {"fp8": "fp8", "fbgemm_fp8": "fp8", "finegrained_fp8": "fp8", "mxfp4": "mxfp4"}
_BY_BITS = {"awq", "gptq", "auto-round", "auto_round"}
_KEPT = ("modules_to_not_convert", "ignored_layers", "ignore")
_COUNTED = ("lm_head", "embed", "gate", "router", "norm", "vision", "visual")
"""Modules that are counted in 16 bits anyway."""


class Stored(NamedTuple):
    """A type of `serving_weights.WEIGHTS`, empty where weights are not quantised or it is not known how."""

    dtype: str = ""
    note: str = ""
    """What is not counted."""


def read_quantization(config: Mapping[str, Any], name: str) -> Stored:
    """What the weights are stored in.

    Args:
        config: the parsed file.
        name: what to call it in messages.

    Raises:
        ModelError: `quantization_config` is no object.
    """
    text = config.get("text_config")
    given = config.get("quantization_config")
    if given is None and isinstance(text, Mapping):
        given = text.get("quantization_config")
    if given is None:
        return Stored()
    if not isinstance(given, Mapping):
        raise ModelError(f"config of {name}: quantization_config is no object", "Correct it in config.json.")
    method = str(given.get("quant_method", "")).lower()
    dtype = _dtype(method, given)
    if not dtype:
        told = f"{method or 'no quant_method'}"[:40]
        return Stored(
            "", f"quantization_config has {told}, which is not read: weights count as if not quantised"
        )
    kept = _kept(given) if dtype != "mxfp4" else ""
    note = f"quantization_config leaves {kept} and the like in 16 bits: weights take more than counted"
    return Stored(dtype, note if kept else "")


def _dtype(method: str, given: Mapping[str, Any]) -> str:
    if method in _BY_BITS:
        return {4: "int4", 8: "int8"}.get(_number(given.get("bits", given.get("w_bit"))), "")
    if method == "bitsandbytes":
        return "nf4" if given.get("load_in_4bit") else "int8" if given.get("load_in_8bit") else ""
    if method == "modelopt":
        return "fp8" if given.get("quant_algo") == "FP8" else ""
    if method == "compressed-tensors":
        return _compressed(given.get("config_groups"))
    return _BY_NAME.get(method, "")


def _compressed(groups: Any) -> str:
    """The type that all groups of compressed-tensors have; empty where they differ."""
    found = set()
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        weights = weights if isinstance(weights, Mapping) else {}
        known = {("float", 8): "fp8", ("int", 8): "int8", ("int", 4): "int4"}
        found.add(known.get((str(weights.get("type")), _number(weights.get("num_bits"))), ""))
    return found.pop() if len(found) == 1 else ""


def _kept(given: Mapping[str, Any]) -> str:
    """A module that stays in 16 bits and is counted in fewer; empty where there is none."""
    lists = [value for key in _KEPT if isinstance(value := given.get(key), list)]
    names = [name for one in lists for name in one if isinstance(name, str)]
    return next((name[:60] for name in names if not any(part in name for part in _COUNTED)), "")


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
