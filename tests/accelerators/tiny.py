"""Configs of tiny models, one or more a family, as transformers takes them; and the models themselves."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

_BASE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS: dict[str, Any] = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
_LATENT: dict[str, Any] = {
    **_EXPERTS,
    "num_key_value_heads": 8,
    "kv_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
_MAMBA2: dict[str, Any] = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_n_groups": 2,
    "mamba_d_state": 12,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 8,
}
_GPT: dict[str, Any] = {
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 96,
    "vocab_size": 320,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-gqa": ("llama", {**_BASE, "attention_bias": True, "mlp_bias": True}),
    "llama-mha-tied": ("llama", {**_BASE, "num_key_value_heads": 8, "tie_word_embeddings": True}),
    "llama-head-dim": ("llama", {**_BASE, "head_dim": 24}),
    "mistral-window": ("mistral", {**_BASE, "sliding_window": 16}),
    "mistral-full": ("mistral", {**_BASE, "sliding_window": None}),
    "mixtral": ("mixtral", {**_BASE, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": ("qwen2", {**_BASE, "tie_word_embeddings": True}),
    "qwen2-window": (
        "qwen2",
        {**_BASE, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {**_BASE, "head_dim": 16}),
    "qwen3_moe": (
        "qwen3_moe",
        {**_BASE, **_EXPERTS, "num_experts": 8, "mlp_only_layers": [1], "head_dim": 16},
    ),
    "qwen2_moe": (
        "qwen2_moe",
        {
            **_BASE,
            **_EXPERTS,
            "num_experts": 8,
            "mlp_only_layers": [1],
            "shared_expert_intermediate_size": 48,
        },
    ),
    "qwen2_moe-window": (
        "qwen2_moe",
        {
            **_BASE,
            **_EXPERTS,
            "num_experts": 8,
            "shared_expert_intermediate_size": 48,
            "use_sliding_window": True,
            "sliding_window": 16,
            "max_window_layers": 3,
        },
    ),
    "cohere2": ("cohere2", {**_BASE, "num_hidden_layers": 6, "sliding_window": 16, "attention_bias": True}),
    "gemma": ("gemma", {**_BASE, "num_key_value_heads": 1, "head_dim": 16}),
    "gemma2": ("gemma2", {**_BASE, "head_dim": 16, "sliding_window": 16}),
    "gemma3": (
        "gemma3_text",
        {**_BASE, "num_hidden_layers": 7, "head_dim": 16, "sliding_window": 16},
    ),
    "phi3": ("phi3", _BASE),
    "smollm3": ("smollm3", _BASE),
    "granite": ("granite", _BASE),
    "gpt_oss": (
        "gpt_oss",
        {**_BASE, "head_dim": 16, "sliding_window": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "llama4": (
        "llama4_text",
        {
            **_BASE,
            "head_dim": 8,
            "intermediate_size_mlp": 160,
            "attention_chunk_size": 16,
            "num_local_experts": 4,
            "interleave_moe_layer_step": 2,
        },
    ),
    "deepseek_v2": ("deepseek_v2", {**_BASE, **_LATENT, "q_lora_rank": None, "n_shared_experts": 2}),
    "deepseek_v3": ("deepseek_v3", {**_BASE, **_LATENT, "q_lora_rank": 40, "n_shared_experts": 1}),
    "gpt2": ("gpt2", _GPT),
    "gpt_bigcode": ("gpt_bigcode", {**_GPT, "multi_query": True}),
    "gpt_neox": ("gpt_neox", {key: value for key, value in _BASE.items() if key != "num_key_value_heads"}),
    "falcon-mqa": ("falcon", {**_BASE, "multi_query": True}),
    "falcon-new": (
        "falcon",
        {**_BASE, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
    ),
    "mamba": ("mamba", {"hidden_size": 64, "num_hidden_layers": 3, "vocab_size": 320, "state_size": 12}),
    "mamba2": (
        "mamba2",
        {
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "vocab_size": 320,
            "num_heads": 8,
            "head_dim": 16,
            "n_groups": 2,
            "state_size": 12,
            "chunk_size": 8,
        },
    ),
    "jamba": (
        "jamba",
        {
            **_BASE,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "attn_layer_period": 4,
            "attn_layer_offset": 2,
            "mamba_d_state": 12,
            "mamba_dt_rank": 6,
        },
    ),
    "bamba": ("bamba", {**_BASE, **_MAMBA2, "attn_layer_indices": [1]}),
    "granitemoehybrid": (
        "granitemoehybrid",
        {
            **_BASE,
            **_MAMBA2,
            "layer_types": ["mamba", "attention", "mamba", "mamba"],
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 48,
        },
    ),
    "granitemoehybrid-dense": (
        "granitemoehybrid",
        {
            **_BASE,
            **_MAMBA2,
            "layer_types": ["mamba", "mamba", "attention", "mamba"],
            "num_local_experts": 0,
            "shared_intermediate_size": 48,
            "tie_word_embeddings": True,
        },
    ),
    "falcon_h1": ("falcon_h1", {**_BASE, **_MAMBA2, "mamba_d_ssm": 128, "mamba_rms_norm": True}),
    "nemotron_h": (
        "nemotron_h",
        {
            **{key: value for key, value in _BASE.items() if key != "num_hidden_layers"},
            "layers_block_type": ["mamba", "mlp", "attention", "moe", "mamba"],
            "head_dim": 16,
            "mamba_num_heads": 8,
            "mamba_head_dim": 16,
            "n_groups": 2,
            "ssm_state_size": 12,
            "chunk_size": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "moe_shared_expert_intermediate_size": 40,
        },
    ),
    "qwen3_next": (
        "qwen3_next",
        {
            **_BASE,
            **_EXPERTS,
            "head_dim": 16,
            "num_experts": 8,
            "shared_expert_intermediate_size": 48,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 12,
            "linear_value_head_dim": 20,
        },
    ),
    "lfm2": ("lfm2", {**_BASE, "layer_types": ["conv", "full_attention", "conv", "conv"]}),
}
"""Name to `model_type` and the fields of a config."""


def config(name: str) -> PretrainedConfig:
    """The config object of transformers."""
    kind, fields = CONFIGS[name]
    return CONFIG_MAPPING[kind](**fields)


def raw(name: str) -> dict[str, Any]:
    """The config as it would be read from a config.json that says no more than it must."""
    kind, fields = CONFIGS[name]
    return {"model_type": kind, **fields}


def model(name: str, device: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model with random weights; on `meta` it has shapes alone."""
    torch.manual_seed(0)
    with torch.device(device):
        made = AutoModelForCausalLM.from_config(config(name), dtype=dtype)
    return made.eval()
