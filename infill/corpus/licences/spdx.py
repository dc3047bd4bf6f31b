"""SPDX expressions: parse licence names as people write them, combine expressions, check them against allowed ones."""

import functools
import re
from collections.abc import Iterable
from typing import Any, Final

from license_expression import Licensing, get_spdx_licensing  # type: ignore[import-untyped]

from infill.foreign import UnreadableError, parse

UNKNOWN: Final = "NOASSERTION"
"""SPDX's word for a licence that is not stated or not recognised."""
_WORDS: Final = re.compile(r"[^a-z0-9]+")

_MAX_EXPRESSION: Final = 2_000
"""Maximum length of an expression in characters; the parser is recursive."""
_LICENCE_REF: Final = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_SLASH: Final = re.compile(r"^([\w.+-]+)\s*/\s*([\w.+-]+)$")
"""Matches Cargo's former notation for a choice: "MIT/Apache-2.0"."""
_FILLERS: Final = frozenset({"the", "a", "license", "licence", "licensed", "under", "terms", "of", "released"})
_RESTRICTIVE_TEXT: Final = (
    "absent academic accept acceptable addendum addition additional additionally addon agree agreement ai allow "
    "allowed allows amended amendment applies apply artificial ask asking authorised authorized ban banned bot bots "
    "bound but buy cannot case clause commercial commercially companies company compete competing competitor "
    "competitors condition conditions confidential consent contact contract copilot cost crawl crawler crawlers "
    "crawling customer customers dataset datasets defense denied deny derivative disallowed discriminate distribute "
    "distributing distribution educational eligible employees ends enterprise ethical ethics evaluation evil except "
    "exception exceptions excluded excludes excluding exclusively expires expressly extra fee fees field forbidden "
    "forbids generative good government governments gpt grant granted grants harm hereby hosted hosting however "
    "humans if illegal infringe infringement intelligence internal learning limit limitation limitations limited "
    "limits llm llms machine mandatory may military mining ml model models modification modifications modify need "
    "needs neural never no nobody non noncommercial nonprofit not nothing notwithstanding obey obtain only "
    "organisations organizations override overrides patent patents pay payment permission permissions permit permits "
    "permitted personal price prior privately production profit prohibit prohibited prohibits proprietary provided "
    "provision provisions purchase purpose purposes redistribute redistributing redistribution refrain replaced "
    "replaces reproduce request require required requirement requirements requires research reserved restrict "
    "restricted restricting restriction restrictions restrictive revenue revocable revoke revoked rider rights robot "
    "robots royalties royalty saas sales scrape scraping secret sell selling shall should stipulation strictly "
    "students sublicense subscription supersede superseded supersedes supplement surveillance term terminate "
    "terminated terminates trade trademark train trained training trains transfer trial unauthorised unauthorized "
    "unlawful unless usage use used user users uses using valid violate violates violation void voids waive waived "
    "war warfare weapon weapons whoever without written"
)
_RESTRICTIVE: Final = frozenset(_RESTRICTIVE_TEXT.split())
"""Words of permissions and prohibitions: a line without any of them neither grants nor restricts a right."""

_IN_NAMES_TEXT: Final = (
    "academic ai companies company enterprise enterprises field good grant intelligence learning limited machine may "
    "mining model models neural organisation organization research robot robots trade uses"
)
_IN_NAMES: Final = frozenset(_IN_NAMES_TEXT.split())
"""Words of `_RESTRICTIVE` that names of copyright holders also have; alone they do not restrict anything."""

_ALIASES: Final = {
    "0bsd": "0BSD",
    "2 clause bsd": "BSD-2-Clause",
    "3 clause bsd": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2 0": "Apache-2.0",
    "apache software": "Apache-2.0",
    "apache software 2 0": "Apache-2.0",
    "apache software version 2 0": "Apache-2.0",
    "apache version 2": "Apache-2.0",
    "apache version 2 0": "Apache-2.0",
    "apache 2 0 with llvm exception": "Apache-2.0 WITH LLVM-exception",
    "apache 2 0 with llvm exceptions": "Apache-2.0 WITH LLVM-exception",
    "apache2": "Apache-2.0",
    "apache2 0": "Apache-2.0",
    "asl 2 0": "Apache-2.0",
    "boost": "BSL-1.0",
    "boost software": "BSL-1.0",
    "boost software 1 0": "BSL-1.0",
    "boost software version 1 0": "BSL-1.0",
    "bsd 0 clause": "0BSD",
    "bsd 3": "BSD-3-Clause",
    "bsd 2": "BSD-2-Clause",
    "bsd3": "BSD-3-Clause",
    "bsd2": "BSD-2-Clause",
    "boost software 1 0 bsl 1 0": "BSL-1.0",
    "bsd 2 clause": "BSD-2-Clause",
    "bsd 3 clause": "BSD-3-Clause",
    "bsd 3 clause clear": "BSD-3-Clause-Clear",
    "cc0 1 0 universal cc0 1 0 public domain dedication": "CC0-1.0",
    "expat": "MIT",
    "expat mit": "MIT",
    "http www apache org licenses 2 0": "Apache-2.0",
    "https opensource org licenses mit": "MIT",
    "https www apache org licenses 2 0": "Apache-2.0",
    "isc": "ISC",
    "isc iscl": "ISC",
    "mit": "MIT",
    "mit no attribution": "MIT-0",
    "mit no attribution mit 0": "MIT-0",
    "mit 0": "MIT-0",
    "zero clause bsd": "0BSD",
    "bsd zero clause": "0BSD",
    "modified bsd": "BSD-3-Clause",
    "mozilla public 2 0 mpl 2 0": "MPL-2.0",
    "mpl 2 0": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "psf": "PSF-2.0",
    "psf 2": "PSF-2.0",
    "python software foundation": "PSF-2.0",
    "simplified bsd": "BSD-2-Clause",
    "unlicense unlicense": "Unlicense",
    "zlib libpng zlib": "Zlib",
    "zope public": "ZPL-2.1",
}
"""Common name of a licence, in lower-case words without "the" and "license(d)" -> SPDX identifier."""


@functools.cache
def _spdx() -> Licensing:
    """Return the parser, with its automaton: else a thread could read one that another thread still builds."""
    parser = get_spdx_licensing()
    parser.get_advanced_tokenizer()
    return parser


def normalise(expression: str) -> str | None:
    """Return an SPDX expression in its usual spelling ("mit or apache-2.0" -> "MIT OR Apache-2.0"); None if invalid.

    Valid identifiers are those of the SPDX licence list and `LicenseRef-...`.
    """
    parsed = _parsed(expression)
    return None if parsed is None else str(parsed)


@functools.lru_cache(maxsize=4096)
def _parsed(expression: str) -> Any:
    """Return the syntax tree of an expression; None if it is not valid."""
    if len(expression) > _MAX_EXPRESSION:
        return None
    try:
        parsed = parse(_spdx().parse, expression, validate=False, strict=True)
        unknown = [] if parsed is None else parse(_spdx().unknown_license_keys, parsed)
    except UnreadableError:
        return None
    if parsed is None:
        return None
    return parsed if all(map(_LICENCE_REF.fullmatch, unknown)) else None


def permitted(expression: str, allowed: Iterable[str]) -> bool:
    """Return whether the licences `allowed` are enough to satisfy `expression`.

    One side of an OR must be allowed, and both sides of an AND. An exception (WITH) only adds rights, so it is ignored.
    """
    parsed = _parsed(expression)
    return parsed is not None and _met(parsed, frozenset(allowed))


def _met(node: Any, allowed: frozenset[str]) -> bool:
    operator = getattr(node, "operator", "").strip()
    if operator == "OR":
        return any(_met(part, allowed) for part in node.args)
    if operator == "AND":
        return all(_met(part, allowed) for part in node.args)
    return getattr(node, "license_symbol", node).key in allowed


def conjunction(expressions: Iterable[str]) -> str | None:
    """Return the licences combined by AND, without repetition and in alphabetical order; None if there are none."""
    parts = sorted(set(expressions))
    if len(parts) <= 1:
        return parts[0] if parts else None
    return str(_spdx().parse(" AND ".join(f"({part})" for part in parts)).simplify())


def disjunction(expressions: Iterable[str]) -> str | None:
    """Return the licences combined by OR, without repetition and in their order; None if there are none."""
    parts = list(dict.fromkeys(expressions))
    if len(parts) <= 1:
        return parts[0] if parts else None
    return str(_spdx().parse(" OR ".join(f"({part})" for part in parts)))


def keys(expression: str) -> frozenset[str]:
    """Return the identifiers in an expression; an empty set if it is not valid."""
    parsed = _parsed(expression)
    return frozenset() if parsed is None else frozenset(str(key) for key in _spdx().license_keys(parsed))


def key_of(statement: str) -> str:
    """Return the significant words of a licence's name in lower case."""
    return " ".join(word for word in _WORDS.sub(" ", statement.lower()).split() if word not in _FILLERS)


def of_name(statement: str) -> str | None:
    """Return the expression for a licence given as SPDX, a common name, or an address; None if it is unknown."""
    expression = normalise(_SLASH.sub(r"\1 OR \2", statement.strip()))
    key = key_of(statement)
    return expression or (_ALIASES.get(key) if statement.count("(") == statement.count(")") else None)


def restricts(words: Iterable[str]) -> bool:
    """Return whether words may grant or restrict a right."""
    return not _RESTRICTIVE.isdisjoint(words)


def restricts_more_than_a_name(words: Iterable[str]) -> bool:
    """Return whether words in place of a copyright holder's name may grant or restrict a right."""
    return not (_RESTRICTIVE - _IN_NAMES).isdisjoint(words)
