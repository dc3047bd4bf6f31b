"""What a training is doing, from its folder alone: `infill train status OUT` on a running or a dead run."""

from datetime import UTC, datetime
from typing import Any, Final

from infill import storage
from infill.errors import InputError
from infill.train import checkpoint, export, history

SILENT_S: Final = 120.0
"""A run that has logged nothing for so long, and for three times as long as between its last rows, has stopped."""


def status(output: str) -> dict[str, Any]:
    """State ("finished", "running", "stopped"), figures of the last row, seconds left, and steps of the checkpoints.

    Raises InputError when there is no training in `output`.
    """
    rows = history.read(output)
    if not rows:
        raise InputError(f"there is no training in {output}: it has no {history.FILE_NAME} yet")
    row = rows[-1]
    names = ("step", "steps", "tokens", "loss", "validation_loss", "bits_per_byte", "tokens_per_s", "skipped")
    found = {name: row[name] for name in names if name in row}
    found["checkpoints"] = checkpoint.steps(storage.join(output, checkpoint.FOLDER))
    found["silent_s"] = round(_age(storage.join(output, history.FILE_NAME)), 1)
    if export.finished(output):
        return {"state": "finished", **found}
    # `seconds` starts again when a run is resumed; a fall between two rows says nothing about their distance.
    pause = max(0.0, row["seconds"] - rows[-2]["seconds"]) if len(rows) > 1 else 0.0
    running = found["silent_s"] < max(SILENT_S, 3 * pause)
    left = (row["steps"] - row["step"]) * row["tokens"] / row["step"] / max(row["tokens_per_s"], 1e-9)
    return {"state": "running" if running else "stopped", **found, "seconds_left": round(left, 1)}


def _age(uri: str) -> float:
    """Seconds since the file was written."""
    fs, path = storage.filesystem(uri)
    return float((datetime.now(UTC) - fs.modified(path).astimezone(UTC)).total_seconds())
