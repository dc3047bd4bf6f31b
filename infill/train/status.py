"""What a training is doing, from its folder alone: `infill train status OUT` on a running or a dead run."""

import fcntl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from infill import storage
from infill.errors import InputError
from infill.train import checkpoint, export, history

SILENT_S: Final = 120.0
"""A run that nobody can ask has stopped when it has logged nothing for so long, and for three of its pauses."""


def status(output: str) -> dict[str, Any]:
    """State ("starting", "running", "stopped", "finished"), figures of the last row, seconds left, checkpoints' steps.

    Raises InputError when there is no training in `output`.
    """
    rows, held = history.read(output), _held(output)
    if not rows:
        if held:
            return {"state": "starting"}
        if not storage.exists(output):
            raise InputError(f"there is nothing at {output}: give the folder that a training writes to")
        raise InputError(f"there is no training in {output}: it has no {history.FILE_NAME} yet")
    row = rows[-1]
    names = ("step", "steps", "tokens", "loss", "validation_loss", "bits_per_byte", "tokens_per_s", "mfu", "skipped")
    found = {name: row[name] for name in names if name in row}
    found["checkpoints"] = checkpoint.steps(storage.join(output, checkpoint.FOLDER))
    found["silent_s"] = round(_age(storage.join(output, history.FILE_NAME)), 1)
    if export.finished(output):
        return {"state": "finished", **found}
    running = found["silent_s"] < max(SILENT_S, 3 * row["lap_s"]) if held is None else held
    left = round(history.seconds_left(row), 1)
    return {"state": "running" if running else "stopped", **found, "seconds_left": left}


def _held(output: str) -> bool | None:
    """Whether a process of this machine holds the lock of the stage's folder (`infill.stages`); None: nobody knows."""
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
    """Seconds since the file was written."""
    fs, path = storage.filesystem(uri)
    return float((datetime.now(UTC) - fs.modified(path).astimezone(UTC)).total_seconds())
