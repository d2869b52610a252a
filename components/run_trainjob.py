"""Component: any training in containers."""

from typing import Any

from kfp import dsl

from goldpath.components.base import component


@component
def run_trainjob(
    metrics: dsl.Output[dsl.Metrics],
    result: dsl.Output[dsl.Artifact],
    name: str = "job",
    runtime: str = "goldpath-torch",
    image: str = "",
    command: list[str] = [],  # noqa: B006
    args: list[str] = [],  # noqa: B006
    env: dict[str, str] = {},  # noqa: B006
    nodes: int = 1,
    processes: int = 0,
    gpu: str = "none",
    deadline_seconds: int = 86400,
    overrides: dict[str, Any] = {},  # noqa: B006
) -> str:
    """Run code of your own as a TrainJob, on any training runtime of the cluster, and wait for its end.

    Args:
        metrics: The last figures that the code reported to the Trainer.
        result: JobResult as JSON.
        name: Tells several such jobs of one run apart.
        runtime: ClusterTrainingRuntime, such as goldpath-mpi or jax-distributed.
        image: Container image; empty takes the runtime's.
        command: Of the container; empty takes the runtime's, or the image's.
        args: Of the command.
        env: Environment variables.
        nodes: How many.
        processes: Of each node; 0 is one a GPU, or as the runtime says.
        gpu: GPU request of each node, such as whole*2 or mig:1g.10gb.
        deadline_seconds: The job is ended after so long, restarts included.
        overrides: {"run_trainjob": {...}}: fields of TrainJobSpec.

    Returns:
        The TrainJob's name.
    """
    from goldpath.core.steps import step
    from goldpath.training.backends.generic import run_trainjob as run
    from goldpath.training.cluster import TrainJobSpec

    with step("run_trainjob") as running:
        asked = TrainJobSpec.from_form(
            overrides,
            runtime=runtime,
            image=image,
            command=command,
            args=args,
            env=env,
            nodes=nodes,
            processes=processes,
            gpu=gpu,
            deadline_seconds=deadline_seconds,
        )
        found = run(name, asked)
        for measure, value in found.metrics.items():
            metrics.log_metric(measure, value)
        running.done(result.path, found, f"TrainJob {found.name} is complete")
        return found.name
