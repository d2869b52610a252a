"""Build the images `launcher` and `trainer` with whatever builder there is: Docker, Podman or Buildah.

    make images
    make images ARGS='--prefix registry.example/goldpath --base docker.io/library/python:3.12-slim@sha256:...'
    make images ARGS='--with deepspeed==0.19.8'     # in the trainer, for the sharding zero3
    make images ARGS=--print      # only say how

An image is `PREFIX/NAME:VERSION`, the version being the package's, which the components ask for.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "deploy" / "images"
CONTEXT = ROOT / "build" / "images"
NAMES = ("launcher", "trainer")
LISTS = ("launcher.txt", "lock.txt")
# A program that is there may still not work: Docker's needs a daemon.
BUILDERS = {"docker": ["docker", "info"], "podman": ["podman", "info"], "buildah": ["buildah", "info"]}


def version() -> str:
    """The package's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def builder() -> tuple[str, list[str]]:
    """The first that works, and why the others do not; empty where none does."""
    reasons = []
    for name, test in BUILDERS.items():
        if not shutil.which(name):
            reasons.append(f"no {name}")
            continue
        done = subprocess.run(test, capture_output=True, check=False, timeout=60)
        if done.returncode == 0:
            return name, reasons
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        reasons.append(f"{name} does not work ({said[-1][:160]})")
    return "", reasons


def stage() -> None:
    """Lay out what the recipes copy: a small context, and the same for every builder."""
    # What setuptools left of an earlier tree would get into the wheel.
    for folder in (CONTEXT, ROOT / "build" / "lib", *ROOT.glob("build/bdist.*")):
        shutil.rmtree(folder, ignore_errors=True)
    CONTEXT.mkdir(parents=True)
    for name in LISTS:
        shutil.copy2(ROOT / "requirements" / name, CONTEXT)
    for name in NAMES:
        shutil.copy2(RECIPES / f"{name}.Dockerfile", CONTEXT)
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*wheel, "--wheel-dir", str(CONTEXT), str(ROOT)], check=True)


def revision() -> str:
    """The commit, marked where the tree has changed since; empty outside a clone."""
    told = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    done = subprocess.run(told, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def command(program: str, name: str, prefix: str, base: str, more: str = "") -> list[str]:
    """What builds one image; `more` are further packages of the trainer."""
    arguments = {"VERSION": version(), "REVISION": revision(), **({"BASE": base} if base else {})}
    if more and name == "trainer":
        arguments["WITH"] = more
    given = [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
    recipe, tag = str(CONTEXT / f"{name}.Dockerfile"), f"{prefix}/{name}:{version()}"
    return [program, "build", *given, "--file", recipe, "--tag", tag, str(CONTEXT)]


def main() -> None:
    """Build, or say how."""
    parser = argparse.ArgumentParser(description="Build the images `launcher` and `trainer`.")
    parser.add_argument("--print", action="store_true", dest="only_print", help="only say how")
    parser.add_argument("--prefix", default="goldpath", help="registry and folder before the names")
    parser.add_argument("--base", default="", help="base image, best with its digest")
    parser.add_argument(
        "--with", default="", dest="more", help="packages for the trainer (deepspeed==0.19.8)"
    )
    given = parser.parse_args()
    program, reasons = builder()
    commands = [command(program or "docker", name, given.prefix, given.base, given.more) for name in NAMES]
    if given.only_print or not program:
        print("\n".join(map(shlex.join, commands)))
    if given.only_print:
        return
    stage()
    if not program:
        print(f"error: nothing here builds images: {'; '.join(reasons)}.", file=sys.stderr)
        print(f"Start Docker, install Podman or Buildah, or take {CONTEXT} to where one is.", file=sys.stderr)
        sys.exit(2)
    for line in commands:
        print(shlex.join(line), flush=True)
        subprocess.run(line, check=True)


if __name__ == "__main__":
    main()
