"""What a training leaves behind as it goes: `history.jsonl`, one JSON object a logged step, and `samples.jsonl`, one
each time that a fixed hole is completed.

A resumed training first drops what was logged after its checkpoint, so the files are those of an undisturbed run (but
for the times).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from infill import storage

FILE_NAME: Final = "history.jsonl"
SAMPLES_FILE: Final = "samples.jsonl"
Row = dict[str, Any]


def read(output: str, name: str = FILE_NAME) -> list[Row]:
    """The rows logged so far; a last line that was cut off by a kill is left out."""
    uri = storage.join(output, name)
    if not storage.exists(uri):
        return []
    lines = storage.read_bytes(uri).decode("utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


class History:
    """Appends rows on a local disk; in an object store, which cannot append, the whole file is written each time."""

    def __init__(self, output: str, step: int) -> None:
        self.output = output
        self.rows: dict[str, list[Row]] = {}
        for name in (FILE_NAME, SAMPLES_FILE):
            self.rows[name] = [row for row in read(output, name) if row["step"] <= step]
            if storage.exists(storage.join(output, name)):
                self._write(name)

    def append(self, row: Mapping[str, Any]) -> None:
        """Log a step."""
        self._add(FILE_NAME, [row])

    def show(self, step: int, tokens: int, samples: Iterable[Mapping[str, Any]]) -> None:
        """Log completions of the fixed holes."""
        self._add(SAMPLES_FILE, [{"step": step, "tokens": tokens, **sample} for sample in samples])

    def _add(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows[name] += map(dict, rows)
        uri = storage.join(self.output, name)
        if not storage.is_local(uri) or not storage.exists(uri):
            self._write(name)
            return
        with storage.local_path(uri).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    def _write(self, name: str) -> None:
        text = "".join(json.dumps(row) + "\n" for row in self.rows[name])
        storage.write_bytes(storage.join(self.output, name), text.encode())


def with_margins(sums: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Sums and counts by name, with those of `loss/python/fim` also added to `loss/python` and to `loss/fim`."""
    found = dict(sums)
    for name, (total, count) in sums.items():
        what, *groups = name.split("/")
        for group in groups if len(groups) > 1 else ():
            before = found.get(f"{what}/{group}", (0.0, 0.0))
            found[f"{what}/{group}"] = (before[0] + total, before[1] + count)
    return found


def metrics(output: str) -> dict[str, float]:
    """What a stage reports of its history: the first and the last loss, steps, tokens, and the last validation.

    `filled` is the share of all positions that were not padding.
    """
    rows = read(output)
    starts = [0, *(row["step"] for row in rows)]
    found = {
        "loss_first": rows[0]["loss"],
        "loss_last": rows[-1]["loss"],
        "steps": rows[-1]["step"],
        "tokens": rows[-1]["tokens"],
        "flops": rows[-1]["flops"],
        "skipped": rows[-1]["skipped"],
        "filled": 1 - sum(r["padding"] * (r["step"] - s) for r, s in zip(rows, starts, strict=False)) / starts[-1],
    }
    for name in ("validation_loss", "bits_per_byte", "accuracy", "margin"):
        values = [row[name] for row in rows if name in row]
        if values:
            found[name] = values[-1]
    return {name: float(value) for name, value in found.items()}


def spent(rows: Sequence[Row]) -> dict[tuple[str, int], float]:
    """Seconds of training by device and number of workers, over all starts; what was lost by kills is not known."""
    found: dict[tuple[str, int], float] = {}
    for row in rows:
        key = row["device"], row["workers"]
        found[key] = found.get(key, 0.0) + row["lap_s"]
    return found


def seconds_left(row: Row) -> float:
    """What the steps behind `row` will take at its rate."""
    tokens = (row["steps"] - row["step"]) * row["tokens"] / row["step"]
    return float(tokens / max(row["tokens_per_s"], 1e-9))
