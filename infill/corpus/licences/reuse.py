"""Licences that a repository states file by file: REUSE.toml and Debian's copyright files (DEP-5)."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from infill.corpus.licences import spdx
from infill.corpus.licences.recognise import Statement, joined
from infill.foreign import UnreadableError, parse

REUSE: Final = "REUSE.toml"
DEP5: Final = (".reuse/dep5", "debian/copyright")


@dataclass(frozen=True)
class Rule:
    """Files of which something is stated."""

    pattern: re.Pattern[str]
    """Matches the whole path, relative to the repository."""
    statement: Statement


def of_reuse(text: str, path: str) -> list[Rule]:
    """Return the annotations of the REUSE.toml at `path`; what it annotates is relative to its folder.

    Of a file that is no TOML nothing is known, so it covers its whole folder.
    """
    folder = path[: -len(REUSE)]
    try:
        annotations = parse(tomllib.loads, text).get("annotations", [])
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
    """Return the `Files:` paragraphs of a DEP-5 file; of several that match a file the last one counts."""
    rules: list[Rule] = []
    for paragraph in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        fields = dict(_fields(paragraph))
        if "files" in fields and "license" in fields:
            name = fields["license"].split("\n")[0]
            statement = _statement(
                re.sub(r"\b(and|or|with)\b", lambda word: word[0].upper(), name.replace(",", "")), path
            )
            rules += [Rule(re.compile(_dep5_glob(pattern)), statement) for pattern in fields["files"].split()]
    return rules[::-1]


def _fields(paragraph: str) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE):
        yield match[1].lower(), match[2].strip()


def _statement(stated: str, path: str) -> Statement:
    expression = spdx.of_name(stated)
    if expression is None:
        return Statement(spdx.UNKNOWN, f"{path} states {stated[:100]!r}, which is not a licence that we know")
    return Statement(expression, path)


def _strings(value: object) -> list[str]:
    return [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str)]


def _reuse_glob(pattern: str) -> str:
    """Return the regular expression of a glob in REUSE.toml: `*` stays in a folder, `**` does not."""
    parts = re.split(r"(\\.|\*\*|\*)", pattern.removeprefix("/"))
    meaning = {"**": ".*", "*": "[^/]*"}
    return "".join(meaning.get(part, re.escape(part[1:] if part.startswith("\\") else part)) for part in parts)


def _dep5_glob(pattern: str) -> str:
    """Return the regular expression of a glob in DEP-5: `*` and `?` match slashes too."""
    meaning = {"*": ".*", "?": "."}
    return "".join(meaning.get(part, re.escape(part)) for part in re.split(r"([*?])", pattern.removeprefix("./")))
