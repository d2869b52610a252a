"""How large LMCache must be to keep a wanted number of tokens for reuse, and the settings that say so.

Read from LMCache 0.5.6: `max_local_cpu_size`, `max_local_disk_size` (`local_cpu_backend.py`, `local_disk_backend.py`)
and `--l1-size-gb` (`distributed/config.py`) are multiplied by 2^30, so a "GB" is a GiB. In the engine's process every
GPU's worker has its own pool of that size; latent attention (MLA) is kept by the first worker alone. The server of
the multi-process mode has one pool for all. Chunks are whole, and each is aligned to 4 KiB.
"""

from __future__ import annotations

import math

from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.kv_cache import GIB, dtype_name, kv_cache, token_bytes
from goldpath.core.errors import SpecError
from goldpath.core.spec import Result

CHUNK = 256
"""LMCache's default `chunk_size`, in tokens."""
_ALIGNMENT = 4096
_STEP = 10
"""Settings are rounded up to a tenth of a GiB."""


class Offload(Result):
    """What LMCache needs for `tokens` reusable tokens; the same on CPU and on disk."""

    model: str
    dtype: str
    tokens: int
    """Rounded up to whole chunks."""
    chunk_size: int
    """Tokens."""
    chunks: int
    tensor_parallel: int
    chunk_bytes: int
    """Of one worker's chunk, aligned."""
    worker_bytes: int
    """Of one worker's pool."""
    total_bytes: int
    """Of all workers that keep a copy."""
    max_local_cpu_size: float
    """GiB, per worker: LMCACHE_MAX_LOCAL_CPU_SIZE, in the engine's process."""
    max_local_disk_size: float
    """GiB, per worker: LMCACHE_MAX_LOCAL_DISK_SIZE."""
    l1_size_gb: float
    """GiB, of the multi-process server: `lmcache server --l1-size-gb`."""


def offload(
    architecture: Architecture,
    tokens: int,
    dtype: str = "auto",
    tensor_parallel: int = 1,
    chunk_size: int = CHUNK,
) -> Offload:
    """Size LMCache's tiers.

    It keeps every token of every attention layer, whatever the layer's window: a chunk may be asked for again at any
    place of a prompt.

    Args:
        architecture: of the model.
        tokens: how many shall be reusable, over all prompts that share nothing.
        dtype: of the engine's cache, as for `kv_cache`.
        tensor_parallel: GPUs that share each layer.
        chunk_size: tokens a chunk.

    Raises:
        SpecError: a number below 1, or a model whose layers keep states: LMCache would silently garble its answers.
    """
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
        raise SpecError(f"chunk_size is {chunk_size!r}", "Give a whole number from 1.")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise SpecError(f"reuse_tokens is {tokens!r}", "Give a whole number from 1.")
    states = sum(layer.state is not None for layer in architecture.layers)
    if states:
        raise SpecError(
            f"{architecture.name} has {states} layers that keep a state (Mamba, linear attention, convolution), which "
            "LMCache cannot cut into chunks: reuse would silently garble answers",
            "Leave LMCache off for this model, choose one with attention alone, or try its multi-process mode with the "
            "flags for hybrid models, which this does not size.",
        )
    name = dtype_name(dtype, architecture)
    kv_cache(
        architecture, tokens, name, tensor_parallel
    )  # refuses GPUs that the heads cannot be shared among
    kept = [layer for layer in architecture.layers if layer.kind != "none"]
    per_token = sum(token_bytes(layer, name, tensor_parallel) for layer in kept)
    chunks = -(-tokens // chunk_size)
    chunk = _ALIGNMENT * -(-per_token * chunk_size // _ALIGNMENT)
    worker = chunks * chunk
    keepers = 1 if any(layer.kind == "mla" for layer in kept) else tensor_parallel
    return Offload(
        model=architecture.name,
        dtype=name,
        tokens=chunks * chunk_size,
        chunk_size=chunk_size,
        chunks=chunks,
        tensor_parallel=tensor_parallel,
        chunk_bytes=chunk,
        worker_bytes=worker,
        total_bytes=worker * keepers,
        max_local_cpu_size=_gib(worker),
        max_local_disk_size=_gib(worker),
        l1_size_gb=_gib(worker * keepers),
    )


def _gib(size: int) -> float:
    return math.ceil(size * _STEP / GIB) / _STEP
