"""Which family each `model_type` belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from goldpath.accelerators.families import decoders, experts, hybrids, latent, windows
from goldpath.accelerators.families.decoders import Decoder
from goldpath.accelerators.families.parts import Blueprint
from goldpath.accelerators.fields import Fields

Builder = Callable[[Fields], Blueprint]

LLAMA = Decoder()
_MISTRAL = Decoder(
    windows=windows.all_sliding, bias=False, out_bias=False, mlp_bias=False, defaults={"sliding_window": 4096}
)
_PHI3 = replace(_MISTRAL, defaults={})
_QWEN2 = Decoder(windows=windows.when_used, bias=True, out_bias=False, mlp_bias=False)
_QWEN3 = Decoder(windows=windows.when_used, qk_norm=True, mlp_bias=False, defaults={"head_dim": 128})
_QWEN2_MOE = replace(_QWEN2, windows=windows.even_when_used, block=experts.qwen2_moe)
_COHERE2 = Decoder(
    windows=windows.every_fourth_full,
    mlp_bias=False,
    norms=1,
    tied=True,
    defaults={"sliding_window": 4096, "max_position_embeddings": 8192},
)
_GEMMA = Decoder(mlp_bias=False, tied=True, defaults={"head_dim": 256})
_GEMMA2 = Decoder(
    windows=windows.alternating,
    mlp_bias=False,
    norms=4,
    tied=True,
    defaults={
        "head_dim": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 256000,
        "sliding_window": 4096,
        "max_position_embeddings": 8192,
    },
)
_GEMMA3 = replace(
    _GEMMA2,
    windows=windows.every_nth_full,
    qk_norm=True,
    defaults={
        **_GEMMA2.defaults,
        "vocab_size": 262208,
        "sliding_window_pattern": 6,
        "max_position_embeddings": 131072,
    },
)
_LLAMA4 = Decoder(
    windows=windows.chunks,
    block=experts.llama4,
    mlp_bias=False,
    dense_width="intermediate_size_mlp",
    defaults={
        "head_dim": 128,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "vocab_size": 202048,
        "attention_chunk_size": 8192,
        "no_rope_layer_interval": 4,
        "num_experts_per_tok": 1,
        "max_position_embeddings": 131072,
    },
)
_GPT_OSS = Decoder(
    windows=windows.alternating,
    block=experts.gpt_oss,
    sinks=True,
    defaults={"head_dim": 64, "sliding_window": 128, "attention_bias": True},
)
_GPT_NEOX = Decoder(mlp_bias=True, gated=False, norm_bias=True, defaults={"attention_bias": True})

DECODERS: dict[str, Decoder] = {
    "llama": LLAMA,
    "granite": LLAMA,
    "smollm3": Decoder(windows=windows.without_positions, tied=True),
    "mistral": _MISTRAL,
    "mixtral": replace(_MISTRAL, block=experts.mixtral, defaults={}),
    "phi3": _PHI3,
    "qwen2": _QWEN2,
    "qwen3": _QWEN3,
    "qwen3_moe": replace(_QWEN3, windows=windows.all_when_used, block=experts.qwen3_moe, defaults={}),
    "qwen2_moe": _QWEN2_MOE,
    "cohere2": _COHERE2,
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "llama4_text": _LLAMA4,
    "gpt_oss": _GPT_OSS,
    "gpt2": decoders.GPT2,
    "gpt_neox": _GPT_NEOX,
}


def _builders() -> dict[str, Builder]:
    built: dict[str, Builder] = {name: partial(decoders.build, family) for name, family in DECODERS.items()}
    return built | {
        "deepseek_v2": latent.build,
        "deepseek_v3": latent.build,
        "falcon": decoders.build_falcon,
        "gpt_bigcode": decoders.build_bigcode,
        "mamba": hybrids.build_mamba,
        "mamba2": hybrids.build_mamba2,
        "jamba": hybrids.build_jamba,
        "bamba": hybrids.build_bamba,
        "granitemoehybrid": hybrids.build_granite,
        "falcon_h1": hybrids.build_falcon_h1,
        "nemotron_h": hybrids.build_nemotron,
        "qwen3_next": hybrids.build_qwen3_next,
        "lfm2": hybrids.build_lfm2,
    }


TEXT_OF = {"qwen2_vl": "qwen2", "qwen2_vl_text": "qwen2", "qwen2_5_vl": "qwen2", "qwen2_5_vl_text": "qwen2"}
"""`model_type` of models for images and text to the family of their language model."""
BUILDERS = _builders()
"""`model_type` to what makes a blueprint of its config."""
DEFAULTS = {name: family.defaults for name, family in DECODERS.items()}
"""`model_type` to what the configs on the hub leave out."""
UNKNOWN = Decoder(windows=windows.guessed, block=experts.guessed)
"""A decoder of an unknown family: Llama with what its config hints at."""
