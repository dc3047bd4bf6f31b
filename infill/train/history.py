"""The history of a training, as JSON lines.

`history.jsonl` has one object per logged step, `samples.jsonl` one per completion of a fixed hole.
A resumed training first removes the rows after its checkpoint, so the files are those of an uninterrupted run, except
for the times.
"""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from infill import manifest, storage

FILE_NAME: Final = manifest.HISTORY_FILE
SAMPLES_FILE: Final = manifest.SAMPLES_FILE
WRITE_EVERY_S: Final = 15.0
"""Minimum time between two writes of a file to an object store."""
WRITE_SHARE: Final = 0.01
"""Maximum share of the time for these writes, each of which writes the whole file."""
Row = dict[str, Any]


def read(output: str, name: str = FILE_NAME) -> list[Row]:
    """Return the rows logged so far, without a last line that a kill has cut off."""
    uri = storage.join(output, name)
    if not storage.exists(uri):
        return []
    lines = storage.read_bytes(uri).decode("utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


class HistoryTail:
    """A reader of the new rows of a growing file; it starts again if the file was rewritten."""

    def __init__(self, output: str, name: str = FILE_NAME) -> None:
        self.uri = storage.join(output, name)
        self.read = 0
        """Number of bytes read, in whole lines."""

    def new(self) -> list[Row]:
        """Return the rows that were added since the last call; after a rewrite, all rows."""
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
            self.read = 0  # the file was rewritten, and this began in the middle of a line
            return self.new()
        self.read = start + len(whole) + len(end)
        return rows


class History:
    """A writer of rows: it appends on a local disk; to an object store it writes the whole file from time to time."""

    def __init__(self, output: str, step: int, *, writes: bool = True) -> None:
        """Continue after `step`. Only one of several workers `writes`, since all have the same rows."""
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
        """Write all logged rows to the store; a checkpoint must not be ahead of its history."""
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
    """Return sums and counts by name, with those of `loss/python/fim` also added to `loss/python` and `loss/fim`."""
    totals = dict(sums)
    for name, (total, count) in sums.items():
        what, *groups = name.split("/")
        for group in groups if len(groups) > 1 else ():
            before = totals.get(f"{what}/{group}", (0.0, 0.0))
            totals[f"{what}/{group}"] = (before[0] + total, before[1] + count)
    return totals


def metrics(output: str) -> dict[str, float]:
    """Return a stage's metrics from its history: first and last loss, steps, tokens, and the last validation.

    `filled` is the share of all positions that were not padding.
    """
    rows = read(output)
    starts = [0, *(row["step"] for row in rows)]
    losses = [row["loss"] for row in rows if "loss" in row] or [math.nan]
    figures = {
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
            figures[name] = values[-1]
    return {name: float(value) for name, value in figures.items()}


def spent(rows: Sequence[Row]) -> dict[tuple[str, int], float]:
    """Return the seconds of training by device and number of workers, over all starts, without time lost by kills."""
    seconds: dict[tuple[str, int], float] = {}
    for row in rows:
        key = row["device"], row["workers"]
        seconds[key] = seconds.get(key, 0.0) + row["lap_s"]
    return seconds


def seconds_left(row: Row) -> float:
    """Return the seconds that the steps after `row` will take at its rate."""
    tokens = (row["steps"] - row["step"]) * row["tokens"] / row["step"]
    return float(tokens / max(row["tokens_per_s"], 1e-9))
