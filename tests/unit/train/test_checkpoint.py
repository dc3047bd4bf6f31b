"""Checkpoints appear whole, are verified, and are kept by a rule."""

import logging
import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infill.errors import StorageError
from infill.train import checkpoint
from infill.train.checkpoint import Keep
from tests.properties import examples
from tests.unit.train import runs

TENSORS = [
    ("weight/a", torch.arange(6.0).reshape(2, 3)),
    ("weight/b", torch.tensor([1.5])),
    ("exp_avg/a", torch.ones(3)),
]


TWO = Keep(last=2)


def write(
    output: Path, step: int, world: int = 2, keep: Keep = TWO, score: float | None = None, after: int = 10**6
) -> None:
    for rank in reversed(range(world)):
        writer = checkpoint.CheckpointWriter(str(output), rank=rank, world=world, keep=keep, after=after)
        writer.save(step, TENSORS, {"step": step, "lanes": {str(rank): {"row": rank}}}, score)
        writer.wait()


def kept(output: Path) -> list[int]:
    return checkpoint.steps(str(output / checkpoint.FOLDER))


def test_the_shards_of_all_workers_make_one_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 10)
    latest = checkpoint.latest(str(tmp_path))
    assert latest is not None
    assert latest.step == 10
    assert latest.state == {"step": 10, "lanes": {"0": {"row": 0}, "1": {"row": 1}}}
    assert all(torch.equal(latest.tensors[name], tensor) for name, tensor in TENSORS)


def test_nothing_is_not_a_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.latest(str(tmp_path)) is None


@pytest.mark.parametrize("damage", ["flip", "cut", "no shard", "no record", "no json"])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    write(tmp_path, 10)
    write(tmp_path, 20)
    folder = tmp_path / checkpoint.FOLDER / "step_00000020"
    shard, record = folder / "shard_1.safetensors", folder / "shard_1.json"
    data = shard.read_bytes()
    damages: dict[str, Callable[[], object]] = {
        "flip": lambda: shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1])),
        "cut": lambda: shard.write_bytes(data[:-8]),
        "no shard": shard.unlink,
        "no record": record.unlink,
        "no json": lambda: record.write_text("{"),
    }
    damages[damage]()
    with caplog.at_level(logging.WARNING):
        latest = checkpoint.latest(str(tmp_path))
    assert latest is not None
    assert latest.step == 10
    assert "step 20" in caplog.text


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        write(tmp_path, step, world=1)
    assert kept(tmp_path) == [30, 20]


def test_regular_ones_and_the_best_are_kept_too(tmp_path: Path) -> None:
    scores = {10: 3.0, 20: 2.0, 30: 2.5, 40: 2.7, 50: 2.6, 60: 2.9}
    for step, score in scores.items():
        write(tmp_path, step, world=1, keep=Keep(last=1, every=40, best=2), score=score)
    assert kept(tmp_path) == [60, 40, 30, 20]


@examples(60)
@given(
    st.dictionaries(st.integers(1, 60), st.none() | st.floats(0, 5), min_size=1),
    st.builds(Keep, st.integers(1, 3), st.integers(0, 9), st.integers(0, 3)),
)
def test_the_rule_keeps_what_it_says(scores: dict[int, float | None], keep: Keep) -> None:
    result = keep.of(scores)
    assert max(scores) in result
    assert result <= set(scores)
    assert sum(step > min(result) for step in scores) + 1 >= min(keep.last, len(scores))
    assert all(step in result for step in scores if keep.every and step % keep.every == 0)
    entries = [step for step, score in scores.items() if score is not None]
    if entries and keep.best:
        assert min(entries, key=lambda step: (scores[step], step)) in result


def test_the_last_whole_one_outlives_a_newer_one_that_is_not_whole_yet(tmp_path: Path) -> None:
    """The first worker is done with step 20, and the second is killed before it is."""
    write(tmp_path, 10, keep=Keep(1))
    writer = checkpoint.CheckpointWriter(str(tmp_path), rank=0, world=2, keep=Keep(1), after=10)
    writer.save(20, TENSORS, {"lanes": {}})
    writer.wait()
    assert kept(tmp_path) == [20, 10]
    latest = checkpoint.latest(str(tmp_path))
    assert latest is not None
    assert latest.step == 10


def test_what_follows_the_step_that_is_gone_on_from_is_removed(tmp_path: Path) -> None:
    """Else shards of two runs could make one checkpoint."""
    write(tmp_path, 10)
    write(tmp_path, 20)
    checkpoint.CheckpointWriter(str(tmp_path), rank=1, world=2, keep=Keep(1), after=10)
    assert kept(tmp_path) == [20, 10]
    checkpoint.CheckpointWriter(str(tmp_path), rank=0, world=2, keep=Keep(1), after=10)
    assert kept(tmp_path) == [10]


def test_a_checkpoint_is_a_copy_of_the_moment(tmp_path: Path) -> None:
    weight = torch.zeros(3)
    writer = checkpoint.CheckpointWriter(str(tmp_path), rank=0, world=1, keep=Keep())
    writer.save(1, [("weight/a", weight)], {"lanes": {}})
    weight += 1
    writer.wait()
    latest = checkpoint.latest(str(tmp_path))
    assert latest is not None
    assert not latest.tensors["weight/a"].any()


def fill(folder: Path) -> None:
    """What a process does in which no file may be longer than one of the checkpoint's shards (its kernel says so)."""
    writer = checkpoint.CheckpointWriter(str(folder), rank=0, world=1, keep=Keep(1), after=10)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    writer.save(20, TENSORS, {"lanes": {}})
    try:
        writer.wait()
    except StorageError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        (folder / "told").write_text(str(error))


def test_a_full_disk_is_reported_in_a_sentence_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 10, world=1)
    assert runs.ended(runs.start(fill, tmp_path)) is not None
    content = (tmp_path / "told").read_text()
    assert re.fullmatch(
        r"cannot write \S+shard_0.safetensors: File too large; check free space and permissions", content
    )
    assert not list(tmp_path.rglob("*.partial"))
    latest = checkpoint.latest(str(tmp_path))
    assert latest is not None
    assert latest.step == 10
