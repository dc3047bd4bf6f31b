"""Licences that a repository states file by file: REUSE.toml and Debian's copyright files (DEP-5)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from infill.corpus.licences import recognise, spdx, wording
from infill.corpus.licences.recognise import Statement, joined
from infill.corpus.licences.texts import words_of
from infill.foreign import UnreadableError, parse_toml

REUSE: Final = "REUSE.toml"
DEP5: Final = (".reuse/dep5", "debian/copyright")
_DEBIAN: Final = {
    "expat": "MIT",
    "mit/x11": "X11",
    "psf-2": "PSF-2.0",
    "boost-1.0": "BSL-1.0",
    "apache-2": "Apache-2.0",
    "apache-2-llvm-exceptions": "Apache-2.0 WITH LLVM-exception",
    "apache-2.0-with-llvm-exception": "Apache-2.0 WITH LLVM-exception",
}
"""Debian's short name, in lower case -> SPDX identifier, where they differ."""
_GNU: Final = re.compile(r"(A?L?GPL|GFDL)-(\d)(\.\d)?(\+)?", re.IGNORECASE)
_CONNECTIVES: Final = re.compile(r",?\s+(?:and|or)\s+|,\s*", re.IGNORECASE)
_ELSEWHERE: Final = re.compile(r"On Debian[^\0]*?/usr/share/common-licenses/[\w.+-]*[\w+]['\"`]?\.?", re.IGNORECASE)
"""Matches the sentence about where Debian keeps the full text."""


@dataclass(frozen=True)
class Rule:
    """A licence statement for the files that match a pattern."""

    pattern: re.Pattern[str]
    """Matches the whole path, relative to the repository."""
    statement: Statement


def of_reuse(text: str, path: str) -> list[Rule]:
    """Return the annotations of the REUSE.toml at `path` as rules; its patterns are relative to its folder.

    If the file is not valid TOML, the licence of its whole folder is unknown.
    """
    folder = path[: -len(REUSE)]
    try:
        annotations = parse_toml(text).get("annotations", [])
    except UnreadableError as error:
        return [Rule(re.compile(re.escape(folder) + ".*"), Statement(spdx.UNKNOWN, f"{path} is {error}"))]
    rules = []
    for annotation in annotations if isinstance(annotations, list) else []:
        if isinstance(annotation, dict) and "SPDX-License-Identifier" in annotation:
            statement = joined([_statement(stated, path) for stated in _strings(annotation["SPDX-License-Identifier"])])
            patterns = [re.escape(folder) + _reuse_glob(pattern) for pattern in _strings(annotation.get("path", []))]
            rules += [Rule(re.compile(pattern), statement) for pattern in patterns if statement]
    return rules


def of_dep5(text: str, path: str) -> list[Rule]:
    """Return the `Files:` paragraphs of a DEP-5 file as rules in reverse order, since the last match counts.

    The text below a licence's short name, in the same or a separate paragraph, must be the text of that licence. Where
    the name is one that the packager chose ("Go"), as the format allows, the text decides alone.
    """
    paragraphs = [dict(_fields(paragraph)) for paragraph in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n"))]
    texts = dict(
        _named_text(fields["license"]) for fields in paragraphs if "license" in fields and "files" not in fields
    )
    rules: list[Rule] = []
    for fields in paragraphs:
        if "files" in fields and "license" in fields:
            statement = _of_paragraph(fields["license"], texts, path)
            rules += [Rule(re.compile(_dep5_glob(pattern)), statement) for pattern in fields["files"].split()]
    return rules[::-1]


def _named_text(field: str) -> tuple[str, str]:
    """Return the short name in a `License` field and the text below it, in which a line with a dot is an empty line."""
    name, _, body = field.partition("\n")
    body = re.sub(r"(?m)^[ \t]*\.?[ \t]*$", "", body)
    return name.strip(), _ELSEWHERE.sub("", body).strip()


def _of_paragraph(field: str, texts: Mapping[str, str], path: str) -> Statement:
    name, body = _named_text(field)
    statement = _statement(_debian_expression(name), path)
    if not statement.is_known and wording.is_description(name, tuple(words_of(name))):
        text = recognise.of_text(body or texts.get(name, ""))
        return statement if text is None else Statement(text.expression, f"{path}: {name}: {text.evidence}")
    bodies = [body, *(texts.get(part, "") for part in {name, *_CONNECTIVES.split(name)})]
    for words in filter(None, bodies):
        text = recognise.of_text(words)
        if text is None:  # notices, which change nothing
            continue
        if not text.is_known:
            return Statement(spdx.UNKNOWN, f"{path}: {name}: {text.evidence}")
        if not spdx.keys(text.expression) <= spdx.keys(statement.expression):
            return joined([statement, Statement(text.expression, f"{path}: the text of {name}")]) or statement
    return statement


def _debian_expression(name: str) -> str:
    """Return Debian's notation ("Expat or GPL-2+, and ISC") as an SPDX expression; a comma binds less than and/or."""
    parts = [part for part in re.split(r",\s*", name) if part]
    joint = " ".join(
        (match[0].upper() + " " if (match := re.match(r"(?i)(?:and|or)\b", part)) else "AND " * bool(number))
        + "("
        + _debian_names(re.sub(r"(?i)^(?:and|or)\s+", "", part))
        + ")"
        for number, part in enumerate(parts)
    )
    return joint if len(parts) > 1 else _debian_names(name)


def _debian_names(part: str) -> str:
    return " ".join(
        word.upper() if word.lower() in {"and", "or", "with"} else _DEBIAN.get(word.lower()) or _debian_gnu(word)
        for word in part.split()
    )


def _debian_gnu(name: str) -> str:
    match = _GNU.fullmatch(name)
    return (
        name
        if match is None
        else f"{match[1].upper()}-{match[2]}{match[3] or '.0'}-{'or-later' if match[4] else 'only'}"
    )


def _fields(paragraph: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE):
        yield match[1].lower(), match[2].strip()


def _statement(stated: str, path: str) -> Statement:
    expression = spdx.of_name(stated)
    if expression is None:
        return Statement(spdx.UNKNOWN, f"{path} states {stated[:100]!r}, which is not a known licence")
    return Statement(expression, path)


def _strings(value: object) -> list[str]:
    return [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str)]


def _reuse_glob(pattern: str) -> str:
    """Return the regular expression of a glob in REUSE.toml, in which `*` does not match a slash, but `**` does."""
    parts = re.split(r"(\\.|\*\*|\*)", pattern.removeprefix("/"))
    meaning = {"**": ".*", "*": "[^/]*"}
    return "".join(meaning.get(part, re.escape(part[1:] if part.startswith("\\") else part)) for part in parts)


def _dep5_glob(pattern: str) -> str:
    """Return the regular expression of a glob in DEP-5, in which `*` and `?` match slashes too."""
    meaning = {"*": ".*", "?": "."}
    return "".join(meaning.get(part, re.escape(part)) for part in re.split(r"([*?])", pattern.removeprefix("./")))
