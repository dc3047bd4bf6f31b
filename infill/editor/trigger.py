"""The moments at which the editor does not ask by itself, since a suggestion there is rarely what is typed next.

Whoever invokes a completion gets one everywhere, and a suggestion that the user types through stays.
`python -m benchmarks.keystrokes --only trigger` measures what the rules spare and lose; docs/log.md has the rules that
lost more than they spared: after closing brackets, semicolons and strings, in comments, on blank lines.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from infill.editor.documents import Caret
from infill.text import first_line

LONG_END: Final = 8
"""Characters of code after the caret on its line above which the line counts as written (llama.vim has the same)."""


class CaretLine(NamedTuple):
    """The caret's line."""

    before: str
    after: str


class TriggerRule(NamedTuple):
    """A kind of moment at which nothing is asked."""

    name: str
    holds: Callable[[CaretLine], bool]


def _inside_a_word(line: CaretLine) -> bool:
    return bool(re.search(r"\w\Z", line.before) and re.match(r"\w", line.after))


def _before_code(line: CaretLine) -> bool:
    return len(line.after.strip()) > LONG_END


RULES: Final = (TriggerRule("inside a word", _inside_a_word), TriggerRule("before code", _before_code))


def why_not(caret: Caret) -> str | None:
    """Return the name of the rule by which nothing is asked at a caret; None where the server is asked."""
    start = max(caret.prefix.rfind("\n"), caret.prefix.rfind("\r")) + 1
    line = CaretLine(caret.prefix[start:], first_line(caret.suffix))
    return next((rule.name for rule in RULES if rule.holds(line)), None)
