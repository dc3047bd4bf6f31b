"""What its owners asked to be left out: repositories, and paths in them, listed in a TOML file.

    [[opt_out]]
    repository = "acme/*"
    path = "examples/**"
    reason = "asked for by Acme on 2026-11-02"

`repository` is a name or a pattern (`*`, `?`), without regard to case. It matches a repository with that name, with
folders before it (`github.com/acme/widgets`), and every repository below it. `path` is a pattern as in a `.gitignore`;
without one the whole repository is left out. `reason` is for people: it stands beside every file that is removed.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infill import storage
from infill.errors import InputError
from infill.foreign import UnreadableError, parse
from infill.gitignore import Rules
from infill.text import DecodeError, decode

_KEYS: Final = frozenset({"repository", "path", "reason"})
_NUMBER: Final = re.compile(r"~\d+$")
"""What tells repositories of the same name apart (`sources.repositories`)."""


@dataclass(frozen=True)
class _Entry:
    repository: re.Pattern[str]
    paths: Rules | None
    """None: the whole repository."""
    told: str
    """The entry, for people."""

    def covers(self, repository: str, path: str) -> bool:
        if not self.repository.fullmatch(_NUMBER.sub("", repository)):
            return False
        return self.paths is None or self.paths.ignore(path.rstrip("/"), folder=path.endswith("/"))


@dataclass(frozen=True)
class OptOuts:
    """The list; empty where none is set."""

    entries: Sequence[_Entry] = ()

    def of(self, repository: str, path: str) -> str | None:
        """Return the entry for which a file is left out; None when it is not."""
        return next((entry.told for entry in self.entries if entry.covers(repository, path)), None)


def load(uri: str) -> OptOuts:
    """Return the list in the file `uri`; an empty one for an empty `uri`.

    Raises InputError for a file that is missing or is no such list: an opt-out that cannot be read must not be passed
    over.
    """
    if not uri:
        return OptOuts()
    try:
        value = parse(tomllib.loads, decode(storage.read_bytes(uri)))
    except (UnreadableError, DecodeError) as error:
        raise InputError(f"corpus.opt_out {uri} is not a TOML file ({error}); mend it") from error
    tables = value.get("opt_out", [])
    if value.keys() - {"opt_out"} or not isinstance(tables, list):
        raise InputError(
            f"corpus.opt_out {uri} must hold [[opt_out]] tables and nothing else; see infill.corpus.opt_out"
        )
    return OptOuts(tuple(_entry(table, f"{uri}, entry {number}") for number, table in enumerate(tables, 1)))


def digest(uri: str) -> str:
    """Return the SHA-256 of the list, empty where none is set."""
    return hashlib.sha256(storage.read_bytes(uri)).hexdigest() if uri else ""


def _entry(table: Any, where: str) -> _Entry:
    if not isinstance(table, Mapping) or table.keys() - _KEYS or not all(_is_word(value) for value in table.values()):
        raise InputError(f"{where}: an opt-out has repository, path and reason, each a text that is not empty")
    if "repository" not in table:
        raise InputError(f'{where}: it names no repository; write repository = "*" for all')
    path = table.get("path", "")
    told = table["repository"] + (f": {path}" if path else "") + (f" ({table['reason']})" if "reason" in table else "")
    return _Entry(_pattern(table["repository"]), Rules(path.encode()) if path else None, told)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _pattern(name: str) -> re.Pattern[str]:
    wildcards = {"*": ".*", "?": "."}
    glob = "".join(wildcards.get(part, re.escape(part)) for part in re.split(r"([*?])", name.strip("/")))
    return re.compile(rf"(?:.*/)?{glob}(?:/.*)?", re.IGNORECASE | re.DOTALL)
