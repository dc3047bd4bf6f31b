"""Licence statements in the header of a source file: SPDX lines, notices and reservations of rights in its comments."""

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Final

from infill.corpus.licences import mentions, spdx, texts
from infill.corpus.licences.recognise import Statement
from infill.text import split_lines

HEADER_CHARS: Final = 6_000
"""Number of characters at the start of a file that are searched for notices; SPDX lines are found in the whole file."""

_HINTS_TEXT: Final = (
    "licens licenc copyright copying gpl propriet confiden permission prohibit forbid commercial train purpose solely "
    "redistribut secret disclos mining"
)
_HINTS: Final = (*_HINTS_TEXT.split(), "use only", "only for", "no part", "no ai", "no ml", "not be", "not copy")
_HINTS_MORE: Final = ("not distribut", "not share", "not publish", "not sell")
"""Parts of words, in lower case; every header that mentions rights has one of `_HINTS` or `_HINTS_MORE`."""
_SPDX: Final = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n\r]*)", re.IGNORECASE)
_END_OF_COMMENT: Final = re.compile(r"\*/|-->|#\}|\"\"\"|'''|\*\)|\]\]|\\n|--%>|%>|\?>")
_COMMENT_LINE: Final = re.compile(
    r"\s*(?:#|//|/\*|\*|--|;|%|<!--|\{-|\(\*|\"\"\"|'''|dnl\b|rem\b|!|'|\"|\.\.|@|c\b|\{#|<%--|\\|=)", re.IGNORECASE
)
_BLOCKS: Final = {
    "--[[": "]]",
    "{#": "#}",
    "<%--": "--%>",
    "=begin": "=end",
    "<#": "#>",
    "/*": "*/",
    "<!--": "-->",
    '"""': '"""',
    "'''": "'''",
    "(*": "*)",
    "{-": "-}",
}
"""Start of a block comment -> its end."""
_BLOCK: Final = re.compile("|".join(map(re.escape, _BLOCKS)))

_STATED: Final = re.compile(
    r"(?:^|[\s*#/;-])(?:@licen[cs]e|__licen[cs]e__|licen[cs]ed?)\s*(?:[:=]|(?<=@license)\s|(?<=@licence)\s|\s*-\s)\s*"
    r"[\"'(]*([^\"'\n\r)]{1,100})",
    re.IGNORECASE,
)
"""Matches `License: MIT`, `@license MIT`, `__license__ = "MIT"`."""
_CHOICE: Final = re.compile(
    r"\b(?:dual(?:ly)? licensed|either) (?:\w+ ){0,3}?(?:under|of) (?:the )?(?:terms of )?(?:either )?(?:the )?"
    r"(?P<one>[\w ]{2,40}?)(?: license)? (?:and|or) (?:the )?(?P<other>[\w ]{2,40}?) (?:version \d )?licenses?\b"
)
"""Matches notices that offer two licences ("dual licensed under the MIT and GPL licenses"), in lower-case words."""
_UNDER: Final = re.compile(
    r"\b(?:licensed|released|distributed|available|published|covered|governed|provided)(?: \w+)?? (?:under|by|with) "
    r"(?:terms (?:and conditions )?of |terms in |terms from )?(?P<name>(?:\w+ ){1,8}?)licenses?(?P<more> agreement)?\b"
)
"""Matches notices that put a file under a named licence, in lower-case words."""
_POINTING_TEXT: Final = (
    "a above accompanying all an and any apache as at attached be below both bsd choice clause compatible copyright "
    "each either enclosed file following found free full given gnu in included is its like mit modified new of one "
    "open or original osi our own package permissive project provided python respective revised root s same "
    "simplified software source style such terms that the their these this those top under version which whole with "
    "x11 your 2 3 0"
)
_POINTING: Final = frozenset(_POINTING_TEXT.split())
"""Words before "license" that do not name a further licence, but refer to one that is recognised elsewhere."""
_THIS: Final = (
    r"\b(?:this|the|these) (?:source )?(?:files?|software|code|programs?|source|work|materials?|library|module)\b"
)
_USES: Final = r"(?:non ?commercial|academic|educational|evaluation|personal|research)"
_SECRETS: Final = "proprietary confidential"
_BANS: Final = "prohibited forbidden"
_RESERVATIONS: Final = tuple(
    (hints.split(), re.compile(pattern))
    for hints, pattern in (
        (_SECRETS, r"\b(?:contains?|company|our) (?:the )?(?:\w+ )?(?:proprietary|confidential)\b"),
        (_SECRETS, rf"{_THIS}.{{0,40}}\b(?:is|are) (?:the )?(?:strictly )?(?:proprietary|confidential)\b"),
        (
            _SECRETS,
            r"\b(?:proprietary|confidential) (?:and |information|source|code|software|property|material|license|trade)",
        ),
        (_SECRETS, r"^(?:\w+ ){0,4}(?:confidential|proprietary)$"),
        ("secret unpublished", r"\btrade secrets?\b|\bunpublished (?:work|proprietary|source)"),
        (
            "unauthori",
            r"\bunauthori[sz]ed (?:copying|use|distribution|reproduction|access|modification|disclosure)",
        ),
        (_BANS, r"\b(?:strictly|expressly) (?:prohibited|forbidden)"),
        (
            _BANS,
            r"\b(?:copying|distribution|redistribution|reproduction|modification|use) .{0,80}(?:prohibited|forbidden)",
        ),
        ("without", r"\bwithout (?:the )?(?:prior|express|written) .{0,40}(?:permission|consent) of"),
        (
            "not",
            rf"{_THIS}.{{0,60}}\b(?:may|must|shall|can) ?not be (?:\w+ ){{0,3}}(?:used|copied|reproduced"
            r"|(?:re)?distributed|disclosed|shared|published|modified|transmitted)\b",
        ),
        (
            "not",
            r"\b(?:do|may|must) not (?:redistribute|(?:distribute|copy|share|publish|disclose|sell) (?:it\b|this\b|"
            r"the (?:file|software|code|program|source|work|material)))",
        ),
        ("internal", rf"{_THIS}.{{0,60}}\binternal use only"),
        ("internal", r"\b(?:inc|ltd|llc|gmbh|company|corp|corporation|group) internal use only"),
        ("commons", r"\bcommons clause\b"),
        ("part", r"\bno part of this (?:file|software|code|program|document|source|work|material)"),
        (
            "only commercial",
            rf"\b{_USES} (?:\w+ )?(?:use|purposes?) only|(?:only|solely) for {_USES}|not for commercial",
        ),
        (
            "commercial",
            r"\bnon ?commercial (?:use|purposes?|license)|commercial use (?:is )?(?:not|prohibited|forbidden|requires)",
        ),
        ("commercial", r"\bfor commercial (?:use|licens)\w* (?:please )?(?:contact|see|requires)"),
        (
            "sold agreement",
            r"\blicensed not sold|(?:end user|software|commercial|enterprise|evaluation) license agreement",
        ),
        ("agreement", r"\bgoverned by .{0,60}license agreement"),
        ("license", r"\bunder (?:a|the) (?:commercial|proprietary|enterprise|custom) license"),
        (
            "disclosure granted reserved",
            r"\bnon ?disclosure agreement|no license is granted|all rights are reserved by",
        ),
        ("no", r"\bno (?:machine learning|ai|ml|data mining|text and data mining|llm)(?: training| use)?\b"),
        ("training", r"\b(?:ai|ml|machine learning|llm|model) training .{0,40}(?:not|prohibited|forbidden)"),
        ("not isnt never", r"\b(?:not|isnt|never) (?:licensed|released|open source|free software)\b"),
    )
)
"""Patterns of notices that reserve rights, in lower case without punctuation. Each is preceded by words one of which is
part of every match: searching for these first is faster."""


def of_source(text: str) -> Statement | None:
    """Return the licence that a source file states for itself; None if it states none.

    All SPDX lines and notices apply together. An invalid SPDX line or a notice that reserves rights makes the licence
    unknown.
    """
    expressions: list[str] = []
    for stated in _spdx_lines(text) if "spdx-license-identifier" in text.lower() else ():
        expression = spdx.normalise(stated)
        if expression is None:
            return Statement(spdx.UNKNOWN, f"SPDX-License-Identifier: {stated[:100]!r} is not a valid SPDX expression")
        expressions.append(expression)
    head = text[:HEADER_CHARS]
    stated_licences = _of_comments(_comments(head)) if _hints(head) else ()  # few files have hints; the search is fast
    if isinstance(stated_licences, Statement):
        return stated_licences
    together = spdx.conjunction([*expressions, *stated_licences])
    return None if together is None else Statement(together, "its header")


def _hints(text: str) -> bool:
    lower = text.lower()
    return any(hint in lower for hint in (*_HINTS, *_HINTS_MORE))


@functools.lru_cache(maxsize=4096)
def _of_comments(comments: str) -> Statement | tuple[str, ...]:
    """Return the licences that comments state, or the statement that makes their licence unknown.

    The result is cached, because many files of a repository start with the same comments.
    """
    if not _hints(comments):
        return ()
    recognition = texts.take_out(comments)
    rest = " ".join(word for line in recognition.rest for word in line.words)
    if (notice := next(_reservations(rest), None) or next(_unknown_licences(rest), None)) is not None:
        return Statement(spdx.UNKNOWN, f"its header has the notice {notice[:100]!r}")
    stated = (spdx.of_name(match[1].strip(" .;,*/")) for match in _STATED.finditer(comments))
    return (*recognition.licences, *_of_words(rest), *filter(None, stated))


def _reservations(words: str) -> Iterator[str]:
    """Yield the notices in lower-case words that reserve rights."""
    for hints, pattern in _RESERVATIONS:
        if any(hint in words for hint in hints) and (match := pattern.search(words)) is not None:
            yield match[0]


def _unknown_licences(words: str) -> Iterator[str]:
    """Yield the notices in lower-case words that put the file under a licence that is not recognised."""
    for match in _UNDER.finditer(words):
        known = _of_repeated(match["name"].split()) or next(mentions.of_words(match[0]), None)
        if not known and not _POINTING.issuperset(match["name"].split()):
            yield match[0]


def _of_words(words: str) -> Iterator[str]:
    """Yield the licences that lower-case words name; a choice of two is one expression."""
    match = _CHOICE.search(words)
    names = [_of_word(match[group]) for group in ("one", "other")] if match else []
    if match and all(names):
        yield spdx.disjunction(name for name in names if name) or spdx.UNKNOWN
        words = words[: match.start()] + words[match.end() :]
    yield from mentions.of_words(words)


def _of_repeated(words: Sequence[str]) -> str | None:
    """Return the licence named by `words`, which may name it twice ("zero clause bsd 0bsd"); None if unknown."""
    parts = [(" ".join(words[:end]), " ".join(words[end:])) for end in range(1, len(words))]
    names = [spdx.of_name(first) for first, second in parts if spdx.of_name(first) == spdx.of_name(second)]
    return spdx.of_name(" ".join(words)) or next(filter(None, names), None)


def _of_word(name: str) -> str | None:
    return spdx.of_name(name) or next(mentions.of_words(f"under {name.strip()}"), None)


def _spdx_lines(text: str) -> Iterator[str]:
    """Yield the expression after each SPDX-License-Identifier in a comment, without the end of the comment."""
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
        if (opening := _BLOCK.match(stripped)) is not None:
            kept.append(line)
            end = _BLOCKS[opening[0]]
            ending = "" if end in stripped[opening.end() :] else end
        elif _COMMENT_LINE.match(line) or stripped.lower().startswith(("__license__", "__licence__")):
            kept.append(line)
    return "\n".join(kept)
