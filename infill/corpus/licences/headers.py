"""What a source file says about its own licence: SPDX lines, notices and proprietary marks in its comments."""

import re
from collections.abc import Iterator
from typing import Final

from infill.corpus.licences import mentions, spdx, texts
from infill.corpus.licences.recognise import Statement
from infill.text import split_lines

HEADER_CHARS: Final = 6_000
"""Notices are looked for in the comments of this much of a file, SPDX lines in all of it."""

_HINT: Final = re.compile(
    r"licen[cs]|copyright|copying|gpl|propriet|confiden|permission|prohibit|forbid|commercial|\btrain|purpose|use only"
    r"|only for|solely|no part|redistribut|not (?:be|copy|distribut|share|publish|disclose|sell)|secret|disclos|mining"
    r"|no (?:ai|ml)\b",
    re.IGNORECASE,
)
"""What stands in every header that says something about rights."""
_SPDX: Final = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n\r]*)", re.IGNORECASE)
_END_OF_COMMENT: Final = re.compile(r"\*/|-->|#\}|\"\"\"|'''|\*\)|\]\]|\\n|--%>|%>|\?>")
_COMMENT_LINE: Final = re.compile(
    r"\s*(?:#|//|/\*|\*|--|;|%|<!--|\{-|\(\*|\"\"\"|'''|dnl\b|rem\b|!|'|\"|\.\.|@|c\b|\{#|<%--|\\|=)", re.IGNORECASE
)
_OPENINGS: Final = (("/*", "*/"), ("<!--", "-->"), ('"""', '"""'), ("'''", "'''"), ("(*", "*)"), ("{-", "-}"))
_OPENINGS_MORE: Final = (("--[[", "]]"), ("{#", "#}"), ("<%--", "--%>"), ("=begin", "=end"), ("<#", "#>"))

_STATED: Final = re.compile(
    r"(?:^|[\s*#/;-])(?:@licen[cs]e|__licen[cs]e__|licen[cs]ed?)\s*(?:[:=]|(?<=@license)\s|(?<=@licence)\s|\s*-\s)\s*"
    r"[\"'(]*([^\"'\n\r)]{1,100})",
    re.IGNORECASE,
)
"""`License: MIT`, `@license MIT`, `__license__ = "MIT"`."""
_THIS: Final = (
    r"\b(?:this|the|these) (?:source )?(?:files?|software|code|programs?|source|work|materials?|library|module)\b"
)
_USES: Final = r"(?:non ?commercial|academic|educational|evaluation|personal|research)"
_RESERVATIONS: Final = re.compile(
    "|".join(
        (
            r"\b(?:contains?|company|our) (?:the )?(?:\w+ )?(?:proprietary|confidential)\b",
            rf"{_THIS}.{{0,40}}\b(?:is|are) (?:the )?(?:strictly )?(?:proprietary|confidential)\b",
            r"\b(?:proprietary|confidential) (?:and |information|source|code|software|property|material|license|trade)",
            r"^(?:\w+ ){0,4}(?:confidential|proprietary)$|\btrade secrets?\b|\bunpublished (?:work|proprietary|source)",
            r"\bunauthori[sz]ed (?:copying|use|distribution|reproduction|access|modification|disclosure)",
            r"\b(?:strictly|expressly) (?:prohibited|forbidden)",
            r"\b(?:copying|distribution|redistribution|reproduction|modification|use) .{0,80}(?:prohibited|forbidden)",
            r"\bwithout (?:the )?(?:prior|express|written) .{0,40}(?:permission|consent) of",
            rf"{_THIS}.{{0,60}}\b(?:may|must|shall|can) ?not be (?:\w+ ){{0,3}}(?:used|copied|reproduced"
            r"|(?:re)?distributed|disclosed|shared|published|modified|transmitted)\b",
            r"\b(?:do|may|must) not (?:redistribute|(?:distribute|copy|share|publish|disclose|sell) (?:it\b|this\b|"
            r"the (?:file|software|code|program|source|work|material)))",
            rf"{_THIS}.{{0,60}}\binternal use only",
            r"\b(?:inc|ltd|llc|gmbh|company|corp|corporation|group) internal use only",
            r"\bcommons clause\b",
            r"\bno part of this (?:file|software|code|program|document|source|work|material)",
            rf"\b{_USES} (?:\w+ )?(?:use|purposes?) only|(?:only|solely) for {_USES}|not for commercial",
            r"\bnon ?commercial (?:use|purposes?|license)|commercial use (?:is )?(?:not|prohibited|forbidden|requires)",
            r"\bfor commercial (?:use|licens)\w* (?:please )?(?:contact|see|requires)",
            r"\blicensed not sold|(?:end user|software|commercial|enterprise|evaluation) license agreement",
            r"\bgoverned by .{0,60}license agreement",
            r"\bunder (?:a|the) (?:commercial|proprietary|enterprise|custom) license",
            r"\bnon ?disclosure agreement|no license is granted|all rights are reserved by",
            r"\bno (?:machine learning|ai|ml|data mining|text and data mining|llm)(?: training| use)?\b",
            r"\b(?:ai|ml|machine learning|llm|model) training .{0,40}(?:not|prohibited|forbidden)",
            r"\b(?:not|isnt|never) (?:licensed|released|open source|free software)\b",
        )
    )
)
"""Words of somebody who keeps the rights, in lower case without punctuation."""


def of_source(text: str) -> Statement | None:
    """Return what a source file says about its own licence; None where it says nothing.

    All of its SPDX lines and notices apply together. An SPDX line that is not valid, or a notice of somebody who keeps
    the rights, makes the licence one that we do not know.
    """
    expressions: list[str] = []
    for stated in _spdx_lines(text):
        expression = spdx.normalise(stated)
        if expression is None:
            return Statement(spdx.UNKNOWN, f"SPDX-License-Identifier: {stated[:100]!r} is not a valid SPDX expression")
        expressions.append(expression)
    head = text[:HEADER_CHARS]
    comments = _comments(head) if _HINT.search(head) else ""  # few files say anything, and the search is quick
    recognition = texts.take_out(comments)
    expressions += recognition.licences
    rest = " ".join(word for line in recognition.rest for word in line.words)
    if (reservation := _RESERVATIONS.search(rest)) is not None:
        return Statement(spdx.UNKNOWN, f"its header says {reservation[0][:100]!r}")
    expressions += mentions.of_words(rest)
    for match in _STATED.finditer(comments):
        if (name := spdx.of_name(match[1].strip(" .;,*/"))) is not None:
            expressions.append(name)
    expression = spdx.conjunction(expressions)
    return None if expression is None else Statement(expression, "its header")


def _spdx_lines(text: str) -> Iterator[str]:
    """Return what stands after each SPDX-License-Identifier in a comment, without the end of the comment."""
    for match in _SPDX.finditer(text):
        start = max(text.rfind("\n", 0, match.start()), text.rfind("\r", 0, match.start())) + 1
        before = text[start : match.start()]
        if match.start() < HEADER_CHARS or _COMMENT_LINE.match(before):
            stated = _END_OF_COMMENT.split(match[1])[0].strip().rstrip("*/-#;\"'`,.").strip()
            if stated or not before.strip().strip("*/-#;<!\"'"):
                yield stated


def _comments(text: str) -> str:
    """Return the lines of `text` that are comments or documentation, and those that set `__license__`."""
    kept, ending = [], ""
    for line in split_lines(text):
        if ending:
            kept.append(line)
            ending = "" if ending in line else ending
            continue
        stripped = line.strip()
        opening = next((pair for pair in (*_OPENINGS_MORE, *_OPENINGS) if stripped.startswith(pair[0])), None)
        if opening is not None:
            kept.append(line)
            ending = "" if opening[1] in stripped[len(opening[0]) :] else opening[1]
        elif _COMMENT_LINE.match(line) or stripped.lower().startswith(("__license__", "__licence__")):
            kept.append(line)
    return "\n".join(kept)
