"""A trial's measures reach Katib's DB manager, here a gRPC server that reads them with protobuf's own decoder."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from goldpath.core.errors import StepError
from goldpath.core.ports import free_port
from goldpath.training import katib
from goldpath.training.katib import Reporter

STRING, MESSAGE = 9, 11
SHAPES: dict[str, list[tuple[str, int, bool]]] = {
    "Metric": [("name", STRING, False), ("value", STRING, False)],
    "MetricLog": [("time_stamp", STRING, False), ("metric", MESSAGE, False)],
    "ObservationLog": [("metric_logs", MESSAGE, True)],
    "Report": [("trial_name", STRING, False), ("observation_log", MESSAGE, False)],
}
TYPES = {"metric": "Metric", "metric_logs": "MetricLog", "observation_log": "ObservationLog"}


def decoder() -> Any:
    """The message as api.proto of Katib describes it."""
    file = descriptor_pb2.FileDescriptorProto(name="api.proto", package="katib", syntax="proto3")
    for name, fields in SHAPES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, many) in enumerate(fields, 1):
            made = message.field.add(name=field, number=number, type=kind, label=3 if many else 1)
            if kind == MESSAGE:
                made.type_name = f".katib.{TYPES[field]}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("katib.Report"))


class Manager:
    """A DB manager: `fail` requests are refused before the rest is taken."""

    def __init__(self) -> None:
        self.reports: list[Any] = []
        self.fail = 0
        self.server = grpc.server(ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(self._take, request_deserializer=decoder().FromString)
        service = grpc.method_handlers_generic_handler(
            "api.v1.beta1.DBManager", {"ReportObservationLog": handler}
        )
        self.server.add_generic_rpc_handlers((service,))
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def _take(self, request: Any, context: Any) -> bytes:
        if self.fail:
            self.fail -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "the database is away")
        self.reports.append(request)
        return b""

    @property
    def measures(self) -> list[tuple[str, str]]:
        return [
            (one.metric.name, one.metric.value)
            for report in self.reports
            for one in report.observation_log.metric_logs
        ]


@pytest.fixture
def manager() -> Iterator[Manager]:
    made = Manager()
    yield made
    made.server.stop(None).wait()


def test_measures_are_pushed_under_the_trials_name(
    manager: Manager, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Reporter("trial-" + "x" * 200, manager.address)
    reporter.row({"step": 1.0, "loss": 2.5, "learning_rate": 1e-3})
    reporter.row({"step": 2.0, "loss": 1e-05, "eval_loss": 1.25, "eval_token_accuracy": 0.5})
    reporter.close()
    assert {report.trial_name for report in manager.reports} == {"trial-" + "x" * 200}
    assert manager.measures == [
        ("train_loss", "2.5"),
        ("eval_loss", "1.25"),
        ("eval_token_accuracy", "0.5"),
        ("train_loss", "1e-05"),
    ]
    stamp = manager.reports[0].observation_log.metric_logs[0].time_stamp
    assert stamp.endswith("Z")
    assert "T" in stamp
    # What the StdOut collector reads, one a line.
    assert capsys.readouterr().out.splitlines() == [f"{name}={value}" for name, value in manager.measures]


def test_a_measure_that_was_refused_comes_with_the_next(manager: Manager) -> None:
    manager.fail = 1
    reporter = Reporter("trial", manager.address)
    reporter.row({"eval_loss": 2.0})
    assert manager.measures == []
    reporter.row({"eval_loss": 1.0})
    assert manager.measures == [("eval_loss", "2.0"), ("eval_loss", "1.0")]


def test_the_last_measures_are_tried_again_at_the_end(manager: Manager) -> None:
    manager.fail = 3
    reporter = Reporter("trial", manager.address, pause_s=0.01)
    reporter.row({"eval_loss": 2.0})
    reporter.close()
    assert manager.measures == [("eval_loss", "2.0")]


def test_a_manager_that_is_never_reached_fails_the_trial() -> None:
    address = f"127.0.0.1:{free_port()}"
    reporter = Reporter("trial-1", address, pause_s=0.001)
    reporter.row({"eval_loss": 2.0})
    with pytest.raises(StepError, match=f"trial-1 did not reach Katib's DB manager at {address}"):
        reporter.close()


def test_whole_curves_are_left_in_the_storage(tmp_path: Path) -> None:
    folder = f"local://{tmp_path}/curves"
    reporter = Reporter("trial-1", curves=folder)
    reporter.row({"step": 1, "loss": 3.0})
    assert katib.curve(folder, "trial-1", "eval_loss") == []
    reporter.row({"step": 2, "loss": 2.5, "eval_loss": 2.0})
    assert katib.curve(folder, "trial-1", "eval_loss") == [(2, 2.0)], "there before the trial has ended"
    reporter.row({"step": 4, "loss": 2.0, "eval_loss": 1.5})
    reporter.row({"step": 4, "eval_loss": 1.25})
    assert katib.curve(folder, "trial-1", "eval_loss") == [(2, 2.0), (4, 1.25)]
    assert katib.curve(folder, "trial-1", "train_loss") == [(1, 3.0), (2, 2.5), (4, 2.0)]


def test_a_storage_that_is_away_costs_a_picture_and_no_trial() -> None:
    reporter = Reporter("trial-1", curves="file:///proc/goldpath")
    reporter.row({"step": 1, "eval_loss": 2.0})
    reporter.close()


def test_a_pod_knows_its_trial_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KATIB_TRIAL_NAME", raising=False)
    assert Reporter.of_this_pod() is None
    monkeypatch.setenv("KATIB_TRIAL_NAME", "tuning-abc")
    monkeypatch.setenv(katib.KATIB_VARIABLE, "db:6789")
    monkeypatch.setenv(katib.CURVES_VARIABLE, "s3://a/curves")
    found = Reporter.of_this_pod()
    assert found is not None
    assert (found.trial, found.address, found.curves) == ("tuning-abc", "db:6789", "s3://a/curves")
