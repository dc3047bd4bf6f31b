"""What a training leaves behind as it goes: `history.jsonl`, one JSON object a logged step, and `samples.jsonl`, one
each time that a fixed hole is completed.

A resumed training first drops what was logged after its checkpoint, so the files are those of an undisturbed run (but
for the times).
"""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from infill import storage

FILE_NAME: Final = "history.jsonl"
SAMPLES_FILE: Final = "samples.jsonl"
WRITE_EVERY_S: Final = 15.0
"""Least time between two writes of a file to an object store ..."""
WRITE_SHARE: Final = 0.01
"""... which may take this share of the time: the whole file is written each time."""
Row = dict[str, Any]


def read(output: str, name: str = FILE_NAME) -> list[Row]:
    """The rows logged so far; a last line that was cut off by a kill is left out."""
    uri = storage.join(output, name)
    if not storage.exists(uri):
        return []
    lines = storage.read_bytes(uri).decode("utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


class Tail:
    """The rows of a growing file, without reading again what was read; from the start where it was rewritten."""

    def __init__(self, output: str, name: str = FILE_NAME) -> None:
        self.uri = storage.join(output, name)
        self.read = 0
        """Bytes of whole lines."""

    def new(self) -> list[Row]:
        """Rows that were not there before; after a rewrite all of them come again."""
        if not storage.exists(self.uri):
            return []
        fs, path = storage.filesystem(self.uri)
        size = fs.size(path)
        if size == self.read:
            return []
        start = self.read if size > self.read else 0
        whole, end, _ = fs.cat_file(path, start=start).rpartition(b"\n")
        try:
            rows = [json.loads(line) for line in whole.split(b"\n") if line]
        except ValueError:
            if not start:
                raise
            self.read = 0  # it was rewritten, and we began in the middle of a line
            return self.new()
        self.read = start + len(whole) + len(end)
        return rows


class History:
    """Appends rows on a local disk; an object store cannot append, so there the whole file is written now and then."""

    def __init__(self, output: str, step: int, *, writes: bool = True) -> None:
        """Go on behind `step`. Of several workers one `writes`; the others' rows are its own again."""
        self.output, self.writes = output, writes
        self.lines: dict[str, list[str]] = {}
        self.waiting: set[str] = set()
        self.next_write = 0.0
        for name in (FILE_NAME, SAMPLES_FILE) if writes else ():
            self.lines[name] = [json.dumps(row) + "\n" for row in read(output, name) if row["step"] <= step]
            if storage.exists(storage.join(output, name)):
                self._write(name)

    def append(self, row: Mapping[str, Any]) -> None:
        """Log a step."""
        self._add(FILE_NAME, [row])

    def show(self, step: int, tokens: int, samples: Iterable[Mapping[str, Any]]) -> None:
        """Log completions of the fixed holes."""
        self._add(SAMPLES_FILE, [{"step": step, "tokens": tokens, **sample} for sample in samples])

    def flush(self) -> None:
        """Return when all that was logged is in the store; a checkpoint must not be ahead of its history."""
        for name in self.waiting:
            self._write(name)
        self.waiting.clear()

    def _add(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if not self.writes:
            return
        new = [json.dumps(row) + "\n" for row in rows]
        self.lines[name] += new
        uri = storage.join(self.output, name)
        if not storage.is_local(uri):
            self.waiting.add(name)
            started = time.monotonic()
            if started >= self.next_write:
                self.flush()
                took = time.monotonic() - started
                self.next_write = time.monotonic() + max(WRITE_EVERY_S, took / WRITE_SHARE)
        elif storage.exists(uri):
            with storage.local_path(uri).open("a", encoding="utf-8") as file:
                file.writelines(new)
        else:
            self._write(name)

    def _write(self, name: str) -> None:
        storage.write_bytes(storage.join(self.output, name), "".join(self.lines[name]).encode())


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
    losses = [row["loss"] for row in rows if "loss" in row] or [math.nan]
    found = {
        "loss_first": losses[0],
        "loss_last": losses[-1],
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
