"""What `deploy/` builds to, through kubectl's kustomize."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
Manifest = dict[str, Any]


def tool(name: str) -> str:
    """A program that `make dev` installs."""
    place = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    found = shutil.which(name, path=place)
    assert found, f"there is no {name}: make dev"
    return found


def build(folder: Path) -> list[Manifest]:
    """All objects of a kustomization."""
    done = subprocess.run(
        [tool("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


@cache
def built(name: str) -> tuple[Manifest, ...]:
    """All objects of a folder in `deploy/`, such as `overlays/dra`."""
    return tuple(build(DEPLOY / name))


def only(objects: tuple[Manifest, ...] | list[Manifest], kind: str, name: str) -> Manifest:
    """The one object of that kind and name."""
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found
