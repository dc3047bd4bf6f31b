"""What a person sees of a local run: KFP's chatter goes to a file, the steps' own lines to the terminal."""

import io
import re
from pathlib import Path
from typing import Final, TextIO

LOG_LINE: Final = re.compile(r"\[KFP Executor [^]]*? ([A-Z]+)\]: (.*)")
"""A line of a step's logger, as KFP formats it."""
CHATTER: Final = re.compile(
    r"Looking for component|Loading KFP component|Got executor_input|Wrote executor output|Skipping"
)
"""How the messages of KFP's executor begin."""
TASK: Final = re.compile(r".* - Executing task '([\w-]+)'")
"""The line of KFP's local runner with which a task begins."""
COLOUR: Final = re.compile(r"\x1b\[\d+m")
"""KFP's control sequences for colours."""
ERROR: Final = "infill: "
"""How a step begins the one sentence that tells a user's mistake."""


class Console(io.TextIOBase):
    """A text stream that writes everything to `log` and to `terminal` what the steps say."""

    def __init__(self, log: Path, terminal: TextIO) -> None:
        self._log = log.open("a", encoding="utf-8")
        self._terminal = terminal
        self._line = ""
        self.error = ""
        """The sentence with which a step ended, without its mark."""

    def write(self, text: str) -> int:
        """Take some text; lines are judged when they are whole."""
        self._log.write(text)
        self._log.flush()
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if shown := self._shown(COLOUR.sub("", line)):
                print(shown, file=self._terminal, flush=True)
        return len(text)

    def _shown(self, line: str) -> str:
        """What of `line` is for the terminal; "" for nothing."""
        if task := TASK.match(line):
            return f"== {task[1]}"
        if logged := LOG_LINE.match(line.strip()):
            return "" if CHATTER.match(logged[2]) else f"   {logged[2]}"
        if line.strip().startswith(ERROR):
            self.error = line.strip().removeprefix(ERROR)
        return ""

    def close(self) -> None:
        """Close the file; the terminal stays open."""
        self._log.close()
        super().close()
