"""Licence statements in build files and package metadata."""

import ast
import configparser
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import PackageMetadata
from typing import Any, Final

from infill.corpus.licences import recognise, spdx
from infill.corpus.licences.recognise import Statement
from infill.foreign import UnreadableError, parse, parse_toml
from infill.text import split_lines

_BY_FILE: Final = re.compile(
    r"(?:see (?:the )?|in (?:the )?|as in (?:the )?)?(?:file:?|dual(?: licensed?)?|multi(?:ple)? licenses?|"
    r"licen[cs]e agreement .*|(?:see |file )?(?:the )?\.?/?(?:licen[cs]es?|copying)(?:[-._]\w+)*(?: file)?"
    r"(?: for details)?)",
    re.IGNORECASE,
)
"""Matches statements that only point to the licence files."""
_SEE: Final = re.compile(r"see licen[cs]e in (?:\./)?(?P<file>[^/]+)", re.IGNORECASE)
"""Matches npm's reference to a licence file."""
_FAMILIES: Final = {
    "bsd": ("BSD", "0BSD", "ISC"),
    "bsd style": ("BSD",),
    "academic free": ("AFL",),
    "apache software": ("Apache",),
}
"""Name that several licences share -> prefixes of their SPDX identifiers."""


def _json(text: str) -> Iterator[object]:
    value = json.loads(text)
    if isinstance(value, dict):
        stated = value.get("license", value.get("licence", value.get("licenses", value.get("licences"))))
        yield from _alternatives(stated)


def _alternatives(stated: object) -> Iterator[object]:
    """Yield the licences in a JSON or TOML value; a list of names offers a choice and is yielded as one expression."""
    parts = stated if isinstance(stated, list) else [stated]
    names = [part.get("type", part.get("name", part.get("text"))) if isinstance(part, dict) else part for part in parts]
    if len(names) == 1 or not all(isinstance(name, str) for name in names):
        yield from names
    elif names:
        known = [spdx.of_name(str(name)) for name in names]
        yield spdx.disjunction(name for name in known if name) if all(known) else " OR ".join(map(str, names))


def _pyproject(text: str) -> Iterator[object]:
    value = parse_toml(text)
    project, poetry = _table(value, "project"), _table(_table(value, "tool"), "poetry")
    for section in (project, poetry):
        stated = section.get("license")
        if not (isinstance(stated, dict) and "file" in stated):
            yield from _alternatives(stated)
        yield from _classifiers(section.get("classifiers"))


def _cargo(text: str) -> Iterator[object]:
    value = parse_toml(text)
    for section in (_table(value, "package"), _table(_table(value, "workspace"), "package")):
        stated = section.get("license")
        yield None if isinstance(stated, dict) else stated


def _table(value: object, name: str) -> Mapping[str, Any]:
    section = value.get(name) if isinstance(value, dict) else None
    return section if isinstance(section, dict) else {}


def _classifiers(listed: object) -> Iterator[str]:
    """Yield the licences in trove classifiers; "OSI Approved" alone does not name one."""
    lines = listed if isinstance(listed, list) else split_lines(str(listed or ""))
    for line in lines:
        if isinstance(line, str) and line.strip().startswith("License ::"):
            name = line.rpartition("::")[2].strip()
            if name not in {"OSI Approved", "DFSG approved", "License"}:
                yield name


def _setup_cfg(text: str) -> Iterator[object]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string(text)
    if parser.has_section("metadata"):
        yield parser["metadata"].get("license_expression", parser["metadata"].get("license"))
        yield from _classifiers(parser["metadata"].get("classifiers", parser["metadata"].get("classifier")))


def _setup_py(text: str) -> Iterator[object]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.keyword) and node.arg in {"license", "license_expression", "classifiers"}:
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                continue  # a computed value cannot be read without running setup.py
            yield from _classifiers(value) if node.arg == "classifiers" else [value]


def _pattern(expression: str) -> Callable[[str], Iterator[object]]:
    """Return a reader for formats without a parser: the group `stated` of each match has the licences, often quoted.

    What an expression repeats over lines has a bound, so that a hostile file takes linear time.
    """
    pattern = re.compile(expression, re.MULTILINE | re.IGNORECASE)

    def read(text: str) -> Iterator[object]:
        for match in pattern.finditer(text):
            stated = match["stated"].strip()
            quoted = re.findall(r"""["']([^"'\n]+)["']""", stated)
            yield from _alternatives(quoted or [stated])

    return read


_LOOSE: Final = _pattern(
    r"""(?:^|[{,])[\s"']{0,99}licen[cs]es?["']?\s{0,99}[:=]\s{0,99}(?P<stated>["'][^"'\n]*["']|\[[^\]]{0,1999}\])"""
)
_ASSIGNED: Final = r"""\.licen[cs]es?\s{0,99}=\s{0,99}(?P<stated>\[[^\]]{0,1999}\]|\{[^}]{0,1999}\}|["'][^"'\n]*["'])"""
_READERS: Final[Mapping[str, Callable[[str], Iterator[object]]]] = {
    "package.json": _json,
    "bower.json": _json,
    "composer.json": _json,
    "pyproject.toml": _pyproject,
    "cargo.toml": _cargo,
    "setup.cfg": _setup_cfg,
    "setup.py": _setup_py,
    "pom.xml": _pattern(r"<license>(?:(?!</license>)[\s\S]){0,499}?<name>(?P<stated>[^<]*)</name>"),
    "mix.exs": _pattern(r"\blicenses:\s{0,99}(?P<stated>\[[^\]]{0,1999}\])"),
    "description": _pattern(r"^License:[ \t]*(?P<stated>\S.*)$"),
    "pkg-info": _pattern(r"^License(?:-Expression)?:[ \t]*(?P<stated>\S.*)$"),
}
"""Name of a build file, in lower case -> function that yields its licence statements."""
_READERS_BY_SUFFIX: Final[Mapping[str, Callable[[str], Iterator[object]]]] = {
    ".gemspec": _pattern(_ASSIGNED),
    ".podspec": _pattern(_ASSIGNED),
    ".nuspec": _pattern(r"<license[^>]{0,999}>(?P<stated>[^<]*)</license>"),
    ".csproj": _pattern(r"<PackageLicenseExpression>(?P<stated>[^<]*)</PackageLicenseExpression>"),
    ".cabal": _pattern(r"^license:[ \t]*(?P<stated>\S.*)$"),
}


def is_build_file(name: str) -> bool:
    """Return whether a file with this name is a build file that may state a licence."""
    return _reader(name) is not None


def _reader(name: str) -> Callable[[str], Iterator[object]] | None:
    lower = name.lower()
    return _READERS.get(lower) or _READERS_BY_SUFFIX.get(os.path.splitext(lower)[1])


def stated(name: str, text: str) -> list[str]:
    """Return the licence statements of the build file `name` as they are written.

    If the format's parser rejects the file (for a surplus comma, say), everything that looks like a statement counts.
    """
    reader = _reader(name)
    if reader is None:
        return []
    try:
        return parse(_words, reader, text)
    except UnreadableError:
        return _words(_LOOSE, text)


def _words(reader: Callable[[str], Iterator[object]], text: str) -> list[str]:
    values = [value for value in reader(text) if value is not None]
    return [value if isinstance(value, str) else json.dumps(value, default=str) for value in values]


def of_metadata(metadata: PackageMetadata) -> list[str]:
    """Return the licence statements of Python metadata: License-Expression, or else License and the classifiers."""
    expression = [value.strip() for value in metadata.get_all("License-Expression") or [] if value.strip()]
    if expression:
        return expression
    stated = [value for value in metadata.get_all("License") or [] if value.strip() not in {"", "UNKNOWN"}]
    return stated + list(_classifiers(list(metadata.get_all("Classifier") or [])))


def of_statement(words: str, known: frozenset[str], files: Collection[str] = ()) -> Statement | None:
    """Return the licence that `words` state; None if they only point to licence files whose licence is known.

    `known` has the identifiers that the licence files of the same folder state, `files` the names of these files.
    """
    words = words.strip()
    if not words:
        return None
    if (expression := spdx.of_name(words)) is not None:
        return Statement(expression)
    if len(words) > 100 or "\n" in words:
        recognised = recognise.of_text(words)
        return recognised or Statement(spdx.UNKNOWN, f"it states {words[:60]!r}, which is not a known licence")
    if known and _points_to(words, known, files):
        return None
    return Statement(spdx.UNKNOWN, f"it states {words!r}, which is not a known licence")


def _points_to(words: str, known: frozenset[str], files: Collection[str]) -> bool:
    if (see := _SEE.fullmatch(words)) is not None:
        return see["file"] in files
    family = _FAMILIES.get(spdx.key_of(words))
    if family is not None:
        return any(name.startswith(family) for name in known)
    return _BY_FILE.fullmatch(words.strip(" .()")) is not None
