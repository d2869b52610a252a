"""Does the memory of data preparation grow with the data? Peak resident memory for two sizes, each in its own process.

Run: `python benchmarks/bench_prepare_memory.py [--small 20000 --large 200000]`. Prints the ratio of the two peaks and
writes `benchmarks/results/prepare_memory.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "prepare_memory.json"
WORDS = [a + b for a in "bcdfghklmnprstvwz" for b in ("an", "erk", "ilt", "osh", "um", "ay", "eno", "ido")]


def generate(path: Path, rows: int) -> None:
    """Chats of about 60 words: one in ten a near-duplicate, one in twenty with an address, 40 rows a group."""
    rng = random.Random(7)
    prompt = answer = ""
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            if number % 10 == 9:
                answer += " once"
            else:
                prompt, answer = " ".join(rng.choices(WORDS, k=10)), " ".join(rng.choices(WORDS, k=50))
            if number % 20 == 7:
                answer += f" write to user{number}@example.org"
            row = {"prompt": prompt, "completion": answer, "group": f"g{number // 40}"}
            file.write(json.dumps(row) + "\n")


def measure(source: str) -> dict[str, float]:
    """Prepare `source` here; seconds and peak memory of this process."""
    from goldpath.training.datasets import prepare
    from goldpath.training.specs import DatasetSpec

    began = time.monotonic()
    done = prepare(DatasetSpec(source=source))
    return {
        "rows_in": done.result.rows_in,
        "rows_out": done.result.rows_out,
        "seconds": round(time.monotonic() - began, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def main() -> None:
    """Generate, measure in child processes, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=20_000)
    parser.add_argument("--large", type=int, default=200_000)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    sizes = {}
    for rows in (given.small, given.large):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "data.jsonl"
            generate(source, rows)
            child = subprocess.run(
                [sys.executable, __file__, "--measure", str(source)],
                env={**os.environ, "GOLDPATH_HOME": folder},
                stdout=subprocess.PIPE,
                check=True,
            )
        sizes[rows] = json.loads(child.stdout)
        print(f"{rows:>9,} rows: {sizes[rows]}")
    ratio = round(sizes[given.large]["peak_mib"] / sizes[given.small]["peak_mib"], 3)
    print(f"{given.large / given.small:g} times the rows take {ratio} times the memory")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"runs": list(sizes.values()), "memory_ratio": ratio}, indent=2) + "\n")


if __name__ == "__main__":
    main()
