"""Training on a Ray whose nodes come and go, hang, or are all killed: real raylets in processes of this machine."""

import functools
import itertools
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from infill.train import history, objectives, trainer, workers
from infill.train.batch import Batch
from infill.train.training_job import TrainingJob
from tests.unit.train import runs
from tests.unit.train.runs import TRAIN, job

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_200)]


class Nodes:
    """A Ray cluster: a head without room for workers, and nodes with room for one, which come and go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": 80_000_000, "include_dashboard": False},
        )

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=80_000_000)

    def announce(self, node: Any) -> None:
        """Say that `node` goes in a minute, as a cloud does with a machine that it takes back."""
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]

        reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
        client = GcsClient(address=self.cluster.address)
        accepted, why = client.drain_node(node.node_id, reason, "taken back", int(time.time() + 60) * 1_000)
        assert accepted, why

    def remove(self, node: Any) -> None:
        """Take `node` away without a word."""
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    created = Nodes()
    yield created
    created.cluster.shutdown()  # type: ignore[no-untyped-call]


def fit(training: TrainingJob, address: str) -> None:
    """Train on the Ray at `address`; empty is one of this process's own."""
    os.environ.pop("RAY_ADDRESS", None)
    if address:
        os.environ["RAY_ADDRESS"] = address
    trainer.fit(training)


def slowly(log_probs: torch.Tensor, batch: Batch) -> objectives.Result:
    time.sleep(0.1)
    return objectives.language_model(log_probs, batch)


def wait(folder: Path, process: BaseProcess, done: Callable[[history.Row], bool]) -> history.Row:
    """The last row once it is as wished."""
    end = time.monotonic() + 300
    while not (rows := history.read(str(folder / "out"))) or not done(rows[-1]):
        assert time.monotonic() < end, f"this did not come: {rows[-1:]}"
        assert process.is_alive(), f"the training has ended with {process.exitcode}"
        time.sleep(0.1)
    return rows[-1]


def reached(step: int, row: history.Row) -> bool:
    return int(row["step"]) >= step


def stretches(rows: Sequence[history.Row]) -> list[tuple[int, int]]:
    """The numbers of workers of which the rows tell, one after the other, each with its last step."""
    groups = itertools.groupby(rows, key=lambda row: int(row["workers"]))
    return [(workers, int(list(group)[-1]["step"])) for workers, group in groups]


def test_nodes_come_and_go(tmp_path: Path, nodes: Nodes) -> None:
    """Where a node is announced to go, or one comes, no step is lost; where one is lost, those since a checkpoint."""
    train = replace(TRAIN, steps=220, min_workers=1, log_every=1, checkpoint_every=1_000)
    first, second = nodes.add(), nodes.add()
    process = runs.start(fit, job(tmp_path, train, slowly), nodes.cluster.address)
    wait(tmp_path, process, lambda row: row["workers"] == 2)
    nodes.announce(first)
    wait(tmp_path, process, lambda row: row["workers"] == 1)
    nodes.remove(first)
    nodes.add()
    grown = wait(tmp_path, process, lambda row: row["workers"] == 2)
    before = history.read(str(tmp_path / "out"))
    (two, _), (one, resized), (two_again, _) = stretches(before)
    assert (two, one, two_again) == (2, 1, 2)
    assert [row["step"] for row in before] == list(range(1, grown["step"] + 1))
    nodes.remove(second)
    shrunk = wait(tmp_path, process, lambda row: row["workers"] == 1)
    assert shrunk["step"] >= resized
    assert runs.ended(process, 300) == 0
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    assert runs.ended(runs.start(trainer.fit, job(undisturbed, replace(train, workers=1, launcher="local"))), 300) == 0
    hit, expected = (history.read(str(folder / "out")) for folder in (tmp_path, undisturbed))
    assert [row["tokens"] for row in hit] == [row["tokens"] for row in expected]
    for row, other in zip(hit, expected, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-3)


def hanging(file: Path, log_probs: torch.Tensor, batch: Batch) -> objectives.Result:
    """Hangs once, in the 20th micro-batch of the worker that gets there first."""
    hanging.calls += 1  # type: ignore[attr-defined]
    if hanging.calls == 20 and not file.exists():  # type: ignore[attr-defined]
        file.touch()
        time.sleep(10_000)
    return objectives.language_model(log_probs, batch)


hanging.calls = 0  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training by two DeepSpeed workers that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert [runs.ended(process) for process in runs.group(job(folder), folder / "met")] == [0, 0]
    return folder


def test_a_worker_that_hangs_is_ended_and_replaced(
    tmp_path: Path, ray_address: str, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = job(tmp_path, replace(TRAIN, timeout_s=20), functools.partial(hanging, tmp_path / "hung"))
    with caplog.at_level(logging.WARNING, workers.log.name):
        trainer.fit(training)
    assert "of the training hung (no progress for 20 s, the value of train.timeout_s)" in caplog.text
    assert "hanging" in "".join(file.read_text() for file in (tmp_path / "out" / "logs").glob("hang_rank_*.txt"))
    assert runs.same_bits(undisturbed, tmp_path)


def test_everything_is_killed_with_the_ray_that_was_started_for_it(tmp_path: Path, undisturbed: Path) -> None:
    for step in (3, 7):
        process = runs.start(fit, job(tmp_path, replace(TRAIN, log_every=1), slowly), "")
        wait(tmp_path, process, functools.partial(reached, step))
        assert process.pid is not None
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert any("raylet" in each.name() for each in family)
        for each in family:
            each.kill()
        psutil.wait_procs(family, timeout=30)
    assert runs.ended(runs.start(fit, job(tmp_path, replace(TRAIN, log_every=1), slowly), ""), 200) == 0
    assert runs.same_bits(undisturbed, tmp_path)
