"""How should the engine's threads wait for each other? Time to first token for three ways, on idle and on busy cores.

Run: `python benchmarks/bench_serve_threads.py [MODEL_FOLDER]` on a machine that does nothing else; MODEL_FOLDER is the
newest model in the cache, if it is not given. For each way and load it deploys the model and has the probe's openai
client time a context that is new and the same context again. Prints the medians and their ratios to what the engine
does by itself (`unset`), and writes `benchmarks/results/serve_threads.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from goldpath.core.errors import InputError
from goldpath.core.settings import state
from goldpath.serving import endpoints, engines
from goldpath.serving.probe import probe
from goldpath.serving.specs import ProbeSpec, ServeSpec

RESULTS = Path(__file__).parent / "results" / "serve_threads.json"
SETTINGS = {
    "unset": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "spincount": {"GOMP_SPINCOUNT": "10000"},
}
KINDS = ("cold", "repeated")
# It ends with who started it, however that ends.
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))"


class Threads(engines.Transformers):
    """The engine as it is, but for how its threads wait."""

    def __init__(self, setting: dict[str, str]) -> None:
        self.setting = setting

    def environment(self, spec: ServeSpec, folder: Path) -> dict[str, str]:
        plain = super().environment(spec, folder)
        return {key: value for key, value in plain.items() if key not in WAITING} | self.setting


WAITING = {name for setting in SETTINGS.values() for name in setting}
"""Variables that say how threads wait."""


def newest_model() -> Path:
    """The model that was put into the cache last."""
    found = sorted(state("models", "snapshots").iterdir(), key=lambda folder: folder.stat().st_mtime)
    if not found:
        raise InputError("the model cache is empty", "Name a model's folder, or run `make run` first.")
    return found[-1]


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """That many processes that compute without end."""
    started = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def measure(model: Path, setting: str, load: int, spec: ProbeSpec) -> dict[str, Any]:
    """Deploy, time, stop; seconds to the first token of every repeat, and their medians."""
    engines.ENGINES["transformers"] = Threads(SETTINGS[setting])
    live = endpoints.deploy(ServeSpec(name="bench", model_uri=str(model), ready_seconds=600))
    try:
        with busy(load):
            timings = {timing.name: timing for timing in probe(live, spec, None, ["What is a Pod?"]).timings}
    finally:
        endpoints.stop("bench")
    seconds = {kind: timings[kind].ttft_seconds for kind in KINDS}
    return {
        "setting": setting,
        "busy_processes": load,
        "prompt_tokens": timings["cold"].prompt_tokens,
        "ttft_seconds": seconds,
        "median_s": {kind: round(median(seconds[kind]), 4) for kind in KINDS},
    }


def ratios(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each setting's medians over those of `unset` at the same load; below 1 is quicker."""
    plain = {run["busy_processes"]: run["median_s"] for run in runs if run["setting"] == "unset"}
    return [
        {
            "setting": run["setting"],
            "busy_processes": run["busy_processes"],
            **{kind: round(run["median_s"][kind] / plain[run["busy_processes"]][kind], 3) for kind in KINDS},
        }
        for run in runs
        if run["setting"] != "unset" and run["busy_processes"] in plain
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, help="a model's folder")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1, help="processes beside the engine")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--context-tokens", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    """Measure every setting, idle and beside busy processes, print and write."""
    given = arguments()
    model = (given.model or newest_model()).absolute()
    spec = ProbeSpec(
        context_tokens=given.context_tokens,
        repeats=given.repeats,
        max_new_tokens=2,
        retrieved_chunks=0,
        timeout_seconds=600,
    )
    for name in WAITING:
        os.environ.pop(name, None)
    runs = []
    with tempfile.TemporaryDirectory() as home:
        os.environ["GOLDPATH_HOME"] = home
        for load in dict.fromkeys((0, given.busy)):
            for setting in given.settings:
                runs.append(measure(model, setting, load, spec))
                print(f"{setting:>10} beside {load} busy processes: {runs[-1]['median_s']}")
    compared = ratios(runs)
    for one in compared:
        print(
            f"{one['setting']:>10} beside {one['busy_processes']}: cold x{one['cold']}, repeated x{one['repeated']}"
        )
    about = {"model": model.name, "cores": os.cpu_count(), "repeats": given.repeats}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({**about, "runs": runs, "ratios_to_unset": compared}, indent=2) + "\n")


if __name__ == "__main__":
    main()
