"""A training and the places for it: this machine's memory, its GPUs, GPU requests of a cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from goldpath.accelerators import machine, plan, training_memory
from goldpath.accelerators.architecture import Architecture
from goldpath.accelerators.fitting import as_computed, nearest
from goldpath.accelerators.granted import Place, granted
from goldpath.accelerators.places import places
from goldpath.accelerators.requests import GpuRequest
from goldpath.accelerators.training_shape import TrainingMemory, TrainingShape
from goldpath.core.errors import MachineError, SpecError
from goldpath.core.hardware import cpu_has_bf16
from goldpath.training.cluster import ClusterSpec
from goldpath.training.results import PlannedPlace
from goldpath.training.specs import TrainSpec


class Choice(NamedTuple):
    """What `auto` stands for on a cluster."""

    place: PlannedPlace | None
    """None where it fits nowhere."""
    verdict: str
    room: int
    """Bytes that it may use on the GPU where it lacks least."""
    precision: str
    """What it computes in there."""
    remedy: str = ""
    """Where no GPU at all can compute it: what to do."""


_HAVE_BF16 = "a GPU that has it: all from the A30 and A100 on."


@dataclass(frozen=True)
class TrainingPlacement:
    """A training of a model, and how many trials of it run at once."""

    architecture: Architecture
    train: TrainSpec
    at_once: int
    margin: float
    """Share of a GPU that stays free."""
    machine_margin: float
    """Share of this machine's free memory that stays free."""
    local: bool = False
    """Whether it runs on this machine: only a cluster's nodes and processes share weights and optimizer state."""

    def instead(self, train: TrainSpec, at_once: int) -> TrainingPlacement:
        """Another training of the same model."""
        return replace(self, train=train, at_once=at_once)

    def shape(self, device: str, precision: str = "") -> TrainingShape:
        """What the memory of one of its processes depends on."""
        train, where = self.train, ClusterSpec() if self.local else self.train.cluster
        asked = train.precision if train.precision != "auto" else precision or "bf16"
        return TrainingShape.parse(
            {
                "method": train.method,
                "sequence_length": train.sequence_length,
                "batch_size": train.batch_size,
                "packing": train.packing,
                "gradient_checkpointing": train.gradient_checkpointing,
                "gradient_accumulation": train.gradient_accumulation,
                "lora_rank": train.lora_rank,
                "precision": "bf16" if train.method == "qlora" else asked,
                "device": device,
                "gpus": train.processes * where.nodes if device == "cuda" else 1,
                "sharding": where.sharding if device == "cuda" else "none",  # each process holds all of it
            }
        )

    def estimate(self, shape: TrainingShape) -> TrainingMemory:
        """What one process needs."""
        return training_memory.estimate(self.architecture, shape)

    def need(self, device: str, precision: str = "") -> int:
        """Bytes that it needs on one device: on a CPU its processes share the memory."""
        copies = self.at_once * (self.train.processes if device == "cpu" else 1)
        return self.estimate(self.shape(device, precision)).total * copies

    def on_cpu(self) -> PlannedPlace:
        """Against what this machine, or the container that we are in, has free."""
        auto = "" if self.train.precision != "auto" else "bf16" if cpu_has_bf16() else "fp32"
        shape = self.shape("cpu", auto)
        needed, copies = self.estimate(shape), self.at_once * self.train.processes
        found = plan.fits_here(needed, self.machine_margin, processes=copies)
        name = "this container" if found.limited else "this machine"
        return _place(name, found.has, needed, self.machine_margin, shape.precision, copies)

    def on_gpu(self, found: tuple[machine.LocalGpu, ...]) -> PlannedPlace:
        """Against the fullest of this machine's GPUs; trials at once share it.

        Raises:
            MachineError: they cannot compute what the method does.
        """
        if lacking := [one.name for one in found if self._bf16_only and not one.bf16]:
            raise MachineError(
                f"{self._why_bf16}, and this machine's {lacking[0]} has none", self._without_bf16
            )
        fullest = min(found, key=lambda one: one.available)
        shape = self.shape("cuda", "bf16" if fullest.bf16 else "fp32")
        return _place(
            fullest.name, fullest.available, self.estimate(shape), self.margin, shape.precision, self.at_once
        )

    def on_request(self, request: GpuRequest) -> PlannedPlace:
        """Against what a request is sure to get; trials at once are jobs of their own.

        Raises:
            SpecError: it gives GPUs that cannot compute what the method does.
        """
        place = granted(request) or Place(request=str(request), gpus=(), has=0, sms=0)
        if self._bf16_only and not place.bf16:
            raise SpecError(
                f"{self._why_bf16}, and {request} gives {' or '.join(place.gpus)}, which has none",
                self._without_bf16,
            )
        return self._on(place)

    def choose(self, gpus: str) -> Choice:
        """The cheapest place that it fits on, among `gpus` of the catalogue."""
        train, shape = self.train, self._there().shape("cuda")
        made = plan.train(
            self.architecture, shape, gpus, self.margin, nodes=train.cluster.nodes, exact=self._bf16_only
        )
        found = {place.request: place for place in places(gpus, train.processes)}
        near = nearest(made.rows)
        room = int(near.has * (1 - self.margin))
        if not made.cheapest:
            remedy = self._without_bf16 if near.refused else ""
            return Choice(None, made.verdict, room, near.precision, remedy)
        smaller = made.rows[: [row.request for row in made.rows].index(made.cheapest)]
        place = self._on(found[made.cheapest])
        told = place.model_copy(update={"too_small": {row.request: row.why for row in smaller}})
        return Choice(told, made.verdict, room, place.precision)

    @property
    def _bf16_only(self) -> bool:
        """Whether fp32 is no way to run it on a GPU without bf16."""
        return self.train.method == "qlora" or self.train.precision == "bf16"

    @property
    def _why_bf16(self) -> str:
        return "method qlora computes in bf16" if self.train.method == "qlora" else "precision is bf16"

    @property
    def _without_bf16(self) -> str:
        """What to do where a GPU has none."""
        if self.train.method == "qlora":
            return f"Use method lora, or {_HAVE_BF16}"
        return f"Set overrides.fine_tune.precision to auto, which is fp32 there; or use {_HAVE_BF16}"

    def _there(self) -> TrainingPlacement:
        """The same on a cluster."""
        return replace(self, local=False)

    def _on(self, given: Place) -> PlannedPlace:
        shape = as_computed(self._there().shape("cuda"), given)
        return _place(given.request, given.has, self.estimate(shape), self.margin, shape.precision)


def _place(
    name: str, has: int, needed: TrainingMemory, margin: float, precision: str, copies: int = 1
) -> PlannedPlace:
    need = needed.total * copies
    return PlannedPlace(
        place=name,
        has=has,
        need=need,
        margin=margin,
        fits=need <= has * (1 - margin) if has else None,
        components={part: size * copies for part, size in needed.components.items()},
        peak=needed.peak,
        precision=precision,
    )
