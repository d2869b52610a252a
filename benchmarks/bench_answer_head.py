"""What does it gain to project onto the vocabulary for answer tokens alone? A LoRA training step, both ways in turns.

Run: `python benchmarks/bench_answer_head.py [--steps 10 --model FOLDER]`, after a run has brought in a base model. Both
ways take the same batches in the same process, so that whatever else is busy slows both. Prints tokens per second and
their ratio, and writes `benchmarks/results/answer_head.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "answer_head.json"
WARM_UP = 2


def first_model() -> Path:
    """The base model that a run left here."""
    from goldpath.core.settings import state

    found = sorted(state("store", "base-model").glob("*/model"))
    if not found:
        raise SystemExit("there is no base model: `goldpath run finetune` brings one in, or give --model")
    return found[0]


def batches(tokenizer: Any, spec: Any, count: int) -> list[dict[str, Any]]:
    """Packed batches of the built-in data set, as a training takes them."""
    from goldpath.training import datasets, packing
    from goldpath.training.specs import DatasetSpec

    sequences = packing.training_sequences(
        datasets.prepare(DatasetSpec()).path / "documents.parquet",
        tokenizer,
        count=count * spec.batch_size,
        length=spec.sequence_length,
        packing=True,
        answer_only=True,
        seed=spec.seed,
    )
    collate = packing.collator(tokenizer.pad_token_id)
    starts = range(0, len(sequences), spec.batch_size)
    return [
        {
            **collate([sequences[at + i] for i in range(spec.batch_size)]),
            "tokens": sequences.tokens(at, at + spec.batch_size),
        }
        for at in starts
    ]


def measure(folder: Path, steps: int) -> dict[str, Any]:
    """Steps with the answer head and with every position scored, one after the other on each batch."""
    import torch
    from peft import get_peft_model

    from goldpath.training import modeling
    from goldpath.training.specs import TrainSpec

    spec = TrainSpec()
    torch.manual_seed(spec.seed)
    tokenizer = modeling.load_tokenizer(folder)
    taken = batches(tokenizer, spec, steps + WARM_UP)
    model = get_peft_model(modeling.load_model(folder, spec), modeling.lora(spec)).train()
    head = modeling.AnswerHead(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)

    def answers(batch: dict[str, Any]) -> Any:
        sums = head.sums(model, batch)
        return sums.nll / sums.tokens

    def every_position(batch: dict[str, Any]) -> Any:
        inputs = {name: batch[name] for name in ("input_ids", "labels", "position_ids")}
        return model(**inputs, use_cache=False).loss

    def seconds(loss_of: Callable[[dict[str, Any]], Any], batch: dict[str, Any]) -> tuple[float, float]:
        began = time.perf_counter()
        loss = loss_of(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - began, float(loss.detach())

    speeds: dict[str, list[float]] = {"answers": [], "every_position": []}
    for number, batch in enumerate(taken):
        ways = [answers, every_position][:: 1 if number % 2 else -1]  # neither is always the first
        took = {way.__name__: seconds(way, batch) for way in ways}
        one, other = (took[name][1] for name in speeds)
        if abs(one - other) > 0.02 * other:
            raise SystemExit(f"the two ways disagree: loss {one:.4f} and {other:.4f}")
        if number >= WARM_UP:
            for name, (spent, _) in took.items():
                speeds[name].append(batch["tokens"] / spent)
    ratios = [a / b for a, b in zip(speeds["answers"], speeds["every_position"], strict=True)]
    return {
        "model": folder.parent.name,
        "precision": modeling.precision(spec.precision),
        "threads": torch.get_num_threads(),
        "batch_size": spec.batch_size,
        "sequence_length": spec.sequence_length,
        "steps": steps,
        "scored_share": round(
            sum(int((batch["labels"] != -100).sum()) for batch in taken) / sum(b["tokens"] for b in taken), 3
        ),
        **{f"{name}_tokens_per_second": round(statistics.median(found), 1) for name, found in speeds.items()},
        "ratio": round(statistics.median(ratios), 3),
    }


def main() -> None:
    """Measure on the CPU, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--model", type=Path, help="model folder; the first of GOLDPATH_HOME if left out")
    given = parser.parse_args()
    found = measure(given.model or first_model(), given.steps)
    for name, value in found.items():
        print(f"{name:>32}: {value}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
