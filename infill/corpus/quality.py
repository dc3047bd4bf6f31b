"""Decide which files are worth learning from, by rules on the name, the bytes, and the signals of the text.

A rule returns None to keep the file, or a `Removal` with the reason. The first reason counts. `signals` measures each
text once; `thresholds` has the limits by language, with their sources.
"""

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from infill import file_kinds
from infill.config import CorpusConfig
from infill.corpus import licences, notebooks, privacy, thresholds
from infill.corpus.signals import Signals
from infill.corpus.sources import Read, SourceFile
from infill.foreign import NotRegularError, UnreadableError
from infill.text import DecodeError, decode

_NOT_SOURCE: Final = {"binary": "binary_name", "data": "data", "minified": "minified", "generated": "generated_name"}
"""Reason of `file_kinds.why_not_source` -> reason of the removal."""
SHORT_CHARS: Final = 500
"""The shares of white space and digits are not judged in a shorter text, because they vary too much."""
_FIXTURES: Final = re.compile(
    r"/(?:testdata|test[_-]data|__fixtures__|__snapshots__|cassettes)/"
    r"|/fixtures/(?=.*\.(?:html?|ini|json5?|md|rst|te?xt|toml|ya?ml|xml|sql|css)$)",
    re.IGNORECASE,
)
"""Matches folders with input of tests, often broken or repeated on purpose, but not code in `fixtures`."""
_VENDORED_NAMES: Final = re.compile(
    r"(?:jquery|bootstrap|angular|backbone|underscore|lodash|modernizr|require|d3|mathjax|popper|moment|vue|react|"
    r"react-dom|ember|knockout|prototype|mootools|html5shiv|font-?awesome|normalize|highlight\.pack|ez_setup|"
    r"polyfill|zepto|socket\.io)(?:[.-](?:v?\d[\w.]*|slim|ui|bundle|core|dev|development|production|full|umd))*"
    r"\.(?:js|css)|ez_setup\.py",
    re.IGNORECASE,
)
"""Matches names of libraries that are copied into projects; GitHub's linguist has a longer list."""
_LFS_POINTER: Final = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*oid sha256:[0-9a-f]{64}\nsize (\d{1,19})\n?\Z"
)


class Removal(NamedTuple):
    """A reason to remove a file."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class CorpusDocument:
    """A file as text, on its way through the rules."""

    repo: str
    path: str
    language: str
    licence: licences.Statement
    content: str
    commit: str | None = None
    """The commit that the file was read from, and its date; None if unknown."""
    date: str | None = None
    source: str = ""
    """The entry of `corpus.sources` that the file is from."""
    redactions: tuple[privacy.Replacement, ...] = ()
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
    "test_fixture",
    "too_large",
    "unknown_language",
    "unreadable",
    "vendored",
)
"""Reasons for which a file is removed before it is read."""


def judge_name(file: SourceFile, licence: licences.Statement | None, config: CorpusConfig) -> Removal | None:
    """Return why a file is removed by its name, kind, size or licence, before it is opened; None to read it."""
    if file.trouble:
        return Removal(file.trouble, file.detail)
    unfit = None if licence is None else judge_licence(licence, config)
    return unfit or _judge_kind(file) or _judge_size(file, config)


def judge_licence(licence: licences.Statement, config: CorpusConfig) -> Removal | None:
    """Return why training on a file under `licence` is not allowed; None if it is."""
    if not licence.is_known:
        return Removal(
            "licence_unknown" if licence == licences.NOTHING_STATED else "licence_not_recognised", licence.evidence
        )
    if not licences.permitted(licence.expression, config.licences):
        return Removal("licence_not_permitted", f"{licence.expression} ({licence.evidence})")
    return None


def _judge_kind(file: SourceFile) -> Removal | None:
    if folder := _FIXTURES.search(f"/{file.path}"):
        return Removal("test_fixture", folder[0].strip("/"))
    if _VENDORED_NAMES.fullmatch(file.path.rpartition("/")[2]):
        return Removal("vendored", "a library that many projects copy")
    if notebooks.is_notebook(file.path):
        return None
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
    """Return the file's text without a byte order mark, or why it cannot be read as text."""
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
        return Removal("binary", "it contains a zero byte") if b"\0" in data else Removal("invalid_utf8", str(error))
    return Removal("binary", "it contains a zero byte") if "\0" in text else text


def _language(document: CorpusDocument, config: CorpusConfig) -> Removal | None:
    wanted = not config.languages or document.language in config.languages
    return None if wanted else Removal("language", document.language)


def judge_signals(document: CorpusDocument, signals: Signals, config: CorpusConfig) -> Removal | None:
    """Return the first signal that misses the threshold of the document's language; None if all are met."""
    limits = thresholds.of(document.language, config)
    if signals.blank < limits.blank and signals.characters >= SHORT_CHARS:
        return Removal("minified", f"{signals.blank:.2f} of it is white space, the minimum is {limits.blank:.2f}")
    if signals.longest_encoded > limits.longest_encoded or signals.encoded > limits.encoded:
        return Removal(
            "encoded_data", f"{signals.longest_encoded} characters in a row, {signals.encoded:.0%} of the file"
        )
    for reason, value, limit in (
        ("many_lines", signals.lines, limits.lines),
        ("long_line", signals.longest_line, limits.longest_line),
        ("long_mean_line", signals.mean_line, limits.mean_line),
    ):
        if value > limit:
            return Removal(reason, f"{value:.0f}, the limit is {limit:.0f}")
    if signals.digits > limits.digits and signals.characters >= SHORT_CHARS:
        return Removal("many_digits", f"{signals.digits:.2f} of the file, the limit is {limits.digits:.2f}")
    for reason, value, limit in (
        ("few_alphanumerics", signals.alphanumeric, limits.alphanumeric),
        ("little_visible", signals.visible, limits.visible),
    ):
        if value < limit:
            return Removal(reason, f"{value:.2f}, the minimum is {limit:.2f}")
    return Removal("generated", signals.generated) if signals.generated else None


def judge(document: CorpusDocument, signals: Signals, config: CorpusConfig) -> Removal | None:
    """Return the first reason among the rules on the text and its signals; None to keep the document."""
    return (
        _language(document, config)
        or judge_licence(document.licence, config)
        or (None if document.content.strip() else Removal("blank"))
        or judge_signals(document, signals, config)
    )
