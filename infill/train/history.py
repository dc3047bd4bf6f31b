"""`history.jsonl`: one JSON object a logged step, written as the training goes.

A resumed training first drops what was logged after its checkpoint, so the file is that of an undisturbed run (but for
the times).
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from infill import storage

FILE_NAME: Final = "history.jsonl"
Row = dict[str, Any]


def read(output: str) -> list[Row]:
    """The rows logged so far; a last line that was cut off by a kill is left out."""
    uri = storage.join(output, FILE_NAME)
    if not storage.exists(uri):
        return []
    lines = storage.read_bytes(uri).decode("utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


class History:
    """Appends rows on a local disk; in an object store, which cannot append, `flush` writes the whole file."""

    def __init__(self, output: str, step: int) -> None:
        self.uri = storage.join(output, FILE_NAME)
        self.rows = [row for row in read(output) if row["step"] <= step]
        self.flush(force=True)

    def append(self, row: Mapping[str, Any]) -> None:
        self.rows.append(dict(row))
        if storage.is_local(self.uri):
            with storage.local_path(self.uri).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def flush(self, *, force: bool = False) -> None:
        """Make the file hold all rows."""
        if force or not storage.is_local(self.uri):
            storage.write_bytes(self.uri, "".join(json.dumps(row) + "\n" for row in self.rows).encode())


def metrics(output: str) -> dict[str, float]:
    """What a stage reports of its history: the first and the last loss, steps, tokens, and the last validation."""
    rows = read(output)
    found = {
        "loss_first": rows[0]["loss"],
        "loss_last": rows[-1]["loss"],
        "steps": rows[-1]["step"],
        "tokens": rows[-1]["tokens"],
        "skipped": rows[-1]["skipped"],
    }
    for name in ("validation_loss", "bits_per_byte", "accuracy", "margin"):
        values = [row[name] for row in rows if name in row]
        if values:
            found[name] = values[-1]
    return {name: float(value) for name, value in found.items()}
