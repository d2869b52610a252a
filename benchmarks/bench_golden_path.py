"""The golden path with its defaults, as a stranger meets it: a first run, the same again, and one killed and resumed.

Run: `make bench` (or `python benchmarks/bench_golden_path.py [--keep FOLDER]`), on an otherwise idle machine: a
quarter of an hour. Prints four ratios, each against a baseline of the same run, and writes
`benchmarks/results/golden_path.json`, from which the README's table is made (`--readme` writes it there).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "golden_path.json"
BLOCK = re.compile(r"(<!-- figures -->\n).*?(<!-- end of figures -->)", re.DOTALL)


class Peak(threading.Thread):
    """Watches the resident memory of all that work in `home` until a process ends: the endpoint too, which is nobody's
    child. Shared pages count once a process."""

    def __init__(self, pid: int, home: Path) -> None:
        super().__init__(daemon=True)
        self.root, self.home, self.bytes = psutil.Process(pid), home, 0

    def run(self) -> None:
        """Look twice a second until it ends."""
        while self.root.is_running() and self.root.status() != psutil.STATUS_ZOMBIE:
            self.bytes = max(self.bytes, sum(map(resident, at_work(self.home))))
            time.sleep(0.5)


def at_work(home: Path) -> set[psutil.Process]:
    """Every process whose GOLDPATH_HOME is `home`, with its descendants: an engine knows nothing of ours."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("GOLDPATH_HOME") == str(home):
                found |= {process, *process.children(recursive=True)}
    return found


def resident(process: psutil.Process) -> int:
    """Bytes in memory, 0 for one that has ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def start(home: Path, *words: str) -> subprocess.Popen[str]:
    """`goldpath WORDS` with its state in `home`."""
    command = [sys.executable, "-m", "goldpath.cli.main", *words]
    environment = {**os.environ, "GOLDPATH_HOME": str(home)}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def run(home: Path, *words: str) -> dict[str, Any]:
    """Run to the end: what `--json` tells, its own seconds among it, and peak memory."""
    process = start(home, *words, "--json")
    peak = Peak(process.pid, home)
    peak.start()
    told, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"goldpath {' '.join(words)} failed:\n{told}")
    peak.join()
    outcome = json.loads(told)
    return {**outcome, "peak_gib": round(peak.bytes / 2**30, 2)}


def results(home: Path, name: str) -> dict[str, dict[str, Any]]:
    """The steps' result files of a run."""
    folder = home / "runs" / name / "results"
    return {file.stem: json.loads(file.read_text("utf-8")) for file in folder.glob("*.json")}


def killed(first: Path, home: Path) -> str:
    """Start the same run where all from its fine-tuning on is still to be done, and SIGKILL all of it half-way."""
    later = shutil.ignore_patterns("fine-tune", "evaluation", "score", "*.lock")
    shutil.copytree(first / "store", home / "store", ignore=later)
    process = start(home, "run", "finetune", "-n", "killed")
    events = home / "runs" / "killed" / "events.jsonl"
    while process.poll() is None:
        text = events.read_text("utf-8") if events.exists() else ""
        rows = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        at = [row["done"] for row in rows if row["kind"] == "progress" and row["label"] == "Fine-tuning"]
        if at and at[-1] >= 15:
            for one in at_work(home):
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(signal.SIGKILL)
            process.wait()
            return f"step {at[-1]:.0f}"
        time.sleep(0.2)
    raise SystemExit("the run ended before it could be killed")


def measure(home: Path) -> dict[str, Any]:
    """All phases."""
    first = run(home / "a", "run", "finetune", "-n", "first")
    steps = results(home / "a", "first")
    print(f"first run: {first['seconds']} s, at most {first['peak_gib']} GiB", flush=True)
    again = run(home / "a", "run", "finetune", "-n", "again")
    reused = sorted(name for name, step in results(home / "a", "again").items() if step["reused"])
    print(f"the same again: {again['seconds']} s, reused {', '.join(reused)}", flush=True)
    run_endpoints_stop(home / "a")
    at = killed(home / "a", home / "b")
    resumed = run(home / "b", "run", "--resume", "killed")
    run_endpoints_stop(home / "b")
    after = results(home / "b", "killed")
    print(f"killed at {at}, resumed: {resumed['seconds']} s", flush=True)
    ttft = {one["name"]: median(one["ttft_seconds"]) for one in steps["probe"]["result"]["timings"]}
    trained, retrained = steps["fine_tune"]["result"], after["fine_tune"]["result"]
    evaluation = first["evaluation"]
    return {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "first": {
            "seconds": first["seconds"],
            "peak_gib": first["peak_gib"],
            "steps": {name: step["seconds"] for name, step in sorted(steps.items())},
        },
        "again": {"seconds": again["seconds"], "reused": reused},
        "resumed": {
            "killed_at": at,
            "seconds": resumed["seconds"],
            "resumed_from": retrained["resumed_from"],
            "reused": sorted(name for name, step in after.items() if step["reused"]),
            "eval_loss": retrained["eval_loss"],
            "eval_loss_uninterrupted": trained["eval_loss"],
            "same_weights": retrained["model_digest"] == trained["model_digest"],
        },
        "loss": {"base": evaluation["base"]["loss"], "tuned": evaluation["tuned"]["loss"]},
        "ttft_seconds": ttft,
        "tokens_per_second": steps["probe"]["result"]["tokens_per_second"],
        "ratios": {
            "loss_tuned_to_base": round(evaluation["tuned"]["loss"] / evaluation["base"]["loss"], 3),
            "ttft_cold_to_repeated": round(ttft["cold"] / ttft["repeated"], 1),
            "first_to_again": round(first["seconds"] / again["seconds"], 1),
            "resumed_to_uninterrupted_loss": round(retrained["eval_loss"] / trained["eval_loss"], 6),
        },
    }


def run_endpoints_stop(home: Path) -> None:
    """Stop what was deployed."""
    start(home, "endpoints", "stop", "kube-assistant").communicate()


def table(found: dict[str, Any]) -> str:
    """The README's table."""
    first, ttft, loss, resumed = found["first"], found["ttft_seconds"], found["loss"], found["resumed"]
    same = "the same weights, bit for bit" if resumed["same_weights"] else "not the same weights"
    rows = (
        ("the run after installation", f"{first['seconds']:.0f} s, {first['peak_gib']:.1f} GiB at most"),
        ("the same run again", f"{found['again']['seconds']:.0f} s"),
        ("held-out loss, base to tuned", f"{loss['base']:.2f} to {loss['tuned']:.2f} "
                                         f"({loss['tuned'] / loss['base'] - 1:+.0%})"),
        ("first token of a 2,000-token context, cold to repeated", f"{ttft['cold']:.2f} s to "
         f"{ttft['repeated']:.2f} s ({found['ratios']['ttft_cold_to_repeated']:.0f}x)"),
        (f"killed at {resumed['killed_at']} of the fine-tuning, then resumed", same),
    )  # fmt: skip
    lines = [f"| on {found['machine']['cores']} cores, no GPU | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows)]) + "\n"


def missed(found: dict[str, Any]) -> list[str]:
    """Which of the bounds that the project promises on 2 cores do not hold."""
    first, ratios = found["first"], found["ratios"]
    bounds = {
        "the first run takes at most 480 s": first["seconds"] <= 480,
        "and at most 8 GiB": first["peak_gib"] <= 8,
        "the same again takes at most 60 s": found["again"]["seconds"] <= 60,
        "held-out loss falls by a quarter": ratios["loss_tuned_to_base"] <= 0.75,
        "a repeated context answers 10 times faster": ratios["ttft_cold_to_repeated"] >= 10,
        "a resumed training ends with the same weights": found["resumed"]["same_weights"],
    }
    return [name for name, holds in bounds.items() if not holds]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="leave the state of the runs in this folder")
    parser.add_argument("--readme", action="store_true", help="write the table into the README too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure((given.keep or Path(scratch)).absolute())
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for name, ratio in found["ratios"].items():
        print(f"{name}: {ratio}")
    print(table(found), end="")
    if broken := missed(found):
        raise SystemExit("not as promised: " + "; ".join(broken))
    if given.readme:
        readme = ROOT / "README.md"
        readme.write_text(
            BLOCK.sub(lambda block: block[1] + table(found) + block[2], readme.read_text("utf-8")), "utf-8"
        )


if __name__ == "__main__":
    main()
