"""Small configs of real families, for models that are built with random weights."""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts_per_tok": 2}
_LATENT = {
    "num_key_value_heads": 6,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 24,
    "n_routed_experts": 8,
    "moe_intermediate_size": 32,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    **_EXPERTS,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": BASE,
    "mistral": BASE,
    "qwen2": BASE,
    "qwen3": {**BASE, "head_dim": 24},
    "gemma2": {**BASE, "head_dim": 24},
    "gemma3_text": {**BASE, "head_dim": 24, "sliding_window": 16},
    "phi3": BASE,
    "mixtral": {**BASE, "num_local_experts": 4, **_EXPERTS},
    "qwen3_moe": {**BASE, "head_dim": 24, "num_experts": 4, "moe_intermediate_size": 64, **_EXPERTS},
    "gpt_oss": {**BASE, "head_dim": 16, "num_local_experts": 4, **_EXPERTS},
    "gpt2": {
        "n_embd": 96,
        "n_layer": 3,
        "n_head": 6,
        "n_positions": 128,
        **{name: BASE[name] for name in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")},
    },
    "gpt_neox": {name: value for name, value in BASE.items() if name != "num_key_value_heads"},
    "deepseek_v2": {**BASE, **_LATENT, "q_lora_rank": None},
    "deepseek_v3": {**BASE, **_LATENT, "q_lora_rank": 32},
}
"""`model_type` to its fields."""
