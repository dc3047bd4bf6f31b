"""The state of a running or ended training, from its folder: the command `infill train status OUT`."""

import fcntl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from infill import storage
from infill.errors import InputError
from infill.train import checkpoint, export, history

SILENT_S: Final = 120.0
"""Seconds without a log entry, and at least three of its intervals, after which a run without a lock counts as
stopped."""


def status(output: str) -> dict[str, Any]:
    """Return the state ("starting", "running", "stopped", "finished") of a training with its latest figures.

    The figures are those of the last row, the seconds left, and the checkpoints' steps. Raises InputError when there is
    no training in `output`.
    """
    rows, held = history.read(output), _held(output)
    if not rows:
        if held:
            return {"state": "starting"}
        if not storage.exists(output):
            raise InputError(f"there is nothing at {output}: name the output folder of a training")
        raise InputError(f"there is no training in {output}: it has no {history.FILE_NAME} yet")
    row = rows[-1]
    names = ("step", "steps", "tokens", "loss", "validation_loss", "bits_per_byte", "tokens_per_s", "mfu", "skipped")
    figures = {name: row[name] for name in names if name in row}
    figures["checkpoints"] = checkpoint.steps(storage.join(output, checkpoint.FOLDER))
    figures["silent_s"] = round(_age(storage.join(output, history.FILE_NAME)), 1)
    if export.finished(output):
        return {"state": "finished", **figures}
    running = figures["silent_s"] < max(SILENT_S, 3 * row["lap_s"]) if held is None else held
    left = round(history.seconds_left(row), 1)
    return {"state": "running" if running else "stopped", **figures, "seconds_left": left}


def _held(output: str) -> bool | None:
    """Return whether a process of this machine holds the lock of the stage's folder; None if there is no lock."""
    lock = Path(f"{storage.local_path(output)}.lock") if storage.is_local(output) else None
    if lock is None or not lock.exists():
        return None
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _age(uri: str) -> float:
    """Return the seconds since the file was written."""
    fs, path = storage.filesystem(uri)
    return float((datetime.now(UTC) - fs.modified(path).astimezone(UTC)).total_seconds())
