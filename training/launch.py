"""How a training process is started: the same arguments here and in a TrainJob's pod."""

from __future__ import annotations

MODULE = "goldpath.training.worker"
SPEC_VARIABLE = "GOLDPATH_TRAIN_SPEC"
"""Where a pod's environment holds its TrainSpec as JSON."""
KATIB_VARIABLE = "GOLDPATH_KATIB_DB"
"""`host:port` of Katib's DB manager: a step's setting, and where a trial's process pushes its measures to."""

CURVES_VARIABLE = "GOLDPATH_TRIAL_CURVES"
"""Where a trial's process leaves all of its measures (a URI); Katib's Trial holds the last alone."""


def torchrun(*options: str) -> list[str]:
    """torchrun with the worker; on a cluster the operator's `PET_*` variables say how many and where the first is."""
    return ["-m", "torch.distributed.run", "--rdzv-backend", "static", *options, "-m", MODULE]


def arguments(
    *,
    spec: str,
    frame: str,
    base: str,
    out: str,
    folder: str = "",
    save_model: bool = True,
    chosen: dict[str, str] | None = None,
) -> list[str]:
    """The worker's arguments.

    Args:
        spec: URI of a JSON file of a TrainSpec, or `env:NAME`.
        frame: URI of the folder with train.parquet and validation.parquet.
        base: URI of the base model's folder.
        out: URI of the folder of the outputs.
        folder: where the outputs are made and checkpoints stay; empty: a scratch folder, and checkpoints go to `out`.
        save_model: False for figures only.
        chosen: fields of the TrainSpec that win over `spec`: a trial's parameters.
    """
    return [
        *("--spec", spec),
        *("--frame", frame),
        *("--base", base),
        *("--out", out),
        *(("--folder", folder) if folder else ()),
        *(() if save_model else ("--no-model",)),
        *(word for name, value in (chosen or {}).items() for word in ("--set", f"{name}={value}")),
    ]
