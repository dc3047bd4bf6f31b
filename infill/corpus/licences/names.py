"""File names: of licence files, of files that only give credit, and of side files that state another file's licence."""

import re
from typing import Final

from infill import file_kinds

_STATING_TEXT: Final = (
    "license licenses licence licences unlicense unlicence licensing copying copyright copyleft eula patents"
)
_STATING: Final = frozenset(_STATING_TEXT.split())
_STATING_FIRST: Final = frozenset({"terms", "legal", "patent"})
"""Words that mark a licence file only at the start of its name."""
_OTHERS_TEXT: Final = (
    "3rd 3rdparty acknowledgements acknowledgments attribution attributions bundled credits dependencies deps "
    "external third thirdparty vendor vendored"
)
_OTHERS: Final = frozenset(_OTHERS_TEXT.split())
"""Words in the names of files that are about other people's code."""
_CREDITS_TEXT: Final = "notice notices thirdpartynotices credits acknowledgements acknowledgments"
_CREDITS: Final = frozenset(_CREDITS_TEXT.split())
_COMPOUNDS: Final = re.compile(r"(?i)(?<=[a-z])(licen[cs]es?(?:agreement)?|notices?)\b|(?<=licen[cs]e)(agreement)\b")
_HINT: Final = re.compile(r"licen[cs]|copy|eula|patent|terms|legal|notice|credits|acknowl", re.IGNORECASE)
_SEPARATORS: Final = re.compile(r"[\W_]+|(?<=copying)(?=\d)")
_READABLE_MARKUP: Final = frozenset({"html"})
_DOCUMENTS: Final = (".pdf", ".doc", ".docx", ".odt", ".rtf")
"""Suffixes of documents that cannot be read here, but may have licence terms."""
_SIDE: Final = re.compile(r"(?P<of>.+)\.licen[cs]e(?:\.txt|\.md)?", re.IGNORECASE)


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case; an empty list, found fast, for a name without a relevant word."""
    if _HINT.search(name) is None:
        return []
    return [word for word in _SEPARATORS.split(_COMPOUNDS.sub(r" \1\2", name).lower()) if word]


def is_licence(name: str) -> bool:
    """Return whether a file with this name states the licence of its folder.

    Examples: LICENSE, LICENCE.txt, MIT-LICENSE, COPYING.LESSER, UNLICENSE, LICENSE_1_0.txt, EULA.pdf; but not
    `license.rs`, which is code, nor THIRD-PARTY-LICENSES, which is about other people's code.
    """
    words = _words(name)
    states = not _STATING.isdisjoint(words) or (bool(words) and words[0] in _STATING_FIRST)
    return states and _OTHERS.isdisjoint(words) and _can_state(name.lower())


def is_credits(name: str) -> bool:
    """Return whether a file with this name is about the authors of other code: NOTICE, THIRD-PARTY-LICENSES."""
    words = frozenset(_words(name))
    others = not _OTHERS.isdisjoint(words) and not _STATING.isdisjoint(words)
    return (others or not _CREDITS.isdisjoint(words)) and _can_state(name.lower())


def _can_state(name: str) -> bool:
    """Return whether a file of this kind may have licence terms: prose, but not code, data or pictures."""
    if name.endswith(_DOCUMENTS):
        return True
    if file_kinds.is_binary_name(name) or file_kinds.is_data_name(name):
        return False
    kind = file_kinds.language_of(name)
    return kind is None or kind in _READABLE_MARKUP or file_kinds.kind_of(kind) == "prose"


def described_by(name: str) -> str | None:
    """Return the file whose licence the side file `name` states: `a.py` for `a.py.license`; None for other names."""
    match = _SIDE.fullmatch(name)
    return match["of"] if match else None
