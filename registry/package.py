"""A model folder as MLflow's own `transformers` model: hard links and an `MLmodel` file, nothing copied or unpickled.

::

    MLmodel, requirements.txt, python_env.yaml    what MLflow's save_model writes, chat signature included
    manifest.json                                 name to [bytes, SHA-256] of every file in model/
    model/                                        the folder's files: a plain model folder
    components/tokenizer/                         its tokenizer files

The weights of a finished fine-tuning never change in place (a slot of the store is built anew), so sharing their
bytes is safe; a link keeps them when the run that made them is cleaned away.
"""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from goldpath.core.digest import digest_file, digest_manifest
from goldpath.core.errors import MachineError, ModelError
from goldpath.core.files import link_or_copy, read_json, require_space, write_beside, write_json
from goldpath.core.progress import progress

MANIFEST = "manifest.json"
WEIGHTS = "model"
_TASK = "llm/v1/chat"
_TOKENIZER = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "chat_template", "spiece")


@dataclass(frozen=True)
class Content:
    """What a model folder holds."""

    folder: Path
    files: dict[str, tuple[int, str]]
    """Relative POSIX path to bytes and SHA-256."""

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(size for size, _ in self.files.values())

    @property
    def digest(self) -> str:
        """As `core.digest.digest_manifest` of the folder."""
        return digest_manifest({name: digest for name, (_, digest) in self.files.items()})


def read_content(folder: Path) -> Content:
    """Read every file of a model folder once.

    Raises:
        ModelError: it is missing, or is not a model that can be loaded without unpickling.
    """
    from goldpath.core.modelfiles import check_model_folder

    check_model_folder(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {}
    with progress("Reading the model", sum(path.stat().st_size for path in paths), "B") as bar:
        for path in paths:
            files[path.relative_to(folder).as_posix()] = (path.stat().st_size, digest_file(path))
            bar.advance(path.stat().st_size)
    return Content(folder, files)


def package(content: Content, target: Path, model_id: str) -> None:
    """Make `target` an MLflow model of the content, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if content.folder.stat().st_dev != target.parent.stat().st_dev:  # links are impossible: it will be copied
        require_space(target.parent, content.bytes)
    with write_beside(target) as fresh:
        for name in content.files:
            link_or_copy((content.folder / name).resolve(), fresh / WEIGHTS / name)
            if "/" not in name and name.startswith(_TOKENIZER):
                link_or_copy((content.folder / name).resolve(), fresh / "components" / "tokenizer" / name)
        write_json(fresh / MANIFEST, content.files)
        _write_requirements(fresh)
        _mlmodel(content, model_id).save(str(fresh / "MLmodel"))


def missing_files(target: Path) -> list[str]:
    """Files of a packaged model that are gone or have another size than when it was registered."""
    try:
        kept: dict[str, tuple[int, str]] = read_json(target / MANIFEST)
    except MachineError:
        return [MANIFEST]
    gone = []
    for name, (size, _) in kept.items():
        path = target / WEIGHTS / name
        if not path.is_file() or path.stat().st_size != size:
            gone.append(name)
    return gone


def is_whole(target: Path, content: Content) -> bool:
    """Whether a packaged model holds the very bytes of `content`."""
    if missing_files(target):
        return False
    for name, (_, digest) in content.files.items():
        path = target / WEIGHTS / name
        # A link to a file that was read for `content` needs no second reading.
        if not path.is_file() or not (path.samefile(content.folder / name) or digest_file(path) == digest):
            return False
    return True


def _mlmodel(content: Content, model_id: str) -> Any:
    """What `mlflow.transformers.save_model(..., task="llm/v1/chat")` declares, without loading the model."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA

    config = _json(content.folder / "config.json")
    tokenizer = _json(content.folder / "tokenizer_config.json")
    if not config.get("architectures"):
        raise ModelError(
            f"{content.folder}/config.json names no architectures", "Save the model with save_pretrained."
        )
    model = Model(
        signature=ModelSignature(inputs=CHAT_MODEL_INPUT_SCHEMA, outputs=CHAT_MODEL_OUTPUT_SCHEMA),
        metadata={"task": _TASK},
        model_size_bytes=content.bytes,
        model_id=model_id,
        model_uuid=content.digest[:32],
    )
    model.add_flavor(
        "python_function",
        loader_module="mlflow.transformers",
        python_version=platform.python_version(),
        env={"virtualenv": "python_env.yaml"},
    )
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    model.add_flavor(
        "transformers",
        transformers_version=importlib.metadata.version("transformers"),
        code=None,
        task="text-generation",
        inference_task=_TASK,
        instance_type="TextGenerationPipeline",
        pipeline_model_type=config["architectures"][0],
        source_model_name=str(config.get("_name_or_path") or config["architectures"][0]),
        model_binary=WEIGHTS,
        torch_dtype=f"torch.{dtype}",
        components=["tokenizer"],
        tokenizer_type=tokenizer.get("tokenizer_class", "PreTrainedTokenizerFast"),
    )
    return model


def _json(path: Path) -> dict[str, Any]:
    value = read_json(path) if path.exists() else {}
    return value if isinstance(value, dict) else {}


def _write_requirements(folder: Path) -> None:
    pins = []
    for name in ("mlflow", "transformers", "torch", "accelerate"):
        version = importlib.metadata.version(name)
        pins.append(f"{name}=={version.partition('+')[0]}")
    (folder / "requirements.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
    environment = f"python: {platform.python_version()}\ndependencies:\n- -r requirements.txt\n"
    (folder / "python_env.yaml").write_text(environment, encoding="utf-8")
