"""Find secrets and personal data in a document and replace them by placeholders.

A placeholder consists of the kind and a number: equal values have equal placeholders in the whole document, and two
copies that differ only in a key become equal. It has only letters, digits, `_` and, for addresses, `@` `.` `:`, and
replaces the value inside its quotes or comment, so a document that parsed before still parses.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from tree_sitter import Node

from infill import syntax
from infill.corpus.privacy import assigned, contexts, people, tokens
from infill.corpus.privacy.spans import KINDS, SECRETS, PrivateSpan, settle

__all__ = ["KINDS", "Redaction", "Replacement", "redact"]

MOSTLY: Final = 0.5
"""A document counts as nothing but a secret if secrets are a larger share of its characters, blanks not counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replacement:
    """A placeholder and its place in the new text, lines and columns from 1; the replaced value is not stored."""

    kind: str
    line: int
    column: int
    placeholder: str


@dataclass(frozen=True, kw_only=True)
class Redaction:
    text: str
    places: tuple[Replacement, ...]
    secret_share: float
    """Share of the original text's characters that are secrets, blanks not counted."""


def redact(text: str, language: str, kinds: Collection[str] = KINDS) -> Redaction:
    """Replace all secrets and personal data of `kinds` in a text in `language` (of `infill.file_kinds`, or empty)."""
    spans = settle(span for span in find(text, language, kinds) if span.kind in kinds)
    if spans:
        spans = _replaceable(text, language, spans)
    if not spans:
        return Redaction(text=text, places=(), secret_share=0.0)
    secret = sum(len(text[span.start : span.end]) for span in spans if span.kind in SECRETS)
    replaced, places = _replace(text, spans)
    return Redaction(text=replaced, places=places, secret_share=secret / max(1, len("".join(text.split()))))


def find(text: str, language: str, kinds: Collection[str] = KINDS) -> list[PrivateSpan]:
    """Return all spans that may be of `kinds`; they can overlap and include other kinds."""
    wanted = set(kinds)
    secrets = [*tokens.find(text), *assigned.find(text, language), *contexts.find(text)] if wanted & SECRETS else []
    return [*secrets, *people.find(text)] if wanted - SECRETS else secrets


# Replaceable places

_LITERAL: Final = re.compile(
    r"string|comment|heredoc|regex|fragment|content|char|preproc_arg|^raw_text$|^text$|jsx_text"
)
"""Matches the types of syntax nodes that can contain any text, in all grammars."""


def _replaceable(text: str, language: str, spans: Sequence[PrivateSpan]) -> list[PrivateSpan]:
    """Return the spans in strings and comments; all spans if the language has no grammar or the text does not parse.

    `W@x.to` in Python and `this@Activity.id` in Kotlin look like addresses; only the syntax tree shows that they are
    code.
    """
    if language not in syntax.LANGUAGES:
        return list(spans)
    source = text.encode("utf-8", "surrogatepass")
    try:
        root = syntax.parse(source, language).root_node
    except syntax.SlowParseError:
        return list(spans)
    if root.has_error:
        return list(spans)
    _, byte = syntax.translators(source)
    return [span for span in spans if _is_literal(root.descendant_for_byte_range(byte(span.start), byte(span.end)))]


def _is_literal(node: Node | None) -> bool:
    return node is not None and _LITERAL.search(node.type) is not None


# Placeholders


def _replace(text: str, spans: Sequence[PrivateSpan]) -> tuple[str, tuple[Replacement, ...]]:
    """Replace each span by a placeholder; of a private key with several lines, only the first one gets it."""
    names = _Names()
    parts: list[str] = []
    places: list[Replacement] = []
    line, line_start, length, position = 1, 0, 0, 0
    for number, span in enumerate(spans):
        start, end, placeholder = span.start, span.end, names.of(text, spans, number)
        if _continues(spans, number):
            start, end, placeholder = _rest_of_key(text, span, placeholder)
        kept = text[position:start]
        parts.append(kept)
        length += len(kept)
        if breaks := kept.count("\n"):
            line += breaks
            line_start = length - len(kept) + kept.rfind("\n") + 1
        if not _continues(spans, number):
            places.append(
                Replacement(kind=span.kind, line=line, column=length - line_start + 1, placeholder=placeholder)
            )
        parts.append(placeholder)
        length += len(placeholder)
        position = end
    return "".join([*parts, text[position:]]), tuple(places)


_KEY_GAP: Final = 40
"""Maximum number of characters between two lines of one private key: quotes, `\\n`, plus signs, indentation."""


def _continues(spans: Sequence[PrivateSpan], number: int) -> bool:
    """Return whether the span is a further line of the same private key as the span before it."""
    if number == 0 or spans[number].kind != "private_key" or spans[number - 1].kind != "private_key":
        return False
    return spans[number].start - spans[number - 1].end <= _KEY_GAP


def _rest_of_key(text: str, span: PrivateSpan, placeholder: str) -> tuple[int, int, str]:
    """Return start, end and replacement of a further line of a key; a line with nothing else is removed entirely."""
    first = text.rfind("\n", 0, span.start)
    last = text.find("\n", span.end)
    last = len(text) if last < 0 else last
    if first >= 0 and not (text[first : span.start] + text[span.end : last]).strip():
        return first, last - text[span.end : last].endswith("\r"), ""
    return span.start, span.end, placeholder


_PREFIXES: Final = {"private_key": "PRIVATE_KEY", "token": "TOKEN", "password": "PASSWORD", "author": "AUTHOR"}
_IPV4_BLOCKS: Final = ("192.0.2", "198.51.100", "203.0.113")
"""RFC 5737."""


class _Names:
    """The placeholders of one document: equal values have equal placeholders."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], str] = {}
        self._counts = Counter[str]()

    def of(self, text: str, spans: Sequence[PrivateSpan], number: int) -> str:
        """Return the placeholder of a span; all lines of a private key have the same one."""
        while _continues(spans, number):
            number -= 1
        span = spans[number]
        value = text[span.start : span.end]
        kind = "ipv6" if span.kind == "ip_address" and ":" in value else span.kind
        if (kind, value) not in self._names:
            self._counts[kind] += 1
            self._names[kind, value] = _placeholder(kind, self._counts[kind])
        return self._names[kind, value]


def _placeholder(kind: str, number: int) -> str:
    if kind == "email":
        return f"user{number}@example.com"  # RFC 2606
    if kind == "ip_address":
        block, host = divmod(number - 1, 254)
        return f"{_IPV4_BLOCKS[block % len(_IPV4_BLOCKS)]}.{host + 1}"
    if kind == "ipv6":
        return f"2001:db8::{number:x}"  # RFC 3849
    return f"{_PREFIXES[kind]}_{number}"
