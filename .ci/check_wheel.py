"""Install a wheel into an environment of its own and use it from another folder.

Its dependencies are not installed again: the environment reads those of the one that runs this script. Every module
of the wheel must be imported from the wheel, and every file that our folders hold beside code must be in it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMPORT_ALL = """
import importlib, pkgutil, sys
import goldpath
place, names = sys.argv[1], []
for module in pkgutil.walk_packages(goldpath.__path__, "goldpath."):
    found = importlib.import_module(module.name)
    assert found.__file__.startswith(place), f"{module.name} comes from {found.__file__}"
    names.append(module.name)
missing = {f"goldpath.{folder}" for folder in sys.argv[2].split(",")} - set(names)
assert not missing, f"not in the wheel: {missing}"
print(f"{len(names)} modules imported from the wheel")
"""


def data_files() -> set[str]:
    """What the repository holds in the code folders and a wheel must hold too."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    inside = {
        path for path in listed.stdout.splitlines() if (ROOT / path.split("/")[0] / "__init__.py").exists()
    }
    return {
        f"goldpath/{path}" for path in inside if not path.startswith("tests/") and not path.endswith(".md")
    }


def install(wheel: Path, folder: Path) -> Path:
    """A new environment with the wheel in it; returns its bin folder."""
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        str(wheel),
    ]
    subprocess.run(command, check=True)
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    # A folder that is named in a .pth file is searched, but the .pth files in it (our editable install) are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def main(wheel: Path, folder: Path) -> None:
    """Check the wheel."""
    held = set(zipfile.ZipFile(wheel).namelist())
    if missing := sorted(data_files() - held):
        sys.exit(f"not in the wheel: {', '.join(missing)}")
    binaries = install(wheel, folder)
    folders = sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests")
    with tempfile.TemporaryDirectory() as elsewhere:
        python = [str(binaries / "python"), "-I", "-c", IMPORT_ALL, str(folder.resolve()), ",".join(folders)]
        subprocess.run(python, check=True, cwd=elsewhere)
        subprocess.run(
            [str(binaries / "goldpath"), "--help"], check=True, cwd=elsewhere, stdout=subprocess.DEVNULL
        )
    print(f"{wheel.name} installs, imports and answers --help")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
