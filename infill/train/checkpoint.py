"""Checkpoints: everything that a training needs to go on as if it had never stopped.

A checkpoint is a folder `step_00000100` of one shard per worker: `shard_0.safetensors` with a share of the weights and
moments (each tensor whole, so that any number of workers, with any engine, can read it) and `shard_0.json`, written
last, with the tensors' digest, this worker's part of the state and the number of shards. A checkpoint is whole when all
its shards are there and agree with their digests; no worker waits for another to write one.
"""

import hashlib
import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

import safetensors.torch
from torch import Tensor

from infill import storage
from infill.errors import InfillError

log = logging.getLogger(__name__)

FOLDER: Final = "scratch/checkpoints"
"""Below a stage's output; scratch is removed when the stage is finished."""


class Writer:
    """Writes one worker's shards in a thread; at most one is on its way."""

    def __init__(self, output: str, *, rank: int, world: int, keep: int) -> None:
        self.folder = storage.join(output, FOLDER)
        self.rank, self.world, self.keep = rank, world, keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, tensors: Iterable[tuple[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Copy this worker's share of `tensors` and start to write it with `state` (JSON values).

        Raises what writing the one before raised: StorageError when the disk is full.
        """
        mine = {}
        for number, (name, tensor) in enumerate(tensors):
            if number % self.world == self.rank:
                mine[name] = tensor.to("cpu", copy=True).contiguous()
        self.wait()
        self._thread = threading.Thread(target=self._work, args=(step, mine, dict(state)), name="infill-checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being written. Raises what writing raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def _work(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        try:
            self._write(step, tensors, state)
        except InfillError as error:
            self._error = error

    def _write(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        place = storage.join(self.folder, f"step_{step:08d}")
        data = safetensors.torch.save(tensors)
        storage.write_bytes(storage.join(place, f"shard_{self.rank}.safetensors"), data)
        digest = hashlib.sha256(data).hexdigest()
        record = {"step": step, "shards": self.world, "sha256": digest, "state": state}
        storage.write_json(storage.join(place, f"shard_{self.rank}.json"), record)
        if self.rank == 0:
            for old in steps(self.folder)[self.keep :]:
                storage.remove(storage.join(self.folder, f"step_{old:08d}"))


def steps(folder: str) -> list[int]:
    """Steps of the checkpoints in `folder`, whole or not, newest first."""
    names = {uri.split("/")[-2] for uri in storage.list_files(folder, ".json")}
    return sorted((int(name.removeprefix("step_")) for name in names), reverse=True)


class Checkpoint:
    """A whole checkpoint: its state and its tensors by name."""

    def __init__(self, step: int, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.step, self.state, self.tensors = step, state, tensors


def latest(output: str) -> Checkpoint | None:
    """The newest checkpoint below `output` that is whole; None when there is none.

    One that is damaged or incomplete is passed over with a warning.
    """
    folder = storage.join(output, FOLDER)
    for step in steps(folder):
        try:
            return _read(storage.join(folder, f"step_{step:08d}"), step)
        except (InfillError, ValueError, KeyError) as error:
            log.warning("checkpoint of step %d in %s is passed over: %s", step, folder, error)
    return None


def _read(place: str, step: int) -> Checkpoint:
    first = storage.read_json(storage.join(place, "shard_0.json"))
    tensors: dict[str, Tensor] = {}
    lanes: dict[str, Any] = {}
    for rank in range(first["shards"]):
        record = storage.read_json(storage.join(place, f"shard_{rank}.json"))
        data = storage.read_bytes(storage.join(place, f"shard_{rank}.safetensors"))
        if hashlib.sha256(data).hexdigest() != record["sha256"] or record["shards"] != first["shards"]:
            raise ValueError(f"shard {rank} does not agree with its digest")
        tensors |= safetensors.torch.load(data)
        lanes |= record["state"]["lanes"]
    return Checkpoint(step, {**first["state"], "lanes": lanes}, tensors)
