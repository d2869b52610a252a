"""What a training needs on a cluster, besides what it does: nodes, image, runtime, resources, storage, deadline."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from goldpath.accelerators import requests
from goldpath.accelerators.quantities import EXAMPLES, is_quantity
from goldpath.core import images
from goldpath.core.errors import SpecError
from goldpath.core.spec import Spec, fields_for, matching

TORCH_RUNTIME = "goldpath-torch"
MOUNT = "/mnt/goldpath"
"""Where a volume claim for checkpoints and models is mounted."""
SCRATCH = "/tmp/goldpath"  # noqa: S108
"""Outputs of a trial: gone with its pod."""
Sharding = Literal["none", "fsdp", "zero3"]
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_LABEL_SAID = "lower-case letters, digits and dashes, at most 63, with a letter or digit at both ends"
_OBJECT = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_OBJECT_SAID = "lower-case letters, digits, dashes and dots, with a letter or digit at both ends"
_URI = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"`$&|;<>()\\{}*?!#]+")
"""Without what a shell would read: Katib wraps a trial's command in one."""
_IMAGE = images.REFERENCE


_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
_HIDDEN = re.compile(
    r"(^|_)(SECRETS?|TOKEN|PASSWORD|PASSWD|PASS|PWD|PAT|API_?KEY|ACCESS_KEY(?!_ID)|PRIVATE_KEY|STORAGE_KEY|WANDB_KEY)$"
    r"|SECRET_ACCESS_?KEY|ACCOUNT_KEY$",
    re.I,
)
_SPECIAL = re.compile(r"^(PAD|EOS|BOS|UNK|SEP|CLS|MASK)_TOKEN$", re.I)
_USER = re.compile(r"://[^/@\s:]+:[^/@\s]+@")


def _is_secret(name: str, text: str) -> bool:
    """Whether a variable's value is not for everybody: by its name, or as a URL with a password. A path is none."""
    if not text or text.startswith("/"):
        return False
    return bool(_USER.search(text) or (_HIDDEN.search(name) and not _SPECIAL.match(name)))


_SECRET_KEY = re.compile(rf"{_OBJECT}/[-._A-Za-z0-9]+")


def _require_known(uri: str) -> None:
    from fsspec.registry import known_implementations

    scheme = uri.partition("://")[0]
    if uri and scheme not in known_implementations:
        raise ValueError(f"nothing opens {scheme}://; give s3://, gs:// or hf://")


class Machine(Spec):
    """Where a job of any kind runs."""

    runtime: Annotated[str, matching(rf"^{_OBJECT}$", _OBJECT_SAID)] = TORCH_RUNTIME
    """Name of the training runtime."""
    runtime_kind: Literal["ClusterTrainingRuntime", "TrainingRuntime"] = "ClusterTrainingRuntime"
    """`TrainingRuntime` is one of the job's own namespace."""
    nodes: Annotated[int, Field(ge=1, le=1_024)] = 1
    cpu: str = "4"
    """Of each node: requested and not exceeded."""
    memory: str = "16Gi"
    """Of each node: requested and not exceeded."""
    deadline_seconds: Annotated[int, Field(ge=60, le=60 * 86_400)] = 86_400
    """The job is ended after so long, restarts included (`activeDeadlineSeconds`)."""
    retries: Annotated[int, Field(ge=0, le=100)] | None = None
    """Restarts after a failure; an eviction costs none. None leaves it to the runtime (ours: 2)."""
    service_account: Annotated[str, matching(rf"^({_OBJECT})?$", _OBJECT_SAID)] = ""
    """Of the pods; empty takes the namespace's default."""

    @field_validator("cpu", "memory")
    @classmethod
    def _quantity(cls, value: str) -> str:
        if not is_quantity(value):
            raise ValueError(f"give a Kubernetes quantity ({EXAMPLES})")
        return value


class ClusterSpec(Machine):
    """What a fine-tuning needs on a cluster beyond its TrainSpec. Processes of a node come from the TrainSpec; GPUs,
    and the nodes that have them, from the GPU request's placement."""

    image: Annotated[str, matching(rf"^{_IMAGE}$", "repository:tag or repository@sha256:digest")] = Field(
        default_factory=images.trainer
    )
    """The trainer image."""
    storage: str = ""
    """URI of a folder for checkpoints and models (`s3://bucket/goldpath`); each job has a folder of its own in it. Runs
    keep their work in GOLDPATH_STORAGE instead."""
    claim: Annotated[str, matching(rf"^({_LABEL})?$", _LABEL_SAID)] = ""
    """Name of a PersistentVolumeClaim for them instead; in a run, for checkpoints. Several nodes need ReadWriteMany."""
    secret: Annotated[str, matching(rf"^({_OBJECT})?$", _OBJECT_SAID)] = "goldpath-storage"  # noqa: S105
    """Name of a Secret with those of the keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
    AWS_ENDPOINT_URL, AWS_REGION and HF_TOKEN that the storage needs; it need not be there."""
    retain_trials: bool = False
    """Keep the jobs of a search's trials after their end, to look at their logs."""
    sharding: Sharding = "none"
    """How processes share weights and optimizer state: FSDP, or DeepSpeed ZeRO stage 3, through accelerate."""

    @field_validator("storage")
    @classmethod
    def _uri(cls, value: str) -> str:
        if value and (value.startswith("file:") or not _URI.fullmatch(value)):
            raise ValueError("give a URI that every pod can open, such as s3://bucket/goldpath")
        _require_known(value)
        return value.rstrip("/")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.storage and self.claim:
            raise ValueError("storage and claim are both given; checkpoints go to one of them")
        return self

    def require_shares(self, method: str, processes: int) -> None:
        """Refuse a sharding that cannot be.

        Raises:
            SpecError: a method whose weights cannot be shared out, or nobody to share them with.
        """
        if self.sharding != "none" and method == "qlora":
            raise SpecError(
                f"cluster.sharding is {self.sharding}, and the 4-bit base of method qlora is not shared out",
                "Use method lora or full, or cluster.sharding none.",
            )
        if self.sharding != "none" and processes * self.nodes == 1:
            raise SpecError(
                f"cluster.sharding is {self.sharding}, and one process holds everything",
                "Raise processes (one a GPU) or cluster.nodes, or use cluster.sharding none.",
            )

    def require_run(self) -> None:
        """Refuse what is for `goldpath render` alone.

        Raises:
            SpecError: a storage of its own.
        """
        if self.storage:
            raise SpecError(
                f"fine_tune.cluster.storage is {self.storage}, and a run keeps its work in GOLDPATH_STORAGE",
                "Leave it out (`goldpath render` takes it); cluster.claim keeps checkpoints on a volume.",
            )

    def out(self, name: str) -> str:
        """URI of the outputs of the job `name`; empty where neither storage nor claim is given."""
        folder = self.storage or (f"file://{MOUNT}" if self.claim else "")
        return f"{folder}/{name}" if folder else ""


class Uris(Spec):
    """Where a training reads and writes; its pods share no disk with the step that made them."""

    frame: str
    """Folder with train.parquet and validation.parquet."""
    base: str
    """Folder of the base model."""
    out: str = ""
    """Folder of checkpoints, metrics and the model; empty: a folder of the job's own in the cluster's storage."""

    @field_validator("frame", "base", "out")
    @classmethod
    def _uri(cls, value: str) -> str:
        if value and not _URI.fullmatch(value):
            raise ValueError("give a URI (s3://, gs://, hf://) without spaces or characters of a shell")
        _require_known(value)
        if value.startswith("file:") and (
            not value.startswith(f"file://{MOUNT}/") or ".." in value.split("/")
        ):
            raise ValueError(
                f"a pod cannot read this machine's disk: give s3://, gs:// or hf://, or file://{MOUNT}/... on the claim"
            )
        return value


class TrainJobSpec(Machine):
    """Any training in containers (TensorFlow, Megatron-LM, Horovod, MPI, JAX, XGBoost) as a TrainJob."""

    image: Annotated[str, matching(rf"^({_IMAGE})?$", "repository:tag or repository@sha256:digest")] = ""
    """Empty takes the runtime's."""
    command: tuple[str, ...] = ()
    """Empty takes the runtime's, or the image's."""
    args: tuple[str, ...] = ()
    env: dict[_Variable, str] = Field(default_factory=dict)
    """Everybody who may read the job reads them."""
    secrets: dict[_Variable, str] = Field(default_factory=dict)
    """Variables whose values are keys of Secrets: `{"HF_TOKEN": "goldpath-storage/HF_TOKEN"}`."""
    processes: Annotated[int, Field(ge=1, le=1_024)] | None = None
    """Of each node; None: one a GPU, or as the runtime says."""
    gpu: str = "none"
    """The GPU request of each node (`accelerators.requests`)."""
    sharding: Sharding = "none"
    """Set accelerate's environment for FSDP or ZeRO-3; the code has to use accelerate."""
    restricted: bool = True
    """Patch the pods so that they pass Pod Security "restricted"; off where the runtime does."""
    user: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1000
    """User id of the pods' processes, where they are patched."""

    @classmethod
    def from_form(cls, overrides: Mapping[str, Any], **fields: Any) -> Self:
        """What the form of run_trainjob asks for.

        Args:
            overrides: of the form; they win.
            fields: the form's other fields. 0 processes leave the number to the GPUs and the runtime.

        Raises:
            SpecError: a field is wrong.
        """
        given = {**fields, "processes": fields.get("processes") or None}
        return cls.parse(given, fields_for("run_trainjob", overrides), "run_trainjob")

    @field_validator("command", "args", "env", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        """KFP hands what a list or a dict holds over as it likes: numbers are words here too."""
        if isinstance(value, dict):
            return {key: _word(one) for key, one in value.items()}
        return [_word(one) for one in value] if isinstance(value, list | tuple) else value

    @field_validator("gpu")
    @classmethod
    def _canonical(cls, value: str) -> str:
        return str(requests.parse(value))

    @field_validator("env")
    @classmethod
    def _free(cls, value: dict[str, str]) -> dict[str, str]:
        taken = [
            name for name in value if name.startswith(("PET_", "DMLC_", "OMPI_MCA_orte_", "OMPI_MCA_plm_rsh"))
        ]
        if taken:
            raise ValueError(f"the Trainer sets {taken[0]} itself; leave it out")
        return value

    @field_validator("secrets")
    @classmethod
    def _keys(cls, value: dict[str, str]) -> dict[str, str]:
        if bad := [name for name, text in value.items() if not _SECRET_KEY.fullmatch(text)]:
            raise ValueError(f"{bad[0]} needs SECRET/KEY, such as goldpath-storage/HF_TOKEN")
        return value

    @model_validator(mode="after")
    def _hidden(self) -> Self:
        if plain := [name for name, text in self.env.items() if _is_secret(name, text)]:
            raise SpecError(  # without its value
                f"env.{plain[0]} looks like a secret, and whoever may read the job would read it",
                f'Put it into a Secret and name that: secrets: {{"{plain[0]}": "SECRET/KEY"}}.',
            )
        if both := sorted(self.env.keys() & self.secrets.keys()):
            raise SpecError(f"{both[0]} is in env and in secrets", "Give it once.")
        return self


def _word(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
