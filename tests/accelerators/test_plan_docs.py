"""What docs/plan.md shows is what the commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from goldpath.accelerators import models, plan
from goldpath.accelerators.training_memory import estimate
from goldpath.accelerators.training_shape import TrainingShape
from goldpath.cli.main import cli

PAGE = (Path(__file__).parents[2] / "docs" / "plan.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```console\n\$ goldpath ([^\n]*)\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_shows_commands() -> None:
    assert len(SHOWN) >= 3


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_a_command_of_the_page_prints_what_it_shows(command: str, shown: str) -> None:
    done = CliRunner().invoke(cli, shlex.split(command))
    assert done.exit_code == 0
    assert [line.rstrip() for line in done.output.splitlines()] == shown.rstrip().splitlines()


def test_the_python_of_the_page_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["needed"] == estimate(
        models.load("Llama-3.1-8B"), TrainingShape(method="qlora", sequence_length=2048, batch_size=2)
    )
    assert isinstance(names["here"], plan.Verdict)
