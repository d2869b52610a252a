"""Is the estimate of training memory right? Real optimizer steps, and torch's MemTracker, against `estimate`.

Run: `python benchmarks/bench_training_memory.py [--device cuda] [--skip-tracker]`. Builds models from their configs
with random weights, runs two optimizer steps of each combination through `goldpath.training.loop`'s own trainer in a
child process, and takes the process's peak resident memory (on a GPU what PyTorch allocated and reserved). Nothing is
subtracted: the estimate has to name the process's own memory too. The last rows are larger models under
torch.distributed._tools.mem_tracker, an instrument that we did not write, with fake tensors that take no memory.
Prints estimate and measurement and writes `benchmarks/results/training_memory.json`.

glibc is told to give large blocks back (MALLOC_MMAP_THRESHOLD_, MALLOC_ARENA_MAX), so that resident memory follows the
tensors. A training that is not told so holds a little more.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from training_memory_models import LARGE, SMALL, Combination

RESULTS = Path(__file__).parent / "results" / "training_memory.json"
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "65536"}
MIB = 2**20


def estimated(case: Combination, device: str) -> Any:
    """The estimate that `goldpath plan` gives."""
    from goldpath.accelerators.architecture import from_config
    from goldpath.accelerators.training_memory import estimate

    return estimate(from_config(case.config, case.name), case.shape(device))


def high_water() -> int:
    """This process's peak resident memory, bytes (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise SystemExit("error: no VmHWM in /proc/self/status; this needs Linux.")


def train(case: Combination, folder: Path, steps: int = 2) -> None:
    """Run a few optimizer steps through the trainer of `goldpath.training.loop`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from goldpath.training import loop, packing
    from goldpath.training.job import Job
    from goldpath.training.specs import TrainSpec

    spec = TrainSpec(max_steps=steps, evaluate_steps=1000, **case.spec)
    exact = spec.method == "full" or spec.precision == "fp32"
    config = AutoConfig.for_model(**case.config)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32 if exact else torch.bfloat16, attn_implementation="sdpa"
    )
    count = steps * spec.batch_size * spec.gradient_accumulation
    job = Job(spec=spec, frame=folder, base=folder, out=folder / "out", save_model=False)
    job.out.mkdir(parents=True, exist_ok=True)
    sequences = packing.Sequences(case.sequences(count), count, random.Random(0))
    collate = packing.collator(0)
    recorder = loop.Recorder(job, sequences, [], collate)
    trainer = loop._trainer(job, model, tokenizer(), sequences, collate, recorder)
    trainer.train()


def tokenizer() -> Any:
    """A tokenizer of three words: the sequences are made of numbers already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "a": 2}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>")


def measure(case: Combination, device: str) -> dict[str, int]:
    """Train here; peak bytes of this process, and what it holds without the model."""
    from goldpath.training.worker import QUIET

    os.environ.update(QUIET)
    with tempfile.TemporaryDirectory() as folder:
        train(case.tiny(), Path(folder))  # loads all code, and starts all threads
        gc.collect()
        if device == "cuda":
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            train(case, Path(folder))
            return {
                "measured": torch.cuda.max_memory_allocated(),
                "reserved": torch.cuda.max_memory_reserved(),
            }
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM starts again
        process = high_water()
        train(case, Path(folder))
        return {"measured": high_water(), "process": process}


def child(words: list[str]) -> dict[str, Any]:
    """The last line that this program says, started with `words` in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *words],
        env={**os.environ, **MALLOC, "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"error: {' '.join(words)} ended with {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.decode().strip().splitlines()[-1])
    return found


def row(case: Combination, device: str, instrument: str, found: dict[str, int]) -> dict[str, Any]:
    """One line of the table: bytes, and the error relative to what was measured."""
    guess = estimated(case, device)
    # A GPU's context and the tracker's process are not among what is measured.
    wanted = guess.total if instrument == "resident memory" else guess.tensors
    error = wanted / found["measured"] - 1
    print(
        f"{case.label:<58} {wanted / MIB:>9,.0f} {found['measured'] / MIB:>9,.0f} {error:>+7.1%}  "
        f"{found.get('process', 0) / MIB:>6,.0f}  {guess.peak}",
        flush=True,
    )
    return {
        "combination": case.label,
        "instrument": instrument,
        "estimate": wanted,
        **found,
        "error": round(error, 4),
        "peak": guess.peak,
        "components": guess.components,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean absolute error, and the worst in both directions."""
    errors = [one["error"] for one in rows]
    return {
        "combinations": len(rows),
        "mean_absolute_error": round(sum(map(abs, errors)) / len(errors), 4),
        "largest_underestimate": round(min(0.0, *errors), 4),
        "largest_overestimate": round(max(0.0, *errors), 4),
    }


def main() -> None:
    """Measure in child processes, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--skip-tracker", action="store_true", help="no larger models under MemTracker")
    parser.add_argument("--only", type=int, help="one combination, by its number from 0")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--track", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure is not None:
        print(json.dumps(measure(SMALL[given.measure], given.device)))
        return
    if given.track is not None:
        from training_memory_tracker import track

        print(json.dumps({"measured": track(LARGE[given.track])}))
        return
    instrument = "resident memory" if given.device == "cpu" else "max_memory_allocated"
    print(f"{'combination':<58} {'estimate':>9} {'measured':>9} {'error':>7} {'process':>7}  peak (MiB)")
    numbers = range(len(SMALL)) if given.only is None else [given.only]
    small = [
        row(SMALL[n], given.device, instrument, child(["--measure", str(n), "--device", given.device]))
        for n in numbers
    ]
    large = []
    if not given.skip_tracker and given.only is None:
        print("\nMemTracker, fake tensors:")
        large = [row(LARGE[n], "cpu", "MemTracker", child(["--track", str(n)])) for n in range(len(LARGE))]
    report = {"device": given.device, instrument: summary(small)}
    if large:
        report["MemTracker"] = summary(large)
    print("\n" + json.dumps(report, indent=2))
    if given.only is None:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps({**report, "rows": small + large}, indent=2) + "\n")


if __name__ == "__main__":
    main()
