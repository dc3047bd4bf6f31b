"""Recognise the licence in a licence file: known texts and names, and no other line that could change their terms."""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from infill.corpus.licences import mentions, spdx, texts, wording
from infill.corpus.licences.texts import Line


@dataclass(frozen=True)
class Statement:
    """A statement about a licence, and its evidence."""

    expression: str
    """An SPDX expression, or `NOASSERTION` if the statement is not recognised."""
    evidence: str = ""
    """The file and the words in it that decided, for a human reader."""

    @property
    def is_known(self) -> bool:
        return self.expression != spdx.UNKNOWN


_COPYRIGHT: Final = re.compile(
    r"^(?:[\W_]|\b(?:portions|parts|some|original|this|work|code|contributions|modifications|of|the|are|is|and|"
    r"software|library|implementation|additional|javascript|python|version)\b)*"
    r"(?:\(c\)|©|copyrights?\b|copr\b|copyleft\b)",
    re.IGNORECASE,
)
_WRITTEN: Final = re.compile(r"\W*(?:originally )?written by\s+(?=\w)", re.IGNORECASE)
UNRECOGNISED: Final = "LicenseRef-unrecognised"
"""Part of the expression for a text that is not recognised, in addition to the licences that it mentions."""
_BUNDLED_BINARY: Final = re.compile(
    r"^Name:.*\n(?:Description:.*\n)?Files:(?:[ \t,]*\S+\.(?:so|dll|dylib|a|lib|pyd|exe)[*.\d]*,?)+[ \t]*\n"
    r"(?:(?!^Name:).*\n?)*",
    re.MULTILINE,
)
"""Matches an entry of a list of bundled software that covers only compiled libraries, which are not in the corpus."""
MAX_LINE: Final = 4_000
"""A longer line, in characters, is never a name, a heading or a list of holders, and would take the patterns long."""
_ADDRESS: Final = re.compile(r"\S+@\S+")
_RESERVED: Final = ("all rights reserved", "some rights reserved", "all right reserved")
_TITLE: Final = re.compile(
    r"(?:the )?(?:(?:full|complete|software|open source|copyright|project|source code|code|library|package|main|text|"
    r"and) )*"
    r"(?:licen[cs]es?|licensing|copyright)(?: (?:agreement|and|copyright|file|for|information|is|notice|notices|of|"
    r"statement|terms|text|the|follows|as|below|details|project|software|this|license|package|library|under|code))*"
)
"""Matches headings that only say "licence"."""
_FRAMES: Final = (
    re.compile(
        r"(?:\S+ ){1,5}(?:is|are) (?:also )?(?:licensed|released|distributed|available|made available|provided|"
        r"published) (?:to you )?(?:under|with|by) (?:the )?(?:terms of )?(?:the )?(?P<name>.+?)(?: license)?"
        r"(?: (?:reproduced|see|stated|given|included|found|shown|as) (?:\S+ ){0,6}?"
        r"(?:below|details|license|file|above))?"
    ),
    re.compile(
        r"(?:(?:all|this|the|these|our|its|it|source|code|files?|software|library|project|package|program|work|module|"
        r"repository|is|are|and|distributed|made|available|licensed|released|provided|published|free|open|under|the|"
        r"terms|conditions|of|a|an|license|version|subject|to|\w+ is) )+(?P<name>.+)"
    ),
    re.compile(r"license (?:spdx )?(?:identifier )?(?P<name>.+)"),
    re.compile(r"spdx license identifier (?P<name>.+)"),
)
"""Patterns of sentences that name a licence and say nothing else."""
_REPEATED: Final = re.compile(r"\W*([^()]+?)\s*\(([^()]+)\)\W*")
"""Matches a name and its short form: "The MIT License (MIT)"."""


@functools.lru_cache(maxsize=1024)
def of_text(text: str) -> Statement | None:
    """Return the licence that the text of a licence file states; None if it states none.

    If the text has several licences, all of them apply. A part that is not recognised makes the licence unknown, with
    that part as the evidence; if the text mentions the GPL or a similar licence, it is part of the expression.
    """
    recognition = texts.take_out(_BUNDLED_BINARY.sub("", text))
    licences = list(recognition.licences)
    unknown = ""
    above: Line | None = None
    """The last line that names copyright holders."""
    for line in recognition.rest:
        kind, name = _kind(line, above if above and line.number == above.number + 1 else None)
        licences += [name] if name else []
        if kind == "unknown":
            unknown = unknown or line.raw
        above = line if kind == "copyright" else above
    if unknown:
        mentioned = mentions.of_words(" ".join(word for line in recognition.rest for word in line.words))
        expression = spdx.conjunction([*dict.fromkeys(mentioned), UNRECOGNISED])
        return Statement(
            spdx.UNKNOWN if expression in (None, UNRECOGNISED) else expression, _why_unknown(unknown, licences)
        )
    expression = spdx.conjunction(licences)
    return None if expression is None else Statement(expression)


def _why_unknown(part: str, licences: Sequence[str]) -> str:
    quoted = f"{part[:100]}..." if len(part) > 100 else part
    return (
        f"{quoted!r} is not part of {' or '.join(dict.fromkeys(licences))}"
        if licences
        else f"no known licence: {quoted!r}"
    )


def _kind(line: Line, above: Line | None) -> tuple[str, str]:
    """Return the kind of a line outside the known texts, and the licence that it names (empty if none).

    The kinds are `copyright`, `title`, `name`, `prose` and `unknown`. `above` is the previous line if it names
    copyright holders.
    """
    if len(line.raw) > MAX_LINE:
        return "unknown", ""
    raw = _ADDRESS.sub(" ", line.raw)
    words = line.words if raw == line.raw else tuple(texts.words_of(raw))
    flat = " ".join(words)
    for phrase in _RESERVED:
        flat = flat.replace(phrase, "").strip()
    rest = flat.split()
    if not rest:
        return "copyright", ""
    is_copyright = _COPYRIGHT.match(raw) is not None
    names_more = above is not None and (wording.is_open(above.raw) or wording.names_holders(line.raw))
    if (credit := _WRITTEN.match(raw)) is not None:
        author = raw[credit.end() :]
        if wording.is_holders(author, texts.words_of(author), is_copyright=False):
            return "copyright", ""
    if (is_copyright or names_more) and wording.is_holders(raw, rest, is_copyright=is_copyright):
        return "copyright", ""
    if _TITLE.fullmatch(flat):
        return "title", ""
    if (name := of_sentence(raw, flat)) is not None:
        return "name", name
    if not is_copyright and wording.is_description(raw, words):
        return "prose", ""
    return "unknown", ""


def of_sentence(raw: str, flat: str) -> str | None:
    """Return the licence that a line names, such as "MIT License" or "Licensed under the MIT license", else None."""
    if (name := spdx.of_name(raw) or spdx.of_name(flat)) is not None:
        return name
    if (match := _REPEATED.fullmatch(raw)) is not None and (name := spdx.of_name(match[1])) == spdx.of_name(match[2]):
        return name
    for frame in _FRAMES:
        match = frame.fullmatch(flat)
        if (
            match is None
            or not wording.is_plain(raw, strangers=1)
            or spdx.restricts(flat[: match.start("name")].split())
        ):
            continue
        if (name := spdx.of_name(match["name"]) or _of_choice(match["name"])) is not None:
            return name
    return None


def _of_choice(words: str) -> str | None:
    """Return the expression for a choice ("apache license version 2 0 or the mit"); None if a name is unknown."""
    names = [spdx.of_name(name) for name in re.split(r" or (?:the )?", words)]
    return spdx.disjunction(name for name in names if name) if len(names) > 1 and all(names) else None


def joined(statements: Iterable[Statement]) -> Statement | None:
    """Return the statements combined by AND; the first unknown one if there is any, None if there are none."""
    parts = list(statements)
    if not parts:
        return None
    for statement in parts:
        if not statement.is_known:
            return statement
    expression = spdx.conjunction(statement.expression for statement in parts) or spdx.UNKNOWN
    return Statement(expression, "; ".join(dict.fromkeys(statement.evidence for statement in parts)))
