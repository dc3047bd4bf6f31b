"""Which files are worth learning from: rules on the name, on the bytes, and on the text.

A rule returns None to keep the file, or a `Removal` that says why not. The first reason counts. Thresholds stand in
`CorpusConfig`; they are those of BigCode and OpenCoder where these agree.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from infill import file_kinds
from infill.config import CorpusConfig
from infill.corpus import licences, privacy
from infill.corpus.sources import Read, SourceFile
from infill.foreign import NotRegularError, UnreadableError
from infill.text import DecodeError, decode

GENERATED_CHARS: Final = 1_500
"""The mark of a generated file is looked for in this much of it."""

_GENERATED: Final = re.compile(
    r"@generated\b|DO NOT EDIT|do not edit (this file|by hand|manually|directly)|[Cc]ode [Gg]enerated (by|from)|"
    r"([Aa]uto-?|[Aa]utomatically |[Mm]achine[- ])[Gg]enerated|"
    r"(file|class|module|code) (is|was|has been) (auto\w* )?generated|"
    r"^\W{0,8}[Gg]enerated by (?!hand)",
    re.MULTILINE,
)
_NOT_SOURCE: Final = {"binary": "binary_name", "data": "data", "minified": "minified", "generated": "generated_name"}
"""Why a name is not that of source -> the reason of the removal."""
_ALPHANUMERIC: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NOT_LETTERS: Final = bytes(range(0x80)).translate(None, _ALPHANUMERIC) + bytes(range(0x80, 0xC0))
"""ASCII that is neither letter nor digit, and the bytes inside a UTF-8 sequence (its first byte counts as a letter)."""
_INSIDE: Final = bytes(range(0x80, 0xC0))
_LFS_POINTER: Final = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*oid sha256:[0-9a-f]{64}\nsize (\d{1,19})\n?\Z"
)


class Removal(NamedTuple):
    reason: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A file as text, on its way through the rules."""

    repo: str
    path: str
    language: str
    licence: licences.Statement
    content: str
    commit: str | None = None
    """The commit that it was read from, and its date; None where unknown."""
    date: str | None = None
    source: str = ""
    """The entry of `corpus.sources` that it is from."""
    redactions: tuple[privacy.Place, ...] = ()
    opted_out: str | None = None
    """The entry of the opt-outs that covers the file."""


UNREAD: Final = (
    "archive_limit",
    "bad_name",
    "beside",
    "binary_name",
    "damaged_archive",
    "damaged_table",
    "data",
    "duplicate_name",
    "empty",
    "generated_name",
    "licence_not_permitted",
    "licence_not_recognised",
    "minified",
    "opted_out",
    "over_limit",
    "own_repository",
    "special_file",
    "symlink",
    "too_large",
    "unknown_language",
    "unreadable",
    "vendored",
)
"""Reasons for which a file is removed before it is read."""


def judge_name(file: SourceFile, licence: licences.Statement | None, config: CorpusConfig) -> Removal | None:
    """Return what name, kind, size and what is stated of its licence say, before the file is opened."""
    if file.trouble:
        return Removal(file.trouble, file.detail)
    unfit = None if licence is None else judge_licence(licence, config)
    return unfit or _judge_kind(file) or _judge_size(file, config)


def judge_licence(licence: licences.Statement, config: CorpusConfig) -> Removal | None:
    """Return why a file under `licence` may not be trained on; None when it may."""
    if not licence.is_known:
        return Removal(
            "licence_unknown" if licence == licences.NOTHING_STATED else "licence_not_recognised", licence.evidence
        )
    if not licences.permitted(licence.expression, config.licences):
        return Removal("licence_not_permitted", f"{licence.expression} ({licence.evidence})")
    return None


def _judge_kind(file: SourceFile) -> Removal | None:
    if why := file_kinds.why_not_source(file.path):
        return Removal(_NOT_SOURCE[why])
    return None if file_kinds.language_of(file.path) else Removal("unknown_language")


def _judge_size(file: SourceFile, config: CorpusConfig) -> Removal | None:
    if file.size == 0:
        return Removal("empty")
    is_data = file_kinds.kind_of(file_kinds.language_of(file.path) or "") == "data"
    limit = config.max_data_bytes if is_data else config.max_file_bytes
    return Removal("too_large", f"{file.size} bytes, the limit is {limit}") if file.size > limit else None


def read_text(read: Read, file: SourceFile) -> str | Removal:
    """Return the file's text without a byte order mark, or why there is none."""
    try:
        data = read(file)
    except NotRegularError:
        return Removal("special_file")
    except UnreadableError as error:
        return Removal("unreadable", str(error))
    if pointer := _LFS_POINTER.match(data):
        return Removal("lfs_pointer", f"Git LFS has the content, {int(pointer[1])} bytes")
    try:
        text = decode(data)
    except DecodeError as error:
        return Removal("binary", "it holds a zero byte") if b"\0" in data else Removal("invalid_utf8", str(error))
    return Removal("binary", "it holds a zero byte") if "\0" in text else text


def _licence(document: Document, config: CorpusConfig) -> Removal | None:
    return judge_licence(document.licence, config)


def _language(document: Document, config: CorpusConfig) -> Removal | None:
    wanted = not config.languages or document.language in config.languages
    return None if wanted else Removal("language", document.language)


def _blank(document: Document, _: CorpusConfig) -> Removal | None:
    return None if document.content.strip() else Removal("blank")


def _lines(document: Document, config: CorpusConfig) -> Removal | None:
    if file_kinds.kind_of(document.language) == "prose":  # a paragraph may be one line (so in The Stack v2)
        return None
    lines = document.content.split("\n")
    longest = max(map(len, lines))
    if longest > config.max_line_chars:
        return Removal("long_line", f"{longest} characters, the limit is {config.max_line_chars}")
    mean = (len(document.content) - len(lines) + 1) / len(lines)
    if mean > config.max_mean_line_chars:
        return Removal("long_mean_line", f"{mean:.0f} characters, the limit is {config.max_mean_line_chars:.0f}")
    return None


def _alphanumeric(document: Document, config: CorpusConfig) -> Removal | None:
    share = alphanumeric_share(document.content)
    if share < config.min_alphanumeric:
        return Removal("few_alphanumerics", f"{share:.2f}, at least {config.min_alphanumeric:.2f} is wanted")
    return None


def alphanumeric_share(text: str) -> float:
    """Share of the characters that are letters or digits; every character beyond ASCII counts as a letter."""
    data = text.encode()
    characters = len(data.translate(None, _INSIDE))
    return len(data.translate(None, _NOT_LETTERS)) / max(characters, 1)


def _generated(document: Document, _: CorpusConfig) -> Removal | None:
    head = document.content[:GENERATED_CHARS].lower()
    if "generated" not in head and "do not edit" not in head:  # saves the search, which is slow, for nearly all files
        return None
    found = _GENERATED.search(document.content, 0, GENERATED_CHARS)
    return Removal("generated", found[0].strip()) if found else None


RULES: Final[tuple[Callable[[Document, CorpusConfig], Removal | None], ...]] = (
    _language,
    _licence,
    _blank,
    _lines,
    _alphanumeric,
    _generated,
)


def judge_text(document: Document, config: CorpusConfig) -> Removal | None:
    """The first reason among the rules on the text, or None to keep the document."""
    for rule in RULES:
        if (removal := rule(document, config)) is not None:
            return removal
    return None
