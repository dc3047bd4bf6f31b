"""The progress display and tracking of a training: rows of its history, as they appear.

The driver follows the history in the store, so the training may run in another process or on another machine.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from infill import storage, tracking
from infill.train import history
from infill.train.history import Row

log = logging.getLogger(__name__)

SAY_EVERY_S: Final = 15.0
"""Seconds between two lines if there is no terminal."""
NOT_TRACKED: Final = ("step", "steps", "tokens", "device", "workers")
SAMPLES_TABLE: Final = "samples"
"""Name of the table of completions in MLflow."""


class Display:
    """A progress bar on a terminal, otherwise a log line from time to time."""

    def __init__(self, label: str, console: Console | None = None) -> None:
        self.label = label
        self.said = time.monotonic()
        console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self.bar = (
            Progress(*columns, TextColumn("{task.fields[figures]}"), console=console) if console.is_terminal else None
        )
        self.task = None if self.bar is None else self.bar.add_task(label, figures="starting", total=None)
        if self.bar is not None:
            self.bar.start()

    def show(self, row: Row) -> None:
        figures = (
            f"loss {row.get('loss', float('nan')):.3f}  {row['tokens']:,} tokens  {row['tokens_per_s']:,.0f} tokens/s"
            f"  {clock(history.seconds_left(row))} left"
        )
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=row["step"], total=row["steps"], figures=figures)
        elif time.monotonic() - self.said > SAY_EVERY_S or row["step"] == row["steps"]:
            self.said = time.monotonic()
            log.info("%s: step %d of %d  %s", self.label, row["step"], row["steps"], figures)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def clock(seconds: float) -> str:
    """Return hours, minutes and seconds as text: 0:07, 12:05, 3:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextlib.contextmanager
def following(output: str, label: str) -> Iterator[None]:
    """Show and track each row that appears in the history of `output` while the block runs."""
    display = Display(label)
    ended = threading.Event()
    pause = 0.5 if storage.is_local(output) else 15.0

    def follow() -> None:
        seen = shown = 0
        rows, samples = history.HistoryTail(output), history.HistoryTail(output, history.SAMPLES_FILE)
        while True:
            last = ended.wait(pause)
            for row in (row for row in rows.new() if row["step"] > seen):  # a restart repeats some
                seen = row["step"]
                display.show(row)
                values = {name: value for name, value in row.items() if name not in NOT_TRACKED}
                tracking.current().metrics(values, step=row["tokens"])
            new = samples.new()
            if new and new[-1]["step"] > shown:
                shown = new[-1]["step"]
                tracking.current().table(SAMPLES_TABLE, history.read(output, history.SAMPLES_FILE))
            if last:
                return

    thread = threading.Thread(target=follow, name="infill-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        display.close()
