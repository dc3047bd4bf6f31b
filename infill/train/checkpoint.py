"""Checkpoints: everything that a training needs to continue as if it had never stopped.

A checkpoint is a folder such as `step_00000100` with one shard per worker: `shard_0.safetensors` with a share of the
weights and moments (each tensor whole, so that any number of workers, with any engine, can read it) and `shard_0.json`,
written last, with the tensors' digest, this worker's part of the state and the number of shards. A checkpoint is
complete when all its shards exist and match their digests; workers do not wait for each other to write one.
"""

import hashlib
import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import safetensors.torch
from torch import Tensor

from infill import storage
from infill.config import TrainConfig
from infill.errors import InfillError

log = logging.getLogger(__name__)

FOLDER: Final = "scratch/checkpoints"
"""Subfolder of a stage's output; `scratch` is removed when the stage is finished."""


class Keep(NamedTuple):
    """A rule for which checkpoints are kept; others are removed as soon as a newer one is complete."""

    last: int = 1
    """Number of newest checkpoints to keep."""
    every: int = 0
    """Also keep those whose step is a multiple of this; 0 means none."""
    best: int = 0
    """Also keep this many with the lowest score on held-out data."""

    def of(self, scores: Mapping[int, float | None]) -> set[int]:
        """Return the steps to keep, given the score of each complete checkpoint by step."""
        newest = sorted(scores, reverse=True)
        ranked = sorted((score, step) for step, score in scores.items() if score is not None)
        spaced = {step for step in newest if self.every and step % self.every == 0}
        return {*newest[: self.last], *spaced, *(step for _, step in ranked[: self.best])}


def rule(config: TrainConfig) -> Keep:
    """Return the rule in `config` for which checkpoints are kept."""
    return Keep(config.keep_checkpoints, config.keep_every, config.keep_best)


class CheckpointWriter:
    """A writer of one worker's shards, in a thread, one at a time.

    `after` is the step from which the training continues: later checkpoints, damaged or unfinished, are removed.
    """

    def __init__(self, output: str, *, rank: int, world: int, keep: Keep, after: int = 0) -> None:
        self.folder = storage.join(output, FOLDER)
        self.rank, self.world, self.keep = rank, world, keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        for step in steps(self.folder) if rank == 0 else ():
            if step > after:
                storage.remove(_place(self.folder, step))

    def save(
        self, step: int, tensors: Iterable[tuple[str, Tensor]], state: Mapping[str, Any], score: float | None = None
    ) -> None:
        """Copy this worker's share of `tensors` and start to write it with `state` (JSON values).

        `score` is the score on held-out data; lower is better. Raises the error of the previous write, such as
        StorageError when the disk is full.
        """
        mine = {}
        for number, (name, tensor) in enumerate(tensors):
            if number % self.world == self.rank:
                mine[name] = tensor.to("cpu", copy=True).contiguous()
        self.wait()
        record = {"step": step, "shards": self.world, "score": score, "state": dict(state)}
        self._thread = threading.Thread(target=self._work, args=(step, mine, record), name="infill-checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being written. Raises the error of the write, if there was one."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def _work(self, step: int, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        try:
            self._write(step, tensors, record)
        except InfillError as error:
            self._error = error

    def _write(self, step: int, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        place = _place(self.folder, step)
        data = safetensors.torch.save(tensors)
        storage.write_bytes(storage.join(place, f"shard_{self.rank}.safetensors"), data)
        digest = hashlib.sha256(data).hexdigest()
        storage.write_json(storage.join(place, f"shard_{self.rank}.json"), {**record, "sha256": digest})
        if self.rank == 0:
            prune(self.folder, self.keep)


def _place(folder: str, step: int) -> str:
    return storage.join(folder, f"step_{step:08d}")


def _records(folder: str) -> dict[int, set[str]]:
    """Return the names of the shards' records by step."""
    records: dict[int, set[str]] = defaultdict(set)
    for uri in storage.list_files(folder, ".json"):
        name, file = uri.split("/")[-2:]
        records[int(name.removeprefix("step_"))].add(file)
    return records


def steps(folder: str) -> list[int]:
    """Return the steps of the checkpoints in `folder`, complete or not, newest first."""
    return sorted(_records(folder), reverse=True)


def prune(folder: str, keep: Keep) -> None:
    """Remove the checkpoints that `keep` does not name, except those that may become the newest complete one."""
    records = _records(folder)
    scores: dict[int, float | None] = {}
    for step, files in records.items():
        if "shard_0.json" in files:
            record = storage.read_json(storage.join(_place(folder, step), "shard_0.json"))
            if {f"shard_{rank}.json" for rank in range(record["shards"])} <= files:
                scores[step] = record.get("score")
    kept = keep.of(scores)
    for step in records:
        if step not in kept and step < max(scores, default=0):
            storage.remove(_place(folder, step))


class Checkpoint:
    """A complete checkpoint: its state, and its tensors by name."""

    def __init__(self, step: int, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.step, self.state, self.tensors = step, state, tensors


def latest(output: str) -> Checkpoint | None:
    """Return the newest complete checkpoint below `output`; None if there is none.

    A damaged or incomplete one is skipped with a warning.
    """
    folder = storage.join(output, FOLDER)
    for step in steps(folder):
        try:
            return _read(_place(folder, step), step)
        except (InfillError, ValueError, KeyError) as error:
            log.warning("skipping the checkpoint of step %d in %s: %s", step, folder, error)
    return None


def _read(place: str, step: int) -> Checkpoint:
    first = storage.read_json(storage.join(place, "shard_0.json"))
    tensors: dict[str, Tensor] = {}
    lanes: dict[str, Any] = {}
    for rank in range(first["shards"]):
        record = storage.read_json(storage.join(place, f"shard_{rank}.json"))
        data = storage.read_bytes(storage.join(place, f"shard_{rank}.safetensors"))
        if hashlib.sha256(data).hexdigest() != record["sha256"] or record["shards"] != first["shards"]:
            raise ValueError(f"shard {rank} does not match its digest")
        tensors |= safetensors.torch.load(data)
        lanes |= record["state"]["lanes"]
    return Checkpoint(step, {**first["state"], "lanes": lanes}, tensors)
