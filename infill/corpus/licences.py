"""Licences as SPDX expressions: from what a package declares, from the text of a licence file, from a file's header.

A text is recognised by sentences that only that licence has, after case, punctuation and line breaks are gone. When a
file holds several texts, or a repository several licences, all of them apply (AND): what we cannot tell apart is held
to the stricter reading.
"""

import functools
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageMetadata
from typing import Any, Final

from license_expression import ExpressionError, Licensing, get_spdx_licensing  # type: ignore[import-untyped]

UNKNOWN: Final = "NOASSERTION"
"""SPDX's word for a licence that nobody states."""

LICENCE_FILE: Final = re.compile(
    r"(un)?(licen[cs]es?|copying|copyright)([-._ ][\w.+-]+)?(?<!\.py)(?<!\.js)(?<!\.ts)(?<!\.html)(?<!\.json)(?<!\.go)",
    re.IGNORECASE,
)
"""Matches, as a whole, names such as LICENSE, LICENCE.txt, LICENSE-MIT, COPYING.LESSER, UNLICENSE."""

DECLARATIONS: Final = ("package.json", "pyproject.toml", "Cargo.toml", "composer.json")
"""Build files at the top of a repository that may state its licence."""

HEADER_CHARS: Final = 2_000
"""An SPDX-License-Identifier is looked for in this much of a file."""

_HEADER: Final = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n\r]+)")
_SLASH: Final = re.compile(r"^([\w.-]+)/([\w.-]+)$")
"""Cargo's former way to write an alternative: "MIT/Apache-2.0"."""
_WORDS: Final = re.compile(r"[^a-z0-9]+")

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
    "apache2": "Apache-2.0",
    "apache2 0": "Apache-2.0",
    "asl 2 0": "Apache-2.0",
    "boost software 1 0": "BSL-1.0",
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
    "mit no attribution mit 0": "MIT-0",
    "modified bsd": "BSD-3-Clause",
    "mozilla public 2 0 mpl 2 0": "MPL-2.0",
    "mpl 2 0": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "psf": "PSF-2.0",
    "python software foundation": "PSF-2.0",
    "simplified bsd": "BSD-2-Clause",
    "unlicense unlicense": "Unlicense",
    "zlib libpng zlib": "Zlib",
    "zope public": "ZPL-2.1",
}
"""What people write instead of an SPDX identifier, in lower-case words without "the" and "license(d)"."""

_CHECK = Callable[[str], bool]


def _has(*phrases: str, without: Sequence[str] = ()) -> _CHECK:
    return lambda text: all(phrase in text for phrase in phrases) and not any(phrase in text for phrase in without)


_BSD: Final = "redistribution and use in source and binary forms"
_BSD_NAMES: Final = "be used to endorse or promote products derived from"
_ISC: Final = "permission to use copy modify and or distribute this software for any purpose with or without fee is"
_ISC_OLD: Final = _ISC.replace("and or", "and")
_ISC_NOTICE: Final = "provided that the above copyright notice and this permission notice appear in all copies"
_MIT: Final = (
    "permission is hereby granted free of charge to any person obtaining a copy of this software and associated"
)
_MIT_NOTICE: Final = "shall be included in all copies or substantial portions of the software"
_PYTHON: Final = "beopen com license agreement"
"""Stands in CPython's licence, which quotes older licences of Python and 0BSD for its documentation."""
_GNU: Final = "terms of the gnu {} as published by the free software foundation either version {}"


def _either(*checks: _CHECK) -> _CHECK:
    return lambda text: any(check(text) for check in checks)


TEXTS: Final[tuple[tuple[str, _CHECK], ...]] = (
    ("0BSD", _either(_has(_ISC, without=[_ISC_NOTICE, _PYTHON]), _has(_ISC_OLD, without=[_ISC_NOTICE, _PYTHON]))),
    ("AFL-3.0", _has("academic free license version 3 0")),
    ("AGPL-3.0-only", _has("gnu affero general public license version 3 19 november 2007")),
    ("AGPL-3.0-or-later", _has(_GNU.format("affero general public license", "3"), without=["19 november 2007"])),
    (
        "Apache-2.0",
        _either(
            _has("apache license version 2 0 january 2004"),
            _has("licensed under the apache license version 2 0"),
            _has("www apache org licenses license 2 0"),
        ),
    ),
    ("Artistic-2.0", _has("the artistic license 2 0")),
    ("BSD-2-Clause", _has(_BSD, without=[_BSD_NAMES, "all advertising materials mentioning"])),
    (
        "BSD-3-Clause",
        _has(_BSD, _BSD_NAMES, without=["all advertising materials mentioning", "subject to the limitations in"]),
    ),
    ("BSD-3-Clause-Clear", _has(_BSD, _BSD_NAMES, "subject to the limitations in")),
    ("BSD-4-Clause", _has(_BSD, "all advertising materials mentioning")),
    ("BSL-1.0", _has("boost software license version 1 0")),
    ("BUSL-1.1", _has("business source license 1 1")),
    ("CC-BY-4.0", _has("creative commons attribution 4 0 international")),
    ("CC-BY-NC-4.0", _has("creative commons attribution noncommercial 4 0 international")),
    ("CC-BY-SA-4.0", _has("creative commons attribution sharealike 4 0 international")),
    ("CC0-1.0", _has("cc0 1 0 universal")),
    ("CDDL-1.0", _has("common development and distribution license cddl version 1 0")),
    ("Elastic-2.0", _has("elastic license 2 0")),
    ("EPL-1.0", _has("eclipse public license v 1 0")),
    ("EPL-2.0", _has("eclipse public license v 2 0")),
    ("EUPL-1.2", _has("european union public licence v 1 2")),
    ("GPL-2.0-only", _has("gnu general public license version 2 june 1991")),
    ("GPL-2.0-or-later", _has(_GNU.format("general public license", "2"), without=["version 2 june 1991"])),
    ("GPL-3.0-only", _has("gnu general public license version 3 29 june 2007")),
    ("GPL-3.0-or-later", _has(_GNU.format("general public license", "3"), without=["29 june 2007"])),
    ("ISC", _either(_has(_ISC, _ISC_NOTICE), _has(_ISC_OLD, _ISC_NOTICE))),
    ("JSON", _has("the software shall be used for good not evil")),
    ("LGPL-2.0-only", _has("gnu library general public license version 2 june 1991")),
    ("LGPL-2.1-only", _has("gnu lesser general public license version 2 1 february 1999")),
    ("LGPL-2.1-or-later", _has(_GNU.format("lesser general public license", "2 1"), without=["february 1999"])),
    ("LGPL-3.0-only", _has("gnu lesser general public license version 3 29 june 2007")),
    ("LGPL-3.0-or-later", _has(_GNU.format("lesser general public license", "3"), without=["29 june 2007"])),
    ("LicenseRef-scancode-commons-clause", _has("commons clause")),
    ("MIT", _has(_MIT, _MIT_NOTICE, without=["shall not be used in advertising or otherwise to promote the sale"])),
    ("MIT-0", _has(_MIT, without=[_MIT_NOTICE])),
    (
        "MIT-CMU",
        _has(
            "permission to use copy modify and distribute this software and its documentation for any purpose",
            without=[_PYTHON],
        ),
    ),
    ("MPL-1.1", _has("mozilla public license version 1 1")),
    ("MPL-2.0", _either(_has("mozilla public license version 2 0"), _has("mozilla public license v 2 0"))),
    ("Python-2.0", _has("python software foundation license version 2", _PYTHON)),
    ("PSF-2.0", _has("python software foundation license version 2", without=[_PYTHON])),
    ("SSPL-1.0", _has("server side public license version 1")),
    ("Unlicense", _has("this is free and unencumbered software released into the public domain")),
    ("WTFPL", _has("do what the fuck you want to public license")),
    ("X11", _has(_MIT, "shall not be used in advertising or otherwise to promote the sale")),
    ("Zlib", _has("altered source versions must be plainly marked as such")),
)
"""SPDX identifier -> whether a text, in lower-case words, is or contains that licence."""


@functools.cache
def _spdx() -> Licensing:
    return get_spdx_licensing()


def normalise(expression: str) -> str | None:
    """A valid SPDX expression in its usual spelling ("mit or apache-2.0" -> "MIT OR Apache-2.0"), else None."""
    try:
        parsed = _spdx().parse(expression, validate=True)
    except ExpressionError:
        return None
    return None if parsed is None else str(parsed)


def permitted(expression: str, allowed: Iterable[str]) -> bool:
    """Whether the terms of `expression` can be met with the licences `allowed` alone.

    One side of an OR is enough, each side of an AND is needed; an exception (WITH) only adds rights, so it is as good
    as the licence that it belongs to.
    """
    return _permitted(expression, frozenset(allowed))


@functools.lru_cache(maxsize=4096)
def _permitted(expression: str, allowed: frozenset[str]) -> bool:
    normal = normalise(expression)
    return normal is not None and _met(_spdx().parse(normal), allowed)


def _met(node: Any, allowed: frozenset[str]) -> bool:
    operator = getattr(node, "operator", "").strip()
    if operator == "OR":
        return any(_met(part, allowed) for part in node.args)
    if operator == "AND":
        return all(_met(part, allowed) for part in node.args)
    return getattr(node, "license_symbol", node).key in allowed


def recognise(text: str) -> str | None:
    """The licence whose text this is, as an SPDX expression; several are joined by AND; None when there is none."""
    words = _WORDS.sub(" ", re.sub(r"[\"'`“”‘’]", "", text.lower()))
    return conjunction(name for name, check in TEXTS if check(words))


def conjunction(expressions: Iterable[str]) -> str | None:
    """All of the licences together, each once and in alphabetical order; None when there are none."""
    parts = sorted(set(expressions))
    if len(parts) <= 1:
        return parts[0] if parts else None
    return str(_spdx().parse(" AND ".join(f"({part})" for part in parts)).simplify())


def of_statement(statement: str) -> str | None:
    """The licence that somebody states in their own words: SPDX, a usual name, an address, or a whole text."""
    statement = statement.strip()
    if len(statement) > 200 or statement.count("\n") > 2:
        return recognise(statement)
    key = _WORDS.sub(" ", statement.lower()).strip()
    key = " ".join(word for word in key.split() if word not in {"the", "license", "licence", "licensed", "under"})
    return normalise(statement) or _ALIASES.get(key)


def of_header(text: str) -> str | None:
    """The expression behind SPDX-License-Identifier in a file's first lines; None without one.

    An expression that SPDX does not know is returned as it stands (it then is not permitted).
    """
    start = text.find("SPDX-License-Identifier:", 0, HEADER_CHARS)
    found = None if start < 0 else _HEADER.match(text, start)
    if found is None:
        return None
    stated = re.split(r"\*/|-->|#}|\"\"\"|\*\)", found[1])[0].strip().rstrip("*/-#;\"'").strip()
    return normalise(stated) or stated or None


def of_distribution(metadata: PackageMetadata, texts: Sequence[str]) -> str:
    """The licence of a Python distribution: its License-Expression, else License, else the classifiers.

    `texts` are its licence files; they decide where the metadata leaves open what is meant ("BSD").
    """
    for field in ("License-Expression", "License"):
        if licence := of_statement("".join(metadata.get_all(field) or [])):
            return licence
    names = [
        line.split(" :: ")[-1] for line in metadata.get_all("Classifier") or [] if line.startswith("License :: OSI")
    ]
    stated = [of_statement(name) for name in names if name != "OSI Approved"]
    if stated and all(stated):
        return conjunction(filter(None, stated)) or UNKNOWN
    return conjunction(filter(None, map(recognise, texts))) or UNKNOWN


def of_repository(licence_texts: Sequence[str], declarations: Mapping[str, str]) -> str:
    """The licence of a repository by the texts of its licence files and its build files (name -> text).

    A declared expression counts when the texts only confirm it ("MIT OR Apache-2.0" beside both texts); otherwise
    everything applies.
    """
    recognised = {found for text in licence_texts if (found := recognise(text) or of_header(text))}
    declared = {found for name, text in declarations.items() if (found := _declared(name, text))}
    if len(declared) == 1 and recognised <= set(_keys(next(iter(declared)))):
        return next(iter(declared))
    return conjunction(recognised | declared) or UNKNOWN


def _keys(expression: str) -> list[str]:
    normal = normalise(expression)
    return [] if normal is None else [str(key) for key in _spdx().license_keys(normal)]


def _declared(name: str, text: str) -> str | None:
    """What a build file states; None when it states nothing or cannot be read."""
    try:
        value = tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
    except (ValueError, RecursionError):
        return None
    section = value if name.endswith(".json") else value.get("project" if name == "pyproject.toml" else "package")
    stated = section.get("license", section.get("licenses")) if isinstance(section, dict) else None
    parts = stated if isinstance(stated, list) else [stated]
    names = [part.get("type", part.get("text")) if isinstance(part, dict) else part for part in parts]
    found = [of_statement(_SLASH.sub(r"\1 OR \2", part)) for part in names if isinstance(part, str)]
    return normalise(" OR ".join(f"({part})" for part in found if part)) if found and all(found) else None
