"""A config.json against the model that transformers builds of it, and configs that make no sense."""

from typing import Any

import pytest

from goldpath.accelerators.architecture import from_config
from goldpath.accelerators.families.catalogue import BUILDERS, DECODERS
from goldpath.core.errors import ModelError
from tests.accelerators import tiny

LLAMA: dict[str, Any] = tiny.raw("llama-head-dim")


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_the_weights_are_those_of_the_model(name: str) -> None:
    weights = sum(parameter.numel() for parameter in tiny.model(name, "meta").parameters())
    assert from_config(tiny.raw(name), name).parameters == weights
    assert (
        from_config(tiny.config(name).to_dict(), name).parameters == weights
    )  # with every default written out


def test_every_family_is_among_the_models() -> None:
    assert {kind for kind, _ in tiny.CONFIGS.values()} == set(BUILDERS)


@pytest.mark.parametrize("kind", [kind for kind, family in DECODERS.items() if family.defaults])
def test_defaults_are_those_of_transformers(kind: str) -> None:
    from transformers import CONFIG_MAPPING

    theirs = CONFIG_MAPPING[kind]()
    for field, value in DECODERS[kind].defaults.items():
        given = (
            theirs._sliding_window_pattern if field == "sliding_window_pattern" else getattr(theirs, field)
        )
        assert given == value, field


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("llama-gqa", ["full"] * 4),
        ("mistral-window", ["sliding"] * 4),
        ("mistral-full", ["full"] * 4),
        ("qwen2-window", ["full", "sliding", "sliding", "sliding"]),
        ("qwen2_moe-window", ["sliding", "full", "sliding", "full"]),
        ("cohere2", ["sliding"] * 3 + ["full", "sliding", "sliding"]),
        ("gemma2", ["sliding", "full"] * 2),
        ("gemma3", ["sliding"] * 5 + ["full", "sliding"]),
        ("gpt_oss", ["sliding", "full"] * 2),
        ("llama4", ["chunked"] * 3 + ["full"]),
        ("deepseek_v3", ["mla"] * 4),
        ("mamba2", ["state"] * 3),
        ("jamba", ["state", "state", "full", "state"]),
        ("bamba", ["state", "full", "state", "state"]),
        ("granitemoehybrid", ["state", "full", "state", "state"]),
        ("falcon_h1", ["full"] * 4),
        ("nemotron_h", ["state", "none", "full", "none", "state"]),
        ("qwen3_next", ["state"] * 3 + ["full"]),
        ("lfm2", ["state", "full", "state", "state"]),
    ],
)
def test_each_layer_is_of_its_kind(name: str, kinds: list[str]) -> None:
    layers = from_config(tiny.raw(name), name).layers
    assert [layer.kind for layer in layers] == kinds
    assert all((layer.window > 0) == (layer.kind in ("sliding", "chunked")) for layer in layers)
    assert all(layer.state is not None for layer in layers if layer.kind == "state" or name == "falcon_h1")


def test_one_value_under_two_names_is_no_contradiction() -> None:
    plain = from_config(LLAMA, "it")
    assert from_config({**LLAMA, "d_model": 64, "n_layer": None, "num_kv_heads": 2}, "it") == plain
    asked = {**tiny.raw("falcon-mqa"), "num_kv_heads": 8}  # multi_query has one, whatever it says
    assert {layer.kv_heads for layer in from_config(asked, "it").layers} == {1}


_MOE: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 48}
UNKNOWN: dict[str, dict[str, Any]] = {
    "ernie4_5_moe": {
        "moe_num_experts": 8,
        "moe_k": 2,
        "moe_intermediate_size": 48,
        "moe_num_shared_experts": 2,
    },
    "dots1": {**_MOE, "n_routed_experts": 8, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "glm4_moe": {**_MOE, "n_routed_experts": 8, "n_shared_experts": 1},
    "exaone_moe": {**_MOE, "num_experts": 8, "num_shared_experts": 1},
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2},
    "granitemoeshared": {"num_local_experts": 8, "num_experts_per_tok": 2, "shared_intermediate_size": 64},
    "solar_open": {**_MOE, "n_routed_experts": 8, "n_shared_experts": 1},
}
"""Families that are not known here, with experts and shared ones under the names that they use."""


@pytest.mark.parametrize("kind", UNKNOWN)
def test_the_weights_of_an_unknown_familys_experts_are_about_the_models(kind: str) -> None:
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    base = {key: value for key, value in tiny.raw("llama-gqa").items() if not key.endswith("_bias")}
    config = CONFIG_MAPPING[kind](**{**base, **UNKNOWN[kind]})
    with torch.device("meta"):
        weights = sum(one.numel() for one in AutoModelForCausalLM.from_config(config).parameters())
    found = from_config(config.to_dict(), kind)
    assert "an estimate" in found.assumed[0]
    # What a family adds on its own, norms of heads and the like, is not guessed.
    assert found.parameters / weights == pytest.approx(1, abs=0.005)


def test_idle_experts_are_not_active() -> None:
    dense = from_config(tiny.raw("llama-gqa"), "dense")
    assert dense.active_parameters == dense.parameters
    sparse = from_config(
        tiny.raw("mixtral"), "sparse"
    )  # 2 of 4 experts, 3 matrices of 64 x 96 each, in 4 layers
    assert sparse.parameters - sparse.active_parameters == 2 * 3 * 64 * 96 * 4
    assert {layer.feed_forward for layer in sparse.layers} == {"moe"}
    mixed = from_config(tiny.raw("qwen3_moe"), "mixed")
    assert [layer.feed_forward for layer in mixed.layers] == ["moe", "dense", "moe", "moe"]
    assert mixed.intermediate_size == 96


def test_a_config_of_several_towers_gives_its_language_model() -> None:
    text = {**tiny.raw("gemma3"), "tie_word_embeddings": None}
    config = {
        "model_type": "gemma3",
        "dtype": "float16",
        "text_config": text,
        "vision_config": {"hidden_size": 9},
    }
    found = from_config(config, "towers")
    assert found.layers == from_config(text, "text").layers
    assert (found.model_type, found.dtype) == ("gemma3_text", "fp16")
    assert "towers" in found.assumed[0]


def test_an_unknown_family_is_taken_as_a_plain_decoder_and_says_so() -> None:
    found = from_config({**LLAMA, "model_type": "novel"}, "new")
    assert found.layers == from_config(LLAMA, "known").layers
    assert "novel" in found.assumed[0]
    latent = from_config({**tiny.raw("deepseek_v3"), "model_type": "novel"}, "new")
    assert {layer.kind for layer in latent.layers} == {"mla"}


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        ({}, ["full"] * 4),  # which layers slide is not said: none counts too little
        ({"use_sliding_window": False, "sliding_window_pattern": 2}, ["full"] * 4),
        ({"use_sliding_window": True}, ["full"] * 4),
        ({"sliding_window_pattern": 2}, ["sliding", "full"] * 2),
        ({"global_attn_every_n_layers": 4}, ["sliding"] * 3 + ["full"]),
        ({"sliding_window_pattern": "LLLG"}, ["full"] * 4),
        ({"layer_types": ["sliding_attention"] * 3 + ["full_attention"]}, ["sliding"] * 3 + ["full"]),
    ],
)
def test_an_unknown_family_slides_only_where_its_config_says(given: dict[str, Any], kinds: list[str]) -> None:
    found = from_config({**LLAMA, "model_type": "novel", "sliding_window": 7, **given}, "new")
    assert [layer.kind for layer in found.layers] == kinds
    assert {layer.window for layer in found.layers if layer.kind == "sliding"} <= {7}
    unsaid = kinds == ["full"] * 4 and given.get("use_sliding_window", True)
    assert any("sliding_window" in note for note in found.assumed) == unsaid


@pytest.mark.parametrize(
    "kind",
    ["olmo3", "exaone4", "vaultgemma", "cwm", "afmoe", "exaone_moe", "dots1", "ministral", "starcoder2"],
)
def test_no_family_that_is_not_known_has_fewer_full_layers_than_in_transformers(kind: str) -> None:
    from transformers import CONFIG_MAPPING

    theirs = CONFIG_MAPPING[kind](num_hidden_layers=10)
    kinds = getattr(theirs, "layer_types", None) or ["full_attention"] * 10
    raw = {key: value for key, value in theirs.to_dict().items() if key != "layer_types"}
    needed = {"num_local_experts": 8, "num_experts_per_tok": 2} if kind == "dots1" else {}
    found = from_config({**raw, **needed}, kind)
    assert [layer.kind for layer in found.layers].count("full") >= kinds.count("full_attention")


@pytest.mark.parametrize(
    ("kind", "class_", "flat"),
    [
        ("qwen2_vl", "Qwen2VLForConditionalGeneration", True),
        ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", True),
        ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", False),
    ],
)
def test_the_language_model_of_qwen_vl_is_qwen2(kind: str, class_: str, flat: bool) -> None:
    """On the hub its fields stand beside those of the tower; transformers 5 writes them as a text_config."""
    import torch
    import transformers

    text = {**tiny.raw("qwen2"), "sliding_window": 16, "use_sliding_window": False, "max_window_layers": 4}
    config = transformers.CONFIG_MAPPING[kind](text_config={**text, "model_type": f"{kind}_text"})
    with torch.device("meta"):
        model = getattr(transformers, class_)(config)
    weights = sum(p.numel() for name, p in model.named_parameters() if "visual" not in name)
    raw = {**text, "model_type": kind, "vision_config": {"depth": 2}} if flat else config.to_dict()
    found = from_config(raw, kind)
    assert found.parameters == weights
    assert {layer.kind for layer in found.layers} == {"full"}
    assert "not counted" in found.assumed[0]


@pytest.mark.parametrize(
    "name", ["mamba", "bamba", "granitemoehybrid", "falcon_h1", "nemotron_h", "qwen3_next", "jamba"]
)
def test_an_unknown_family_that_keeps_states_is_not_guessed(name: str) -> None:
    with pytest.raises(ModelError, match="model_type novel is not known, and "):
        from_config({**tiny.raw(name), "model_type": "novel"}, "new")


@pytest.mark.parametrize("field", ["num_kv_shared_layers", "index_head_dim", "mamba_d_state", "v_head_dim"])
def test_an_unknown_family_whose_cache_differs_is_not_guessed(field: str) -> None:
    with pytest.raises(ModelError, match=f"{field} means that its cache is not a plain decoder's"):
        from_config({**LLAMA, "model_type": "novel", field: 2}, "new")
    assert from_config({**LLAMA, "model_type": "novel", field: 0}, "new").layers


@pytest.mark.parametrize("kind", ["bert", None])
def test_an_unknown_family_without_the_usual_fields_is_refused(kind: str | None) -> None:
    with pytest.raises(ModelError, match=r"num_hidden_layers, vocab_size are missing.*Known: .*llama"):
        from_config({"model_type": kind, "hidden_size": 8, "num_attention_heads": 2}, "odd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing .allowed: a whole number from 1"),
        ({"hidden_size": -64}, "hidden_size is -64"),
        ({"hidden_size": "64"}, 'hidden_size is "64"'),
        ({"hidden_size": 64.5}, "hidden_size is 64.5"),
        ({"num_hidden_layers": True}, "num_hidden_layers is true"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000 .allowed: at most 10000"),
        ({"vocab_size": []}, "vocab_size is "),
        (
            {"num_key_value_heads": 3},
            "num_key_value_heads is 3 .allowed: a divisor of num_attention_heads = 8",
        ),
        (
            {"num_attention_heads": 7, "num_key_value_heads": 7, "head_dim": None},
            "num_attention_heads is 7 .allowed: a divisor of hidden_size = 64",
        ),
        ({"head_dim": 0}, "head_dim is 0"),
        (
            {"layer_types": ["full_attention"]},
            "layer_types has 1 entries .allowed: one entry for each of the 4",
        ),
        (
            {"layer_types": ["full_attention"] * 3 + ["mystery"]},
            'layer_types has the entry "mystery" .allowed: full_attention',
        ),
        ({"layer_types": "full"}, 'layer_types is "full"'),
        ({"layer_types": ["sliding_attention"] * 4}, "sliding_window is missing"),
        ({"tie_word_embeddings": "yes"}, 'tie_word_embeddings is "yes" .allowed: true or false'),
        ({"model_type": 3}, "model_type is 3"),
        (
            {"num_kv_heads": 4},
            "num_key_value_heads is 2 and num_kv_heads, the same by another name, 4 .allowed: one value",
        ),
        ({"d_model": 2048}, "hidden_size is 64 and d_model, the same by another name, 2048"),
        ({"text_config": 3}, "text_config is no object"),
    ],
)
def test_bad_fields_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=f"config of it: {message}"):
        from_config({**LLAMA, **change}, "it")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mixtral", {"num_experts_per_tok": 5}, "num_experts_per_tok is 5 .allowed: at most"),
        (
            "qwen3_moe",
            {"mlp_only_layers": [9]},
            r"mlp_only_layers is \[9\] .allowed: a list of layers from 0 to 3",
        ),
        ("mamba2", {"num_heads": 7}, "num_heads is 7"),
        ("bamba", {"mamba_n_heads": 7}, "mamba_n_heads is 7"),
        ("bamba", {"attn_layer_indices": [4]}, r"attn_layer_indices is \[4\]"),
        (
            "jamba",
            {"attn_layer_offset": 4},
            "attn_layer_offset is 4 .allowed: less than attn_layer_period = 4",
        ),
        ("nemotron_h", {"num_hidden_layers": 4}, "num_hidden_layers is 4 .allowed: 5"),
        (
            "nemotron_h",
            {"layers_block_type": ["mamba", "x"]},
            "layers_block_type is missing or has another name",
        ),
        ("qwen3_next", {"linear_num_value_heads": 3}, "linear_num_value_heads is 3 .allowed: a multiple"),
        ("deepseek_v3", {"kv_lora_rank": None}, "kv_lora_rank is missing"),
        ("llama4", {"no_rope_layers": [1]}, "no_rope_layers has 1 entries"),
        ("llama4", {"no_rope_layers": 1}, "no_rope_layers is 1"),
    ],
)
def test_contradictions_within_a_family_are_named(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=f"config of it: {message}"):
        from_config({**tiny.raw(name), **change}, "it")


def test_nemotrons_pattern_is_read_as_its_list() -> None:
    listed = tiny.raw("nemotron_h")
    pattern = {key: value for key, value in listed.items() if key != "layers_block_type"}
    found = from_config({**pattern, "hybrid_override_pattern": "M-*EM"}, "it")
    assert found.layers == from_config(listed, "it").layers


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_no_field_can_be_so_wrong_that_its_error_is_not_ours(name: str) -> None:
    good = tiny.raw(name)
    for field in (
        *good,
        "sliding_window",
        "head_dim",
        "layer_types",
        "tie_word_embeddings",
        "attention_bias",
    ):
        for value in (None, -1, 0, 3, 1.5, "x", True, [], [[]], [None], {}, {"a": 1}):
            try:
                found = from_config({**good, field: value}, name)
            except ModelError:
                continue
            assert found.parameters > 0, (field, value)
            assert found.layers, (field, value)
