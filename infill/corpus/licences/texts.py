"""Licence texts: recognise a text by comparing all of its words with known texts.

The known texts are in `texts/<SPDX identifier>.txt`; a line `%%` separates variants. In a text, `<<holder>>` matches a
number of words, `<<project>>` a few, `[[...]]` is optional, and `{{a|b}}` is one of several wordings. Two files are
about no single licence: `references.txt` has sentences that only name licences, each after a line with the expression,
and `notices.txt` has what takes nothing away: grants of further rights, and remarks about other files, which are judged
by their own statements. The rest of a text, without the known
texts in it, must consist of lines that do not change the terms (titles, copyright lines); any other line makes the
licence unknown, however the text begins.
"""

import functools
import html
import itertools
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final

from infill.corpus.licences import spdx, wording
from infill.text import decode, split_lines

NOTICES: Final = "notices"
"""The file of known texts that do not license anything, such as appendices about how to apply a licence."""
REFERENCES: Final = "references"
"""The file of known sentences that name licences."""
_MAX_WILDCARD: Final = 40
"""Maximum number of words that `<<...>>` matches."""
PROJECT: Final = "<<project>>"
_MAX_PROJECT: Final = 5
"""Maximum number of words that PROJECT matches."""
_SENTENCE: Final = re.compile(r"(?<=[.:;!?])\s+")
"""Matches what is between two sentences."""

_TAGS: Final = re.compile(
    r"</?(?:a|b|body|br|center|code|dd|div|dl|dt|em|font|h[1-6]|head|hr|html|i|li|link|meta|ol|p|pre|section|span|strong"
    r"|table|tbody|td|th|title|tr|tt|u|ul)\b[^>]*>",
    re.IGNORECASE,
)
_ENUMERATORS: Final = re.compile(
    r"\((?:[a-z]|[ivx]{1,4}|\d{1,2})\)|(?<![\w.])(?:\d{1,2}|[a-z])[.)](?=\s|$)", re.IGNORECASE
)
_WORD: Final = re.compile(r"[^\W_]+")
_QUOTES: Final = re.compile("['`´‘’]")
_SPELLING: Final = {"licence": "license", "licences": "licenses", "licenced": "licensed", "https": "http"}
_SPLIT_WORDS: Final = {"noninfringement": "non ?infringement", "sublicense": "sub ?license"}
"""Word -> pattern that also matches its spelling with a hyphen."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a text, or the rest of one."""

    raw: str
    """The line as written in the file, without surrounding blanks."""
    words: tuple[str, ...]
    number: int


@dataclass(frozen=True)
class Recognition:
    """The known licence texts in a text, and its other lines."""

    licences: tuple[str, ...]
    """SPDX identifiers of the known texts in it."""
    rest: tuple[Line, ...]
    """Its other lines."""


@functools.lru_cache(maxsize=1024)
def take_out(text: str) -> Recognition:
    """Return the known licence texts in `text`, and the lines that belong to none of them."""
    lines = _lines(text)
    flat = "".join(f"{word} " for line in lines for word in line.words)
    covered = bytearray(len(flat))
    licences: list[str] = []
    sentences = _Sentences(lines)
    for template in _templates():
        for start, end in template.occurrences(flat, sentences):
            if not any(covered[start:end]):
                covered[start:end] = b"\1" * (end - start)
                licences += [template.licence] if template.licence != NOTICES else []
    return Recognition(tuple(dict.fromkeys(licences)), tuple(_uncovered(lines, covered)))


def _lines(text: str) -> list[Line]:
    if re.search(r"</?(p|br|html|body|pre|div|h\d)\b", text, re.IGNORECASE):
        text = html.unescape(_TAGS.sub(" ", text))
    lines = (Line(raw.strip(), tuple(words_of(raw)), number) for number, raw in enumerate(split_lines(text)))
    return [line for line in lines if line.words]


def words_of(text: str) -> list[str]:
    """Return the words of `text` in lower case, without numbering, apostrophes and differences of spelling."""
    return [_SPELLING.get(word, word) for word in map(str.lower, _cased_words(text))]


def _cased_words(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", text.replace("©", " copyright "))
    return _WORD.findall(_QUOTES.sub("", _ENUMERATORS.sub(" ", text)))


def _uncovered(lines: Sequence[Line], covered: Sequence[int]) -> Iterator[Line]:
    position = 0
    for line in lines:
        left: list[int] = []
        for number, word in enumerate(line.words):
            if not covered[position]:
                left.append(number)
            position += len(word) + 1
        if len(left) == len(line.words):
            yield line
        elif left:
            cased = _cased_words(line.raw)
            yield Line(
                " ".join(cased[number] for number in left), tuple(line.words[number] for number in left), line.number
            )


class _Sentences:
    """The sentences of a text, by the offset of their words in the flat text."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines

    def begins(self, offset: int) -> bool:
        """Return whether a line or a sentence begins at `offset`, or the text ends."""
        place = bisect_left(self._breaks, offset)
        return place < len(self._breaks) and self._breaks[place] == offset

    def names_project(self, start: int, end: int) -> bool:
        """Return whether the words from `start` to `end` are the name of a project.

        They are in one line and sentence, and capitalised but for words of descriptions and two others ("compiler_rt").
        """
        if bisect_right(self._breaks, start) < bisect_left(self._breaks, end):
            return False
        words = self._written[bisect_left(self._offsets, start) : bisect_left(self._offsets, end)]
        return not spdx.restricts(map(str.lower, words)) and wording.is_plain(" ".join(words), strangers=2)

    @functools.cached_property
    def _written(self) -> list[str]:
        """The words as they are written."""
        return [word for line in self._lines for word in _cased_words(line.raw)]

    @functools.cached_property
    def _offsets(self) -> list[int]:
        sizes = (len(word) + 1 for line in self._lines for word in line.words)
        return list(itertools.accumulate(sizes, initial=0))

    @functools.cached_property
    def _breaks(self) -> list[int]:
        """The offsets at which a line or a sentence begins, in order, and the end."""
        numbers, first = [], 0
        for line in self._lines:
            sentences = _SENTENCE.split(line.raw)
            counts = [len(words_of(sentence)) for sentence in sentences]
            starts = itertools.accumulate(counts[:-1], initial=0) if sum(counts) == len(line.words) else [0]
            numbers += [first + start for start in starts]
            first += len(line.words)
        return [self._offsets[number] for number in dict.fromkeys([*numbers, first])]


# Templates


@dataclass(frozen=True)
class _Template:
    licence: str
    text: str
    anchor: str
    """Words that are part of every occurrence; searching for them first is fast."""
    size: int
    is_sentence: bool
    """Whether it only names licences, and so must be a whole sentence."""

    def occurrences(self, flat: str, sentences: "_Sentences") -> Iterator[tuple[int, int]]:
        if self.anchor not in flat:
            return
        start, expression = 0, _compiled(self.text)
        while (match := expression.search(flat, start)) is not None:
            if self._holds(match, sentences):
                yield match.span()
                start = match.end()
            else:
                start = flat.index(" ", match.start()) + 1

    def _holds(self, match: re.Match[str], sentences: "_Sentences") -> bool:
        """Return whether what the wildcards match are names, and a sentence about licences is a whole sentence."""
        if any(spdx.restricts_more_than_a_name(part.split()) for part in match.groups() if part):
            return False
        projects = [match.span(group) for group, part in match.groupdict().items() if part]
        is_open = self.is_sentence or any(start == match.start() for start, _ in projects)
        if is_open and not sentences.begins(match.start()):
            return False
        if self.is_sentence and not sentences.begins(match.end()):
            return False
        return all(sentences.names_project(start, end) for start, end in projects)


_MARKS: Final = re.compile(r"(<<\w+>>|\[\[|\]\]|\{\{|\}\}|\|)")


@functools.cache
def _templates() -> tuple[_Template, ...]:
    """Return the known texts, the longest first, because some contain others."""
    templates = []
    for file in resources.files(__package__).joinpath("texts").iterdir():
        name, _, kind = file.name.rpartition(".")
        if kind == "txt":
            templates += [_template(name, text) for text in decode(file.read_bytes()).split("\n%%\n")]
    return tuple(sorted(templates, key=lambda template: (-template.size, template.licence)))


def _template(licence: str, text: str) -> _Template:
    if is_sentence := licence == REFERENCES:
        first, _, text = text.partition("\n")
        licence = first.removeprefix("SPDX: ")
    depth, runs = 0, [""]
    for part in _MARKS.split(text):
        depth += (part in ("[[", "{{")) - (part in ("]]", "}}"))
        if part.startswith("<<") or part in ("[[", "{{"):
            runs.append("")
        elif depth == 0 and part not in ("]]", "}}", "|"):
            for word in words_of(part):
                if word in _SPLIT_WORDS:
                    runs.append("")
                else:
                    runs[-1] += f"{word} "
    return _Template(licence, text, max(runs, key=len), len(words_of(text)), is_sentence)


@functools.lru_cache(maxsize=256)
def _compiled(text: str) -> re.Pattern[str]:
    project = rf"(?P<project_%d>(?:\S+ ){{1,{_MAX_PROJECT}}}?)"
    any_words = rf"((?:\S+ ){{0,{_MAX_WILDCARD}}}?)"
    special = {"[[": "(?:", "]]": ")?", "{{": "(?:(?:", "}}": "))", "|": ")|(?:"}
    parts: list[str] = []
    for part in _MARKS.split(text):
        if part.startswith("<<"):
            parts.append(project % len(parts) if part == PROJECT else any_words)
        elif part in special:
            parts.append(special[part])
        else:
            parts += [f"{_SPLIT_WORDS.get(word, re.escape(word))} " for word in words_of(part)]
    return re.compile(r"(?<!\S)" + "".join(parts))
