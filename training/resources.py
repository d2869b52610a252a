"""Which GPU a training gets, planned from the model's config.json and the very specs that it will run with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator

from goldpath.accelerators import machine, models, plan, requests, training_memory
from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.chosen import ANY, stranger
from goldpath.accelerators.fitting import gib, named
from goldpath.accelerators.places import places
from goldpath.core.errors import GoldpathError, MachineError, ModelError, SpecError
from goldpath.core.spec import Spec, fields_for
from goldpath.training import modeling, search
from goldpath.training.placing import TrainingPlacement
from goldpath.training.results import PlannedPlace, ResourcePlan
from goldpath.training.specs import SearchSpec, TrainSpec
from goldpath.training.ways_out import way_out

_ADVISED = 0.9
"""Of the room: until the training starts the run itself takes some of what is free now, and advice should hold."""
Share = Annotated[float, Field(ge=0, lt=1)]


class PlanSpec(Spec):
    """Which GPU is asked for, and how the plan is made."""

    gpu: str = "auto"
    """A GPU request (`accelerators.requests`): none, auto, whole, mig:1g.10gb and so on."""
    gpus: str = ANY
    """What `auto` chooses among: GPUs of the catalogue with commas between, such as those of the cluster; or any."""
    margin: Share = plan.MARGIN
    """Share of a GPU's memory that stays free."""
    machine_margin: Share = plan.HERE_MARGIN
    """Share of this machine's free memory that stays free."""
    refuse: bool = True
    """False: a training that does not fit is told, and runs all the same."""
    from_pipeline = frozenset({"gpu"})

    @classmethod
    def from_form(cls, *, gpu: str, overrides: Mapping[str, Any]) -> Self:
        """What the form asks of plan_resources.

        Raises:
            SpecError: a field is wrong.
        """
        return cls.parse({"gpu": gpu}, fields_for("plan_resources", overrides), "plan_resources")

    @field_validator("gpu")
    @classmethod
    def _canonical(cls, value: str) -> str:
        return str(requests.parse(value))

    @field_validator("gpus")
    @classmethod
    def _known(cls, value: str) -> str:
        places(value)
        return value


def check(model: str, train: TrainSpec, searched: SearchSpec, spec: PlanSpec) -> None:
    """Refuse a run on this machine before it starts, as far as the model's configuration can be read already.

    Args:
        model: path or URI of the base model.
        train: what fine_tune is asked.
        searched: what tune is asked.
        spec: what is asked of the plan.

    Raises:
        SpecError: a GPU request that only a cluster can serve.
        MachineError: no GPU where one is asked for; the training does not fit.
    """
    _local_gpus(spec, train)
    try:
        known = models.load(model)
    except GoldpathError:
        return  # the step itself has the model, and says more
    # In which precision this CPU computes torch knows, whose import takes seconds, and memory as long as we live.
    either = ("bf16", "fp32") if train.precision == "auto" else (train.precision,)
    asked = [train.model_copy(update={"precision": one}) for one in either]
    try:
        for one in asked:
            plan_resources(known, one, searched, spec, local=True)
    except MachineError:
        plan_resources(known, train, searched, spec, local=True)


def plan_resources(
    known: Architecture | GoldpathError,
    train: TrainSpec,
    searched: SearchSpec,
    spec: PlanSpec,
    *,
    local: bool,
) -> ResourcePlan:
    """Plan a training, and refuse one that cannot fit where it is to run.

    Args:
        known: the base model's architecture, or why it is not known (`read_architecture`).
        train: what fine_tune is asked.
        searched: what tune is asked; the largest batch and adapter that it may choose count.
        spec: what is asked of the plan.
        local: whether it runs on this machine, not on a cluster.

    Raises:
        SpecError: it cannot be had, or does not fit, as it was asked for.
        MachineError: no GPU where one is asked for; it does not fit in this machine's memory.
    """
    found = _local_gpus(spec, train) if local else ()
    _require_gpu_for_qlora(spec, train)
    if isinstance(known, GoldpathError):
        return _unplanned(known, train, spec, found, local=local)
    largest, at_once = _largest(train, searched)
    placement = TrainingPlacement(known, largest, at_once, spec.margin, spec.machine_margin, local)
    chosen = placement.choose(spec.gpus)
    here = placement.on_gpu(found) if found else placement.on_cpu() if local else None
    asked = requests.parse(spec.gpu)
    on_asked = placement.on_request(asked) if asked.terms and not local else None
    cluster = on_asked or chosen.place
    notes = [*known.assumed]
    if train.lora_dropout and train.method != "full":
        notes.append("what lora_dropout keeps of its inputs is not counted")
    made = ResourcePlan(
        asked=spec.gpu,
        gpu=_resolved(spec, largest, found, cluster, local=local),
        model=known.name,
        trainable_parameters=training_memory.trainable_parameters(known, placement.shape("cpu")),
        shape=_told(largest, at_once),
        here=here,
        cluster=cluster,
        notes=tuple(notes),
    )
    where = here or cluster
    if where and where.fits is None:
        told = (
            f"how much memory {where.place} has is not known before it is granted: it needs {gib(where.need)}"
        )
        unknown = [note for note in (stranger(asked),) if note]
        return made.model_copy(update={"notes": (*notes, told, *unknown)})
    if (where and where.fits) or (asked.none and not local):
        return made
    if where is None:
        why, room = f"the training {chosen.verdict}", chosen.room
    else:
        why, room = _lacking(where, largest, free=local), int(where.has * (1 - where.margin))
    device = "cpu" if local and not found else "cuda"
    refused = chosen.remedy if where is None else ""
    helps = refused or way_out(
        placement,
        searched,
        int(room * _ADVISED),
        device=device,
        precision=where.precision if where else chosen.precision,
    )
    if on_asked and chosen.place:
        helps = f"Use gpu={chosen.place.place}, or gpu=auto, which chooses it; or: {helps}"
    if spec.refuse:
        raise (MachineError if local else SpecError)(why, helps)
    return made.model_copy(update={"helps": helps, "notes": (*notes, why)})


def read_architecture(folder: Path, source: str = "") -> Architecture | GoldpathError:
    """The architecture of a base model on this machine, called `source`; or why it is not known."""
    try:
        return models.load(str(folder)).model_copy(update={"name": source or folder.name})
    except ModelError as error:
        return error


def _largest(train: TrainSpec, searched: SearchSpec) -> tuple[TrainSpec, int]:
    """The training with the largest batch and adapter that it may get, and how many trials run at once."""
    if not searched.max_trials:
        return train, 1
    varied = {one.name: one for one in search.applicable(searched, train).parameters}
    sizes = [name for name in ("batch_size", "lora_rank") if name in varied]
    most: dict[str, Any] = {name: max(int(value) for value in varied[name].grid()) for name in sizes}
    return train.model_copy(update=most), min(searched.parallel_trials, searched.max_trials)


def _told(train: TrainSpec, at_once: int) -> dict[str, Any]:
    """What the memory depends on, for the report."""
    fields = ("method", "batch_size", "sequence_length", "gradient_checkpointing", "processes")
    told: dict[str, Any] = {name: getattr(train, name) for name in fields}
    if train.method != "full":
        told["lora_rank"] = train.lora_rank
    if (where := train.cluster).nodes > 1 or where.sharding != "none":
        told |= {"nodes": where.nodes, "sharding": where.sharding}
    return told | ({"parallel_trials": at_once} if at_once > 1 else {})


def _require_gpu_for_qlora(spec: PlanSpec, train: TrainSpec) -> None:
    if train.method == "qlora" and requests.parse(spec.gpu).none:
        raise SpecError(
            "method qlora needs a CUDA GPU and gpu is none",
            "Use method lora, or gpu=auto on a machine with a GPU.",
        )


def _local_gpus(spec: PlanSpec, train: TrainSpec) -> tuple[machine.LocalGpu, ...]:
    """The GPUs of this machine that the training gets; none where it runs on the CPU.

    Raises:
        SpecError: a request that only a cluster can serve.
        MachineError: there is no GPU, or not as many.
    """
    _require_gpu_for_qlora(spec, train)
    asked = requests.parse(spec.gpu)
    if asked.none:
        return ()
    if train.method == "qlora":
        modeling.require_quantization()
    found = machine.gpus()
    if not found and asked.auto:
        return ()
    if not found:
        raise MachineError(
            f"gpu is {spec.gpu} and this machine has no CUDA GPU",
            "Use gpu=auto, which takes what there is, or gpu=none; or a machine with a GPU.",
        )
    whole = all(one.kind == "whole" and not one.sharing for one in asked.terms)
    if not whole or asked.same or asked.share:
        raise SpecError(
            f"gpu is {spec.gpu}, which a cluster gives; this machine has {found[0].name}",
            "Use gpu=auto or gpu=whole here.",
        )
    wanted = max(train.processes, asked.count)
    if len(found) < wanted:
        raise MachineError(
            f"the training wants {wanted} GPUs and this machine has {len(found)}",
            f"Set overrides.fine_tune.processes to at most {len(found)}, and gpu to auto.",
        )
    return found[: train.processes]


def _resolved(
    spec: PlanSpec,
    train: TrainSpec,
    found: tuple[machine.LocalGpu, ...],
    cluster: PlannedPlace | None,
    *,
    local: bool,
) -> str:
    """The request that the training gets."""
    if spec.gpu != "auto":
        return spec.gpu
    if not local:
        return cluster.place if cluster else "auto"
    if not found:
        return "none"
    return "whole" if train.processes == 1 else f"whole*{train.processes}"


def _lacking(where: PlannedPlace, train: TrainSpec, *, free: bool) -> str:
    largest = max(where.components, key=lambda name: where.components[name])
    room = int(where.has * (1 - where.margin))
    in_fp32 = " in fp32" if where.precision == "fp32" != train.precision else ""
    has = f"{gib(where.has)}{' free' if free else ''}"
    return (
        f"the training needs {gib(where.need)}{in_fp32} and {where.place} has {has}, "
        f"of which {gib(room)} may be used (margin {where.margin:.0%}); "
        f"the largest part: {named(largest)}, {gib(where.components[largest])}"
    )


def _unplanned(
    why: GoldpathError,
    train: TrainSpec,
    spec: PlanSpec,
    found: tuple[machine.LocalGpu, ...],
    *,
    local: bool,
) -> ResourcePlan:
    """A model whose architecture is not known runs on what is asked for; on a cluster that cannot be `auto`."""
    if not local and spec.gpu == "auto":
        raise SpecError(f"gpu is auto and nothing can be planned: {why.message}", "Say which GPU: gpu=whole.")
    gpu = _resolved(spec, train, found, None, local=local)
    return ResourcePlan(asked=spec.gpu, gpu=gpu, model="", unplanned=why.message)
