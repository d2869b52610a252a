"""How often the golden path's cluster work ends as it should where a fifth of all requests goes wrong.

    .venv/bin/python benchmarks/bench_cluster_faults.py [--runs 200]

Runs `tests/e2e/test_golden_path_faults.py` with that many runs, each compared with one without faults: the same
results, no object made twice, none left behind. Writes benchmarks/results/cluster_faults.json where all of them do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "cluster_faults.json"


def main() -> int:
    """Run, tell and keep; the exit code is pytest's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    asked = parser.parse_args()
    test = str(ROOT / "tests" / "e2e" / "test_golden_path_faults.py")
    fresh = RESULT.with_suffix(".new")
    began = time.perf_counter()
    code = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "3000", test],
        cwd=ROOT,
        env={**os.environ, "GOLDPATH_FAULT_RUNS": str(asked.runs), "GOLDPATH_FAULT_RESULTS": str(fresh)},
        check=False,
    ).returncode
    if code:
        return code
    told = {**json.loads(fresh.read_text()), "seconds": round(time.perf_counter() - began, 1)}
    fresh.unlink()
    told["as_without_faults"] = told["runs"]
    RESULT.write_text(json.dumps(told, indent=2) + "\n")
    print(
        f"{told['runs']} of {told['runs']} runs ended as without faults: {sum(told['faults'].values())} faults"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
