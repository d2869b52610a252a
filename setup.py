"""Maps each top-level code folder to one subpackage of the namespace ``goldpath``."""

from pathlib import Path

from setuptools import find_packages, setup

FOLDERS = (
    "accelerators",
    "cli",
    "components",
    "core",
    "feature_repo",
    "pipelines",
    "registry",
    "reporting",
    "serving",
    "training",
)
ROOT = Path(__file__).parent


def packages() -> list[str]:
    """Every package below the code folders, by its name in the namespace."""
    names = []
    for folder in FOLDERS:
        names.append(f"goldpath.{folder}")
        names += [f"goldpath.{folder}.{name}" for name in find_packages(str(ROOT / folder))]
    return names


setup(package_dir={f"goldpath.{folder}": folder for folder in FOLDERS}, packages=packages())
