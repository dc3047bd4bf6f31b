"""The output of a local run: everything goes to a log file, only the steps and their progress to the terminal."""

import contextlib
import io
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TextIO

LOG_LINE: Final = re.compile(r"\[KFP Executor [^]]*? ([A-Z]+)\]: (.*)")
"""A line of a step's logger, as KFP formats it."""
CHATTER: Final = re.compile(
    r"Looking for component|Loading KFP component|Got executor_input|Wrote executor output|Skipping"
)
"""The beginnings of messages of KFP's executor, which are not shown."""
TASK: Final = re.compile(r".* - Executing task '([\w-]+)'")
"""The line of KFP's local runner with which a task begins."""
ENDED: Final = re.compile(r".* - Task '([\w-]+)' finished with status (\w+)")
"""The line of KFP's local runner with which a task ends."""
PROGRESS: Final = re.compile(r"\d+ of \d+")
"""The part of a line by which it is recognised as progress."""
COLOUR: Final = re.compile(r"\x1b\[\d+m")
"""KFP's control sequences for colours."""
ERROR: Final = "infill: "
"""The beginning of the sentence in which a step reports a user's mistake."""
CONDITIONAL: Final = "deploy"
"""The step that a run skips when no model passes the gate."""
SILENT_S: Final = 25.0
"""Seconds without a line after which the terminal shows that the step is still running."""
DENSE_S: Final = 2.0
"""Least seconds between lines of progress; others are left out, except a step's last one."""
INDENT: Final = "   "


def span(seconds: float) -> str:
    """Return a duration as m:ss, or as h:mm:ss from one hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Console(io.TextIOBase):
    """A text stream that writes everything to `log`, and only the steps, their progress and times to `terminal`."""

    def __init__(
        self,
        log: Path,
        terminal: TextIO,
        steps: Mapping[str, str],
        *,
        silent_s: float = SILENT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the stream; `steps` maps KFP's name of each task to ours, as in `watch.step_names`."""
        self._log = log.open("a", encoding="utf-8", errors="backslashreplace")
        self._terminal = terminal
        self._steps = steps
        self._clock = clock
        self._lock = threading.RLock()
        self._line = ""
        self._step = ""
        self._count = 0
        self._begun = self._step_begun = self._printed = clock()
        self._held = ""
        self._closed = threading.Event()
        self.error = ""
        """The sentence with which a step failed, without ERROR."""
        self._pulse = threading.Thread(target=self._beat, args=(silent_s,), name="console", daemon=True)
        self._pulse.start()

    def write(self, text: str) -> int:
        """Write text to the log, and to the terminal the parts of complete lines that belong there."""
        with self._lock:
            self._log.write(text)
            self._log.flush()
            *lines, self._line = (self._line + text).split("\n")
            for line in lines:
                self._show(COLOUR.sub("", line))
        return len(text)

    def close(self) -> None:
        """Close the log file; the terminal stays open."""
        self._closed.set()
        self._pulse.join()
        self._log.close()
        super().close()

    def _show(self, line: str) -> None:
        """Print the part of a line that belongs on the terminal, if any."""
        if task := TASK.match(line):
            self._begin(task[1])
        elif (ended := ENDED.match(line)) and ended[1] in self._steps:
            self._end(ended[2] == "SUCCESS")
        elif logged := LOG_LINE.match(line.strip()):
            if not CHATTER.match(logged[2]):
                self._progress(logged[2].removeprefix(f"{self._step.split('-')[0]}: "))
        elif line.strip().startswith(ERROR):
            self.error = line.strip().removeprefix(ERROR)

    def _begin(self, task: str) -> None:
        name = self._steps.get(task, task)
        names = list(self._steps.values())
        if CONDITIONAL in names and self._count == names.index(CONDITIONAL) and name != CONDITIONAL:
            self._count += 1
            self._say(f"stage {self._count} of {len(names)}: {CONDITIONAL}, skipped: no model passed the gate")
        self._count += 1
        self._step, self._step_begun = name, self._clock()
        elapsed = span(self._step_begun - self._begun)
        self._say(f"stage {self._count} of {len(names)}: {name.replace('-', ' ')} (after {elapsed})")

    def _end(self, succeeded: bool) -> None:
        if self._held:
            self._say(INDENT + self._held)
        self._held = ""
        self._say(f"{INDENT}{'done in' if succeeded else 'failed after'} {span(self._clock() - self._step_begun)}")
        self._step = ""

    def _progress(self, text: str) -> None:
        if PROGRESS.search(text) and self._clock() - self._printed < DENSE_S:
            self._held = text
        else:
            self._held = ""
            self._say(INDENT + text)

    def _say(self, line: str) -> None:
        self._printed = self._clock()
        with contextlib.suppress(OSError):  # a closed terminal does not end the run
            print(line, file=self._terminal, flush=True)

    def _beat(self, silent_s: float) -> None:
        """Print that the step is still running after each silent period, until the console is closed."""
        while not self._closed.wait(min(1.0, silent_s / 5)):
            with self._lock:
                if self._step and self._clock() - self._printed >= silent_s:
                    self._say(f"{INDENT}{self._held or 'running'}, {span(self._clock() - self._step_begun)} so far")
                    self._held = ""
