"""Find licences that a text mentions by name, if they are not permissive."""

import re
from collections.abc import Iterator
from typing import Final

from infill.corpus.licences import spdx

_GNU: Final = re.compile(
    r"gnu (?P<long>affero |lesser |library |free )?(?:general )?(?:public|documentation) license"
    r"|\b(?:gnu|under|license|licensed|terms|is|the|of|and|or|either) (?P<short>a?l?gpl)(?: ?v?(?P<near>[123]))?\b"
    r"(?! (?:friendly|compatible))"
)
_GNU_NAMES: Final = {"affero ": "AGPL", "lesser ": "LGPL", "library ": "LGPL", "free ": "GFDL", None: "GPL"}
_GNU_VERSION: Final = re.compile(r"\bv(?:ersion)? ?(\d(?: [0123]\b)?)")
_GNU_LATER: Final = re.compile(r"\b(?:or|any) later\b|\bat your option\b")
_GNU_REACH: Final = 160
"""Number of characters after the name that are searched for its version."""
_NAMED: Final = (
    (re.compile(r"server side public license"), "SSPL-1.0"),
    (re.compile(r"business source license"), "BUSL-1.1"),
    (re.compile(r"elastic license(?! agreement)"), "Elastic-2.0"),
    (re.compile(r"mozilla public license"), "MPL-2.0"),
    (re.compile(r"eclipse public license"), "EPL-2.0"),
    (re.compile(r"common development and distribution license"), "CDDL-1.0"),
    (re.compile(r"european union public license"), "EUPL-1.2"),
    (re.compile(r"creative commons attribution (?:noncommercial|non commercial)|\bcc by nc\b"), "CC-BY-NC-4.0"),
    (re.compile(r"creative commons attribution share ?alike|\bcc by sa\b"), "CC-BY-SA-4.0"),
)

_ACRONYMS: Final = {
    "apsl": "APSL-2.0",
    "busl": "BUSL-1.1",
    "cddl": "CDDL-1.0",
    "cecill": "CECILL-2.1",
    "cpal": "CPAL-1.0",
    "cpl": "CPL-1.0",
    "epl": "EPL-2.0",
    "eupl": "EUPL-1.2",
    "mpl": "MPL-2.0",
    "ofl": "OFL-1.1",
    "osl": "OSL-3.0",
    "sspl": "SSPL-1.0",
    "wtfpl": "WTFPL",
}
_ACRONYM: Final = re.compile(rf"\b(?:under|license|licensed|terms of)(?: the)?(?: license)? ({'|'.join(_ACRONYMS)})\b")


def of_words(words: str) -> Iterator[str]:
    """Yield the SPDX identifiers of the licences that are named in lower-case words."""
    mentions = dict(_gnu(match, words[match.end() : match.end() + _GNU_REACH]) for match in _GNU.finditer(words))
    exact = {name for (name, version) in mentions if version}
    yield from (licence for (name, version), licence in mentions.items() if version or name not in exact)
    yield from (_ACRONYMS[match[1]] for match in _ACRONYM.finditer(words))
    for pattern, licence in _NAMED:
        if pattern.search(words):
            yield licence


def _gnu(match: re.Match[str], following: str) -> tuple[tuple[str, str], str]:
    """Return name and version of a GNU licence, and its identifier; without a version, that of the first or later."""
    name = (match["short"] or _GNU_NAMES[match["long"]]).upper()
    version = match["near"] or ((stated := _GNU_VERSION.search(following)) and stated[1].replace(" ", ".")) or ""
    later = "or-later" if not version or _GNU_LATER.search(following) else "only"
    identifier = f"{name}-{version if '.' in version else version + '.0'}-{later}"
    if spdx.normalise(identifier) == identifier:
        return (name, version), identifier
    first = {"AGPL": "3.0", "LGPL": "2.0", "GFDL": "1.1", "GPL": "1.0"}[name]
    return (name, ""), f"{name}-{first}-or-later"
