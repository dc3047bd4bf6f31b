"""Syntax-aware truncation: where a completion that is still being generated should have ended.

A model that has learned to fill in the middle ends with its hole, most of the time. Where it continues, the rest is
noise to the user and time that the server owes to others. Four rules end an answer. Each is certain from the lines that
have arrived, so they work on a stream:

- bracket: it closes a bracket that the text after the caret closes already;
- unit: the function at the caret is complete, and something else begins;
- line: it repeats the rest of the caret's line;
- echo: it repeats the lines after the caret.

SAFIM (arXiv 2403.04814) truncates whole outputs by their syntax after the generation. Here tree-sitter parses a line in
its file as it arrives, but only a line that could end the answer. Only what the grammar takes for a bracket is one, so
those in strings and comments are text.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final, NamedTuple

from tree_sitter import Node, Query, QueryCursor

from infill import syntax
from infill.errors import InputError

log: Final = logging.getLogger(__name__)
BRACKET: Final = "bracket"
UNIT: Final = "unit"
LINE: Final = "line"
ECHO: Final = "echo"
RULES: Final = (BRACKET, UNIT, LINE, ECHO)

_MAX_CHARS: Final = 200_000
"""A longer file is not parsed: each time takes a tenth of a second."""
_DISTINCT: Final = 5
"""Fewest letters and digits of a line that is not in two places by chance."""
_PAIRS: Final = {"(": ")", "[": "]", "{": "}"}
_CLOSING: Final = frozenset(_PAIRS.values())
_BRACKET: Final = re.compile(r"[$#]?[(\[{]|[)\]}]")
"""Brackets in all grammars, with the opening ones of interpolations."""
_NOT_BLANK: Final = re.compile(r"^.*\S.*$", re.MULTILINE)
_NAMELESS: Final = re.compile("lambda|closure|arrow|anonymous|literal|expression")
"""Kinds of functions that are parts of a statement, which continues after them."""


class Truncation:
    """A filter of one completion's text: it passes what certainly belongs to the answer, until a rule ends it."""

    def __init__(self, prefix: str, suffix: str, language: str | None) -> None:
        """Take the text around the caret; without a grammar for `language` only repetitions are noticed."""
        self.chars = len(prefix) + len(suffix)
        line = prefix[prefix.rfind("\n") + 1 :]
        self._indent = None if line.strip() else line
        """White space before the caret; None where anything else stands before it on its line."""
        rest, _, below = suffix.partition("\n")
        self._rest = rest.strip() if self._indent is None else ""
        """The rest of a line that begins before the caret."""
        self._next, self._second = _first_two(below if self._indent is None else self._indent + suffix)
        self._follows = suffix[: len(suffix) - len(suffix.lstrip())]
        """White space after the caret."""
        self._trees = _Trees.of(prefix, suffix, language)
        self._text = ""
        self._end = 0
        """Where the last line ends that has been checked, or where the answer ends."""
        self._repeated: int | None = None
        """Where the last line begins if it repeats the next one of the file: the line after it decides."""
        self._released = 0
        self.rule: str | None = None
        """The rule that has ended the answer; None while it continues."""

    def feed(self, text: str) -> str:
        """Add `text`; return the text that no rule can remove any more, so without the last white space."""
        start, self._text = len(self._text), self._text + text
        for place, character in enumerate(text, start + 1):
            if character == "\n":
                self._check(place)
        return self._release(self._text[: self._certain()].rstrip())

    def flush(self) -> str:
        """Return the rest of the answer at the end of the input."""
        if self._end < len(self._text):
            self._check(len(self._text), last=True)
        if self._repeated is not None:
            self._stop(ECHO, self._before_line(self._repeated))
        return self._release(self._text[: self._end])

    def _certain(self) -> int:
        """Return the length of the text that no rule can remove, whatever follows."""
        start, line = self._end, self._text[self._end :]
        if self.rule or self._repeated is not None:
            return start if self._repeated is None else self._repeated
        if self._next.startswith(self._whole(line, start) or "\n"):
            return start
        if self._trees is not None:
            if start and self._trees.may_follow(self._text[:start], line):
                return start
            line = line[: next((place for place, character in enumerate(line) if character in _CLOSING), len(line))]
        if not start and _is_distinct(self._rest):
            line = line[: next(place for place in range(len(line) + 1) if self._rest.startswith(line[place:].rstrip()))]
        return start + len(line)

    def _check(self, end: int, *, last: bool = False) -> None:
        """Apply the rules to the line that ends at `end`; the `last` one may be incomplete."""
        start, line = self._end, self._text[self._end : end].rstrip()
        if self.rule:
            return
        self._end = end
        if not line.strip():
            return
        repeated, self._repeated = self._repeated, None
        if repeated is not None and (self._second.startswith(line) if last else line == self._second):
            self._stop(ECHO, self._before_line(repeated))
        elif rule := next(self._endings(line, start, end), None):
            self._stop(*rule)
        elif self._whole(line, start) == self._next and _is_distinct(line):
            self._repeated = start

    def _stop(self, rule: str, place: int) -> None:
        self.rule, self._end, self._repeated = rule, place, None

    def _whole(self, line: str, start: int) -> str | None:
        """Return the line with what stands before the caret, if that is white space; None for the end of a line."""
        if start:
            return line
        return None if self._indent is None else self._indent + line

    def _endings(self, line: str, start: int, end: int) -> Iterator[tuple[str, int]]:
        """Yield each rule that ends the answer in the line, and the place where it does."""
        if not start and _is_distinct(self._rest) and line.endswith(self._rest):
            yield LINE, len(line) - len(self._rest)
        if self._trees is None:
            return
        try:
            if start and self._trees.unit_ended(self._text, start, end):
                yield UNIT, self._before_line(start)
            if (place := self._trees.bracket(self._text, start, end)) is not None:
                yield BRACKET, place if self._text[start:place].strip() else self._before_line(start, place)
        except syntax.SlowParseError as error:
            log.warning("%s: the answer is not truncated by its syntax", error)
            self._trees = None

    def _before_line(self, start: int, place: int = 0) -> int:
        """Return the end of an answer whose last line begins at `start` and is not part of it.

        The suffix begins with the break or the indentation that follows, or else with the text of that line at `place`.
        """
        if "\n" in self._follows:
            return len(self._text[:start].rstrip())
        return start if self._follows or not place else place

    def _release(self, text: str) -> str:
        start, self._released = self._released, max(self._released, len(text))
        return self._text[start : self._released]


class _Bracket(NamedTuple):
    start: int
    """Offset in bytes."""
    text: str


class _Trees:
    """The syntax of the file with what has arrived of the answer."""

    def __init__(self, before: str, after: str, language: str) -> None:
        """Take the text around the caret and its language. Raises InputError if its grammar is not installed."""
        self._before = before.encode("utf-8", "surrogatepass")
        self._after = after.encode("utf-8", "surrogatepass")
        self._line = before[before.rfind("\n") + 1 :]
        self._language = language
        self._roles = syntax.roles(language)

    @classmethod
    def of(cls, before: str, after: str, language: str | None) -> "_Trees | None":
        """Return the syntax around a caret; None without a grammar, or for a file that is too long."""
        if language is None or not _has_grammar(language) or len(before) + len(after) > _MAX_CHARS:
            return None
        return cls(before, after, language)

    def bracket(self, text: str, start: int, end: int) -> int | None:
        """Return where the first bracket in `text[start:end]` stands that the suffix closes too; None if none does.

        The file parses without errors if the answer ends before that bracket, and does not if it ends after it.
        """
        if not _CLOSING.intersection(text[start:end]) or _is_paired(text[:end]):
            return None
        answer, line = _encoded(text[:end]), len(_encoded(text[:start]))
        caret = len(self._before)
        for bracket in _unpaired(self._brackets(self._parse(answer, b""), caret, caret + len(answer))):
            place = bracket.start - caret
            if place >= line and self._is_sound(answer[:place]) and not self._is_sound(answer[: place + 1]):
                return _characters(answer[:place])
        return None

    def unit_ended(self, text: str, start: int, end: int) -> bool:
        """Return whether the outermost function at the caret has ended before the line `text[start:end]`."""
        if not self.may_follow(text[:start], text[start:end]):
            return False
        line = len(self._before) + len(_encoded(text[:start]))
        root = self._parse(_encoded(text[:end]), b"")
        function = self._function(root, len(self._before) + len(text) - len(text.lstrip()))
        if function is None or function.has_error or function.end_byte > line:
            return False
        # A grammar that knows functions without a body takes an incomplete one for that.
        return not _is_open(self._brackets(root, function.start_byte, line))

    def may_follow(self, answer: str, line: str) -> bool:
        """Return whether a line, or what has arrived of it, is indented as if a function of the answer had ended."""
        if line.lstrip()[:1] in _CLOSING:
            return False
        first, *lines = (self._line + answer).split("\n")
        return _indent(line) < _indent(first) or any(_indent(each) > _indent(line) == _indent(first) for each in lines)

    def _function(self, root: Node, place: int) -> Node | None:
        """Return the outermost function that contains the byte at `place`."""
        function: Node | None = None
        node = root.descendant_for_byte_range(place, place + 1)
        while node is not None:
            if self._roles.get(node.kind_id) == "function" and not _NAMELESS.search(node.type):
                function = node
            node = node.parent
        return function

    def _brackets(self, root: Node, low: int, high: int) -> list[_Bracket]:
        """Return the brackets in the bytes [low, high), in order."""
        cursor = QueryCursor(_query(self._language))
        cursor.set_byte_range(low, high)
        nodes = cursor.captures(root).get("bracket", [])
        return sorted(_Bracket(node.start_byte, node.type) for node in nodes if low <= node.start_byte < high)

    def _parse(self, answer: bytes, after: bytes) -> Node:
        return syntax.parse(self._before + answer + after, self._language).root_node

    def _is_sound(self, answer: bytes) -> bool:
        return not self._parse(answer, self._after).has_error


@cache
def _has_grammar(language: str) -> bool:
    if language not in syntax.LANGUAGES:
        return False
    try:
        syntax.grammar(language)
    except InputError as error:
        log.warning("answers in %s are not truncated by their syntax: %s", language, error)
        return False
    return True


@cache
def _query(language: str) -> Query:
    """Return a query for the brackets of a language."""
    known = syntax.grammar(language)
    kinds = {known.node_kind_for_id(number) or "" for number in range(known.node_kind_count)}
    names = sorted(kind for kind in kinds if _BRACKET.fullmatch(kind) and known.id_for_node_kind(kind, False))
    return Query(known, "[" + " ".join(f'"{name}"' for name in names) + "] @bracket")


def _unpaired(brackets: Iterable[_Bracket]) -> Iterator[_Bracket]:
    """Yield the closing brackets that close none of those before them."""
    opened: list[str] = []
    for bracket in brackets:
        if bracket.text[-1] in _PAIRS:
            opened.append(_PAIRS[bracket.text[-1]])
        elif opened and opened[-1] == bracket.text:
            opened.pop()
        else:
            yield bracket


def _is_open(brackets: Iterable[_Bracket]) -> bool:
    """Return whether more brackets open than close."""
    return sum(1 if bracket.text[-1] in _PAIRS else -1 for bracket in brackets) > 0


def _is_paired(text: str) -> bool:
    """Return whether no bracket closes more than the text itself opens, those in strings and comments included."""
    characters = (_Bracket(0, character) for character in text if character in _PAIRS or character in _CLOSING)
    return next(_unpaired(characters), None) is None


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _characters(source: bytes) -> int:
    """Return the number of characters of UTF-8 `source`: of bytes that continue none."""
    return sum(byte & 0xC0 != 0x80 for byte in source)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _is_distinct(line: str) -> bool:
    return sum(map(str.isalnum, line)) >= _DISTINCT


def _first_two(text: str) -> tuple[str, str]:
    """Return the first two lines that are not blank, without white space at their ends; empty where there is none."""
    lines = (match[0].rstrip() for match in _NOT_BLANK.finditer(text))
    return next(lines, ""), next(lines, "")
