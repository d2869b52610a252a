"""A model's architecture, read from its config.json alone: layers, heads, states, weights. No weights are read."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from goldpath.accelerators import towers
from goldpath.accelerators.families import catalogue, latent
from goldpath.accelerators.families.decoders import build
from goldpath.accelerators.families.parts import Blueprint
from goldpath.accelerators.fields import Fields
from goldpath.accelerators.layers import Layer, StateCache
from goldpath.accelerators.quantization import read_quantization
from goldpath.accelerators.towers import Tower
from goldpath.core.errors import ModelError
from goldpath.core.spec import Result

__all__ = ["Architecture", "Layer", "StateCache", "from_config"]

_DTYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "half": "fp16"}
_UNMODELLED = (
    "num_kv_shared_layers",
    "index_head_dim",
    "index_topk",
    "compress_ratios",
    "global_head_dim",
    "num_global_key_value_heads",
    "attn_type_list",
    "state_size",
    "ssm_state_size",
    "ssm_cfg",
    "hybrid_override_pattern",
    "attn_layer_period",
    "linear_attn_config",
    "full_attention_interval",
    "lru_width",
    "block_types",
    "conv_L_cache",
    "per_layer_config",
    "num_attention_heads_per_layer",
    "cross_attention_layers",
    "is_encoder_decoder",
)
"""Fields that change what is cached, in families that are not read here: guessing would be wrong."""
_UNMODELLED_PREFIXES = ("mamba_", "linear_num_", "linear_key_")
_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


class Architecture(Result):
    """What a model's config says that memory depends on."""

    name: str
    model_type: str
    hidden_size: int
    attention_heads: int
    """Query heads; 0 for a model without attention."""
    vocab_size: int
    tied_embeddings: bool
    """Whether the output head is the embedding."""
    max_positions: int
    """Tokens that the config allows; 0: no limit."""
    dtype: str
    """What the model computes in, as in `kv_cache.DTYPES`: `bf16` where the config does not say."""
    quantization: str = ""
    """What the weights are stored in where they are quantised, as in `serving_weights.WEIGHTS`."""
    layers: tuple[Layer, ...]
    outside_parameters: int
    """Weights outside the layers: embeddings, learned positions, the last norm, an untied head."""
    tower: Tower | None = None
    """For images, where it is held beside the language model."""
    assumed: tuple[str, ...] = ()
    """What had to be assumed or was left out; mostly empty."""

    @property
    def stored(self) -> str:
        """What the weights are stored in, as in `serving_weights.WEIGHTS`."""
        return self.quantization or self.dtype

    @functools.cached_property
    def has_experts(self) -> bool:
        """Whether any layer is a mixture of experts."""
        return any(layer.experts for layer in self.layers)

    @property
    def parameters(self) -> int:
        """All weights of the language model (a tower for images is not among them)."""
        return self.outside_parameters + sum(layer.parameters for layer in self.layers)

    @property
    def active_parameters(self) -> int:
        """Weights that one token uses: all but the experts that it is not sent to."""
        return self.outside_parameters + sum(layer.active_parameters for layer in self.layers)

    @property
    def intermediate_size(self) -> int:
        """The widest feed-forward block that a token goes through, in elements."""
        return max(
            (
                layer.intermediate_size * max(layer.experts_per_token, 1) + layer.shared_intermediate_size
                for layer in self.layers
            ),
            default=0,
        )


def from_config(config: Mapping[str, Any], name: str) -> Architecture:
    """Read a config.json.

    A config of several towers (images and text) gives its language model. An unknown `model_type` with the
    usual fields is taken as a plain decoder, and `assumed` says so.

    Args:
        config: the parsed file.
        name: what to call it in messages.

    Raises:
        ModelError: a field is missing, of the wrong type or contradicts another.
    """
    if not isinstance(config, Mapping):
        raise ModelError(f"config of {name} is no object", "Give the config.json of a model.")
    inner = _language_model(config, name)
    kind = inner.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise ModelError(
            f"config of {name}: model_type is {json.dumps(kind, default=str)[:40]}", "It must be a name."
        )
    family = catalogue.TEXT_OF.get(kind or "", kind)
    if family in catalogue.BUILDERS:
        defaults = catalogue.DEFAULTS.get(family, {})
        blueprint = catalogue.BUILDERS[family](Fields(inner, name, defaults))
    else:
        blueprint = _unknown(Fields(inner, name), kind)
    if inner is not config or isinstance(config.get("vision_config"), Mapping):
        tower = towers.of_config(config, blueprint.hidden_size)
        counted = (
            f"the tower for images ({tower.parameters / 1e6:,.0f} M weights) is held and not trained; "
            "what images take is not counted"
            if tower
            else "only the language model is described: towers for images or sound are not counted"
        )
        blueprint.assumed.append(counted)
    else:
        tower = None
    stored = read_quantization(config, name)
    if stored.note:
        blueprint.assumed.append(stored.note)
    return _finish(blueprint, name, kind or "unknown", _dtype(inner), stored.dtype, tower)


def _language_model(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = config.get("text_config")
    if inner is None:
        return config
    if not isinstance(inner, Mapping):
        raise ModelError(f"config of {name}: text_config is no object", "Give the config.json of a model.")
    outer = {
        key: config[key]
        for key in ("tie_word_embeddings", "dtype", "torch_dtype")
        if config.get(key) is not None
    }
    return {**outer, **inner}


def _unknown(fields: Fields, kind: str | None) -> Blueprint:
    missing = [key for key in _NEEDED if fields.get(key) is None]
    if missing:
        raise ModelError(
            f"config of {fields.name}: model_type {kind or '(none)'} is not known, and {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing",
            f"Known: {', '.join(sorted(catalogue.BUILDERS))}.",
        )
    special = [
        key
        for key, value in fields.config.items()
        if value and (key in _UNMODELLED or key.startswith(_UNMODELLED_PREFIXES))
    ]
    if fields.get("v_head_dim") and not fields.get("kv_lora_rank"):
        special.append("v_head_dim")
    if special:
        raise ModelError(
            f"config of {fields.name}: model_type {kind or '(none)'} is not known, and {special[0]} means that its "
            "cache is not a plain decoder's",
            f"Known: {', '.join(sorted(catalogue.BUILDERS))}.",
        )
    blueprint = latent.build(fields) if fields.get("kv_lora_rank") else build(catalogue.UNKNOWN, fields)
    blueprint.assumed.append(
        f"model_type {kind or '(none)'} is not known: taken as a plain decoder with gated MLPs, its weights an estimate"
    )
    used = fields.get("sliding_window") and fields.flag("use_sliding_window", True)
    if used and not fields.get("layer_types") and not any(layer.window for layer in blueprint.layers):
        blueprint.assumed.append(
            "which layers have the sliding_window is not said: all are counted with the whole context"
        )
    return blueprint


def _dtype(config: Mapping[str, Any]) -> str:
    given = config.get("dtype", config.get("torch_dtype"))
    return _DTYPES.get(str(given).removeprefix("torch."), "bf16")


def _finish(
    blueprint: Blueprint, name: str, kind: str, dtype: str, quantization: str, tower: Tower | None
) -> Architecture:
    return Architecture(
        name=name,
        model_type=kind,
        hidden_size=blueprint.hidden_size,
        attention_heads=blueprint.attention_heads,
        vocab_size=blueprint.vocab_size,
        tied_embeddings=blueprint.tied,
        max_positions=blueprint.max_positions,
        dtype=dtype,
        quantization=quantization,
        layers=tuple(blueprint.layers),
        outside_parameters=blueprint.outside_parameters,
        tower=tower,
        assumed=tuple(blueprint.assumed),
    )
