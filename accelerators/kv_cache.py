"""How many bytes a model's cache takes, exactly, by its architecture; and by the formula of a popular calculator.

Per layer and token, over keys and values:

- multi-head, grouped-query (arXiv 2305.13245) and multi-query attention (arXiv 1911.02150):
  `2 * kv_heads * head_dim` elements;
- multi-head latent attention (arXiv 2405.04434): `kv_lora_rank + qk_rope_head_dim` elements, one vector for keys and
  values of all heads, so no factor 2;
- sliding-window and chunked attention: as above, but for at most `window` tokens;
- Mamba, linear-attention and convolution layers: nothing; they keep a state of fixed size per sequence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from goldpath.accelerators.architecture import Architecture, Layer
from goldpath.accelerators.layers import Kind, StateCache
from goldpath.core.errors import SpecError
from goldpath.core.spec import Result

Formula = Literal["architecture", "naive"]
DTYPES = {"fp32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "int4": 4}
"""Name to bits. Scales of quantised caches are not counted: engines keep one a head or a layer."""
_ALIASES = {
    "float32": "fp32",
    "float": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
}
GIB = 2**30


class LayerGroup(Result):
    """Layers that hold the same, on one GPU, of one sequence."""

    kind: Kind
    layers: int
    window: int
    """Tokens; 0 without one."""
    tokens: int
    """Tokens held; 0 for a state alone."""
    bytes_per_token: int
    """Over all layers of the group, while a window is not full."""
    state_bytes: int
    """Over all layers of the group."""
    bytes_total: int


class KvCache(Result):
    """A cache's size on one GPU.

    `bytes_total = sequences * (bytes_per_token * tokens + bytes_constant)`, always.
    """

    model: str
    formula: Formula
    dtype: str
    tokens: int
    """Per sequence."""
    sequences: int
    tensor_parallel: int
    bytes_per_token: int
    """What one more token of a sequence adds once every window is full: the layers that keep all tokens."""
    bytes_constant: int
    """Per sequence, beside that: the states, and the windows' layers with `min(tokens, window)` tokens. So it grows
    with `tokens` while a window is not full, and is constant from there on."""
    bytes_total: int
    groups: tuple[LayerGroup, ...] = ()
    """Empty for the naive formula, which knows no kinds."""
    notes: tuple[str, ...] = ()


def dtype_name(given: str, architecture: Architecture | None = None) -> str:
    """The name in `DTYPES`; `auto` is what the model computes in.

    Raises:
        SpecError: an unknown one.
    """
    name = given.strip().lower().removeprefix("torch.")
    if name == "auto" and architecture is not None:
        return architecture.dtype
    name = _ALIASES.get(name, name)
    if name not in DTYPES:
        raise SpecError(f"dtype is {given!r}", f"Use one of {', '.join(DTYPES)}, or auto.")
    return name


def kv_cache(
    architecture: Architecture,
    tokens: int,
    dtype: str = "auto",
    tensor_parallel: int = 1,
    sequences: int = 1,
    formula: Formula = "architecture",
) -> KvCache:
    """The size of a cache on each of `tensor_parallel` GPUs.

    Under tensor parallelism a GPU holds `max(1, kv_heads / tensor_parallel)` heads of a layer; latent attention is
    held whole by each. States are split by their heads.

    Args:
        architecture: of the model.
        tokens: per sequence, prompt and answer together.
        dtype: of keys and values, a name of `DTYPES`, a usual other name of it, or `auto`: what the model
            computes in. A quantised cache leaves states in the model's own dtype.
        tensor_parallel: GPUs that share each layer.
        sequences: how many there are at once, all of `tokens` tokens.
        formula: `naive` is `2 * layers * hidden_size * bytes * tokens`: every query head with keys and values of its
            own, which hardly any model still has.

    Raises:
        SpecError: a number below 1, an unknown dtype or formula, or GPUs that the heads cannot be shared among.
    """
    for name, value in (("tokens", tokens), ("tp", tensor_parallel), ("sequences", sequences)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SpecError(f"{name} is {value!r}", "Give a whole number from 1.")
    name = dtype_name(dtype, architecture)
    if formula == "naive":
        return _naive(architecture, tokens, name, tensor_parallel, sequences)
    if formula != "architecture":
        raise SpecError(f"formula is {formula!r}", "Use architecture or naive.")
    groups = _groups(architecture, tokens, name, tensor_parallel)
    growing = [group for group in groups if group.kind in ("full", "mla")]
    per_token = sum(group.bytes_per_token for group in growing)
    constant = sum(group.bytes_total for group in groups) - per_token * tokens
    return KvCache(
        model=architecture.name,
        formula=formula,
        dtype=name,
        tokens=tokens,
        sequences=sequences,
        tensor_parallel=tensor_parallel,
        bytes_per_token=per_token,
        bytes_constant=constant,
        bytes_total=sequences * (per_token * tokens + constant),
        groups=tuple(groups),
        notes=_notes(architecture, tokens),
    )


def token_bytes(layer: Layer, dtype: str, tensor_parallel: int = 1) -> int:
    """Bytes of one token in one layer on one GPU, whatever its window.

    Args:
        layer: of the model.
        dtype: a name of `DTYPES`.
        tensor_parallel: GPUs that share it.
    """
    return _bytes(_local_elements(layer, tensor_parallel), dtype)


def _naive(
    architecture: Architecture, tokens: int, dtype: str, tensor_parallel: int, sequences: int
) -> KvCache:
    elements = 2 * len(architecture.layers) * architecture.hidden_size
    per_token = _bytes(-(-elements // tensor_parallel), dtype)
    return KvCache(
        model=architecture.name,
        formula="naive",
        dtype=dtype,
        tokens=tokens,
        sequences=sequences,
        tensor_parallel=tensor_parallel,
        bytes_per_token=per_token,
        bytes_constant=0,
        bytes_total=sequences * per_token * tokens,
    )


def _groups(architecture: Architecture, tokens: int, dtype: str, tensor_parallel: int) -> list[LayerGroup]:
    _check_heads(architecture, tensor_parallel)
    alike: dict[tuple[object, ...], list[Layer]] = {}
    for layer in architecture.layers:
        alike.setdefault(_cached(layer), []).append(layer)
    groups = []
    for layer, count in ((layers[0], len(layers)) for layers in alike.values()):
        held = 0 if layer.kind in ("state", "none") else min(tokens, layer.window or tokens)
        per_token = count * token_bytes(layer, dtype, tensor_parallel)
        state = count * _state_bytes(layer.state, dtype, architecture.dtype, tensor_parallel)
        groups.append(
            LayerGroup(
                kind=layer.kind,
                layers=count,
                window=layer.window,
                tokens=held,
                bytes_per_token=per_token,
                state_bytes=state,
                bytes_total=per_token * held + state,
            )
        )
    return groups


def _cached(layer: Layer) -> tuple[object, ...]:
    """What its cache depends on."""
    latent = (layer.kv_lora_rank, layer.qk_rope_head_dim)
    return (layer.kind, layer.window, layer.kv_heads, layer.head_dim, layer.value_dim, latent, layer.state)


def _bytes(elements: int, dtype: str) -> int:
    return -(-elements * DTYPES[dtype] // 8)


def _local_elements(layer: Layer, tensor_parallel: int) -> int:
    if layer.kind == "mla":
        return layer.per_token
    return max(1, layer.kv_heads // tensor_parallel) * (layer.head_dim + layer.value_dim)


def _state_bytes(state: StateCache | None, dtype: str, stored: str, tensor_parallel: int) -> int:
    """Bytes of one layer's state: quantisation of the cache does not reach it."""
    if state is None:
        return 0
    computed = dtype if DTYPES[dtype] >= 16 else stored
    heads = state.heads // tensor_parallel
    groups = max(1, state.groups // tensor_parallel) if state.groups else 0
    conv = heads * state.conv_per_head + groups * state.conv_per_group
    return _bytes(conv, state.conv_dtype or computed) + _bytes(
        heads * state.recurrent_per_head, state.recurrent_dtype or computed
    )


def _check_heads(architecture: Architecture, tensor_parallel: int) -> None:
    for layer in architecture.layers:
        state = layer.state
        bad = (
            _indivisible("attention heads", [layer.heads], tensor_parallel)
            or (_unshared("key-value heads", layer.kv_heads, tensor_parallel) if layer.kind != "mla" else "")
            or (_indivisible("state heads", [state.heads], tensor_parallel) if state else "")
            or (_unshared("state groups", state.groups, tensor_parallel) if state else "")
        )
        if bad:
            raise SpecError(f"tp is {tensor_parallel}, but {architecture.name} has {bad}", "Use a divisor.")


def _indivisible(what: str, counts: Iterable[int], tensor_parallel: int) -> str:
    return next((f"{count} {what}" for count in counts if count % tensor_parallel), "")


def _unshared(what: str, count: int, tensor_parallel: int) -> str:
    if not count or count % tensor_parallel == 0 or tensor_parallel % count == 0:
        return ""
    return f"{count} {what}"


def _notes(architecture: Architecture, tokens: int) -> tuple[str, ...]:
    notes = list(architecture.assumed)
    if architecture.max_positions and tokens > architecture.max_positions:
        notes.append(f"the config allows {architecture.max_positions:,} tokens")
    return tuple(notes)
