"""The moments at which the editor does not ask by itself, since a suggestion there is rarely what is typed next.

Whoever invokes a completion gets one everywhere. `python -m benchmarks.typing --only trigger` measures what the rules
spare and lose.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from infill.editor.documents import Caret
from infill.text import first_line


class CaretLine(NamedTuple):
    before: str
    after: str


class Rule(NamedTuple):
    """A kind of moment at which nothing is asked."""

    name: str
    holds: Callable[[CaretLine], object]


RULES: Final = (
    Rule("inside a word", lambda line: re.search(r"\w\Z", line.before) and re.match(r"\w", line.after)),
    Rule("before code", lambda line: re.match(r"\s*[^\s)\]}>\"'`;:,]", line.after)),
    Rule("before a long end", lambda line: len(line.after.strip()) > 8),
    Rule("after a semicolon", lambda line: line.before.rstrip().endswith(";")),
    Rule("after a brace", lambda line: re.search(r"\S.*\}\Z", line.before)),
    Rule("after a bracket", lambda line: re.search(r"[\])]\Z", line.before)),
    Rule("after a lone bracket", lambda line: re.fullmatch(r"\s*[\])}]+[;,]?", line.before)),
    Rule("in a comment", lambda line: re.search(r"(?:^|\s)(?:#|//)\s?\S", line.before)),
    Rule("word complete", lambda line: re.search(r"\w{12,}\Z", line.before)),
    Rule("blank line", lambda line: not line.before.strip()),
    Rule("after space", lambda line: re.search(r"\S\s\Z", line.before)),
    Rule("word 1", lambda line: re.search(r"(?:^|\W)\w\Z", line.before)),
    Rule("end of string", lambda line: re.search(r"[\"'`]\Z", line.before)),
)


def why_not(caret: Caret) -> str | None:
    """Return the name of the rule by which nothing is asked at a caret; None where the server is asked."""
    end = max(caret.prefix.rfind("\n"), caret.prefix.rfind("\r")) + 1
    line = CaretLine(caret.prefix[end:], first_line(caret.suffix))
    return next((rule.name for rule in RULES if rule.holds(line)), None)
