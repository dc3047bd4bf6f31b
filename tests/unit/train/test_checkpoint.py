"""Checkpoints appear whole, are verified, and are kept by a rule."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from infill.errors import StorageError
from infill.train import checkpoint

TENSORS = [
    ("weight/a", torch.arange(6.0).reshape(2, 3)),
    ("weight/b", torch.tensor([1.5])),
    ("exp_avg/a", torch.ones(3)),
]


def write(output: Path, step: int, world: int = 2, keep: int = 2) -> None:
    for rank in reversed(range(world)):
        writer = checkpoint.Writer(str(output), rank=rank, world=world, keep=keep)
        writer.save(step, TENSORS, {"step": step, "lanes": {str(rank): {"row": rank}}})
        writer.wait()


def test_the_shards_of_all_workers_make_one_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 10)
    found = checkpoint.latest(str(tmp_path))
    assert found is not None
    assert found.step == 10
    assert found.state == {"step": 10, "lanes": {"0": {"row": 0}, "1": {"row": 1}}}
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS)


def test_nothing_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.latest(str(tmp_path)) is None


@pytest.mark.parametrize("damage", ["flip", "cut", "no shard", "no record", "no json"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
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
        found = checkpoint.latest(str(tmp_path))
    assert found is not None
    assert found.step == 10
    assert "step 20" in caplog.text


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        write(tmp_path, step, world=1)
    assert checkpoint.steps(str(tmp_path / checkpoint.FOLDER)) == [30, 20]


def test_a_checkpoint_is_a_copy_of_the_moment(tmp_path: Path) -> None:
    weight = torch.zeros(3)
    writer = checkpoint.Writer(str(tmp_path), rank=0, world=1, keep=1)
    writer.save(1, [("weight/a", weight)], {"lanes": {}})
    weight += 1
    writer.wait()
    found = checkpoint.latest(str(tmp_path))
    assert found is not None
    assert not found.tensors["weight/a"].any()


def test_a_full_disk_stops_the_training_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 10, world=1)
    writer = checkpoint.Writer(str(tmp_path), rank=0, world=1, keep=1)

    def full(_uri: str, _data: bytes) -> None:
        raise StorageError("no space left")

    monkeypatch.setattr("infill.storage.write_bytes", full)
    writer.save(20, TENSORS, {"lanes": {}})
    with pytest.raises(StorageError, match="no space left"):
        writer.wait()
    monkeypatch.undo()
    found = checkpoint.latest(str(tmp_path))
    assert found is not None
    assert found.step == 10
