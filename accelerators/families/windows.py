"""Which layers look at the whole context and which at a window of it, family by family."""

from __future__ import annotations

from goldpath.accelerators.fields import Fields
from goldpath.accelerators.layers import Kind

Windows = list[tuple[Kind, int]]
_NAMES: dict[str, Kind] = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
}
_PATTERNS = ("sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers")
"""Of an unknown family: every so-manieth layer is full."""
_SIZE_OF: dict[Kind, str] = {"sliding": "sliding_window", "chunked": "attention_chunk_size"}


def _sized(fields: Fields, kinds: list[Kind]) -> Windows:
    return [(kind, fields.size(_SIZE_OF[kind]) if kind in _SIZE_OF else 0) for kind in kinds]


def _listed(fields: Fields, count: int) -> Windows | None:
    names = fields.names("layer_types", _NAMES, count)
    return None if names is None else _sized(fields, [_NAMES[name] for name in names])


def all_full(fields: Fields, count: int) -> Windows:
    """No windows, whatever else the config says."""
    return [("full", 0)] * count


def from_config(fields: Fields, count: int) -> Windows:
    """`layer_types` where it is given, else full attention."""
    return _listed(fields, count) or all_full(fields, count)


def all_sliding(fields: Fields, count: int) -> Windows:
    """Every layer slides where `sliding_window` is given (Mistral, Mixtral, Phi-3)."""
    kind: Kind = "full" if fields.get("sliding_window") is None else "sliding"
    return _listed(fields, count) or _sized(fields, [kind] * count)


def when_used(fields: Fields, count: int) -> Windows:
    """Layers from `max_window_layers` on, only where `use_sliding_window` is set (Qwen2, Qwen3)."""
    if not fields.flag("use_sliding_window") or fields.get("sliding_window") is None:
        return from_config(fields, count)
    first = fields.size("max_window_layers", least=0)
    kinds: list[Kind] = ["sliding" if index >= first else "full" for index in range(count)]
    return _listed(fields, count) or _sized(fields, kinds)


def all_when_used(fields: Fields, count: int) -> Windows:
    """Every layer, only where `use_sliding_window` is set (Qwen3-MoE)."""
    return all_sliding(fields, count) if fields.flag("use_sliding_window") else from_config(fields, count)


def alternating(fields: Fields, count: int) -> Windows:
    """Sliding and full in turn (Gemma 2, gpt-oss)."""
    kinds: list[Kind] = ["full" if index % 2 else "sliding" for index in range(count)]
    return _listed(fields, count) or _sized(fields, kinds)


def every_nth_full(fields: Fields, count: int) -> Windows:
    """Every `sliding_window_pattern`-th layer is full, the others slide (Gemma 3)."""
    return _listed(fields, count) or _sized(fields, _periodic(fields.size("sliding_window_pattern"), count))


def every_fourth_full(fields: Fields, count: int) -> Windows:
    """As `every_nth_full`, where the config need not say which (Cohere 2)."""
    period = fields.size("sliding_window_pattern", default=4)
    return _listed(fields, count) or _sized(fields, _periodic(period, count))


def even_when_used(fields: Fields, count: int) -> Windows:
    """Every other layer before `max_window_layers`, only where `use_sliding_window` is set (Qwen2-MoE)."""
    if not fields.flag("use_sliding_window"):
        return from_config(fields, count)
    before = fields.size("max_window_layers", least=0)
    kinds: list[Kind] = ["full" if index % 2 or index >= before else "sliding" for index in range(count)]
    return _listed(fields, count) or _sized(fields, kinds)


def guessed(fields: Fields, count: int) -> Windows:
    """Of an unknown family: windows only where the config says in which layers.

    A `sliding_window` alone says it not: some families slide everywhere, some in some layers, and many never use it. To
    count such layers as full is too much at worst; to count full ones as sliding would be far too little.
    """
    listed = _listed(fields, count)
    if listed:
        return listed
    patterns = [value for key in _PATTERNS if (value := fields.get(key)) is not None]
    period = patterns[0] if patterns else None
    used = fields.get("sliding_window") and fields.flag("use_sliding_window", True)
    if not used or isinstance(period, bool) or not isinstance(period, int) or period < 1:
        return all_full(fields, count)
    return _sized(fields, _periodic(period, count))


def _periodic(period: int, count: int) -> list[Kind]:
    return ["sliding" if (index + 1) % period else "full" for index in range(count)]


def chunks(fields: Fields, count: int) -> Windows:
    """Chunked where there are positions, full where there are none (Llama 4)."""
    given = fields.get("no_rope_layers")
    period = fields.size("no_rope_layer_interval")
    flags = given or [int((index + 1) % period != 0) for index in range(count)]
    if not isinstance(flags, list) or len(flags) != count:
        given = f"has {len(flags)} entries" if isinstance(flags, list) else f"is {flags!r}"
        raise fields.wrong("no_rope_layers", given, f"one for each of the {count} layers")
    kinds: list[Kind] = ["chunked" if rope else "full" for rope in flags]
    if fields.get("attention_chunk_size") is None:
        return _listed(fields, count) or all_full(fields, count)
    return _listed(fields, count) or _sized(fields, kinds)


def without_positions(fields: Fields, count: int) -> Windows:
    """Full attention, unless `use_sliding_window` makes the layers without positions slide (SmolLM3)."""
    if not fields.flag("use_sliding_window") or fields.get("sliding_window") is None:
        return from_config(fields, count)
    period = fields.size("no_rope_layer_interval", default=4)
    kinds: list[Kind] = ["full" if (index + 1) % period else "sliding" for index in range(count)]
    return _listed(fields, count) or _sized(fields, kinds)
