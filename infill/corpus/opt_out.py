"""Opt-outs: repositories, and paths in them, that are left out at their owners' request, listed in a TOML file.

    [[opt_out]]
    repository = "acme/*"
    path = "examples/**"
    reason = "asked for by Acme, ticket 4711"
    date = 2026-11-02

`repository` is a name or a pattern (`*`, `?`); upper and lower case are equal. It matches a repository with that name,
also with folders before it (`github.com/acme/widgets`), and every repository below it. `path` is a pattern as in a
`.gitignore`; without it, the whole repository is left out. `reason` is a text that is recorded for every removed file.
`date` is the day of the request. `infill corpus remove` adds an entry.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from infill import storage
from infill.errors import InputError
from infill.foreign import UnreadableError, parse_toml
from infill.gitignore import IgnoreRules
from infill.text import DecodeError, decode

VARIABLE: Final = "INFILL_OPT_OUT"
"""Environment variable with the list that is used if a command names none; empty for no list."""
SETTING: Final = "corpus.opt_out"
_KEYS: Final = frozenset({"repository", "path", "reason", "date"})
_NUMBER: Final = re.compile(r"~\d+$")
"""Matches the number that distinguishes repositories of the same name (`sources.repositories`)."""
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OptOutEntry:
    """One request."""

    repository: str
    path: str = ""
    """Empty: the whole repository."""
    reason: str = ""
    date: str = ""
    """The day of the request, such as 2026-11-02."""
    names: re.Pattern[str]
    """`repository`, compiled."""
    paths: IgnoreRules | None
    """`path`, compiled."""

    @property
    def text(self) -> str:
        """The entry in one line, as recorded for removed files."""
        path = f": {self.path}" if self.path else ""
        return self.repository + path + (f" ({self.reason})" if self.reason else "")

    def covers_repository(self, repository: str) -> bool:
        """Return whether the entry applies to files of `repository`."""
        return self.names.fullmatch(_NUMBER.sub("", repository)) is not None

    def covers(self, repository: str, path: str) -> bool:
        """Return whether the entry excludes a file; the path of a folder ends with a slash."""
        if not self.covers_repository(repository):
            return False
        return self.paths is None or self.paths.ignore(path.rstrip("/"), folder=path.endswith("/"))


@dataclass(frozen=True)
class OptOuts:
    """The list of opt-outs; empty if none is set."""

    entries: Sequence[OptOutEntry] = ()

    def of(self, repository: str, path: str) -> str | None:
        """Return the text of the entry that excludes a file; None if there is none."""
        return next((entry.text for entry in self.entries if entry.covers(repository, path)), None)

    def concern(self, repository: str) -> bool:
        """Return whether an entry applies to files of `repository`."""
        return any(entry.covers_repository(repository) for entry in self.entries)


NONE: Final = OptOuts()


def usual() -> str:
    """Return the list for a command that names none: that in INFILL_OPT_OUT, or else the user's own."""
    if VARIABLE in os.environ:
        return storage.absolute(os.environ[VARIABLE]) if os.environ[VARIABLE] else ""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return str(home / "infill" / "opt-out.toml")


def with_usual(settings: Mapping[str, Any], *, on_cluster: bool = False) -> dict[str, Any]:
    """Return a command's settings, with the usual list if they name none.

    A list in INFILL_OPT_OUT must exist when it is read; the user's own may be missing. Raises InputError for a list on
    this machine if the corpus is built on a cluster, because the requests in it would be ignored.
    """
    if SETTING in settings or not (uri := usual()) or not (VARIABLE in os.environ or storage.exists(uri)):
        return dict(settings)
    if on_cluster and storage.is_local(uri):
        raise InputError(
            f"the cluster cannot read the opt-outs in {uri}, which is on this machine; copy the list to the store and"
            f" give --set {SETTING}=URI, or set {VARIABLE}"
        )
    log.info("applying the opt-outs in %s", uri)
    return {**settings, SETTING: uri}


def load(uri: str) -> OptOuts:
    """Return the list in the file `uri`; an empty one for an empty `uri`.

    Raises InputError if the file is missing or not such a list, because an opt-out must never be ignored.
    """
    if not uri:
        return OptOuts()
    try:
        text = decode(storage.read_bytes(uri))
    except DecodeError as error:
        raise InputError(f"{SETTING} {uri} is not a text file ({error}); correct it") from error
    return OptOuts(_entries(text, uri))


def _entries(text: str, uri: str) -> tuple[OptOutEntry, ...]:
    try:
        value = parse_toml(text)
    except UnreadableError as error:
        raise InputError(f"{SETTING} {uri} is not a TOML file ({error}); correct it") from error
    tables = value.get("opt_out", [])
    if value.keys() - {"opt_out"} or not isinstance(tables, list):
        raise InputError(f"{SETTING} {uri} must hold [[opt_out]] tables and nothing else; see infill.corpus.opt_out")
    return tuple(_entry(table, f"{uri}, entry {number}") for number, table in enumerate(tables, 1))


def entry(repository: str, path: str = "", reason: str = "") -> OptOutEntry:
    """Return an entry with the date of today. Raises InputError for an invalid name of a repository or a file."""
    if "://" in repository or repository.startswith("git@"):
        name = re.sub(r"(\.git)?/*$", "", repository.rpartition("://")[2].rpartition(":")[2]).partition("/")[2]
        raise InputError(
            f"repository {repository} is an address; give its name in the corpus, such as {name or 'NAME'}"
        )
    if path.startswith(("!", "#")):
        raise InputError(f"path {path} names no file, as in a .gitignore; write \\{path} for a file of that name")
    today = datetime.now(UTC).date()
    return _entry(
        {"repository": repository, "date": today} | _present({"path": path, "reason": reason}), "the new entry"
    )


def _present(values: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def add(uri: str, new: OptOutEntry) -> bool:
    """Add an entry to the list in the file `uri`, which may be missing; return False if it exists already.

    The rest of the file, comments included, is kept. Raises InputError as `load` does.
    """
    with _locked(uri):
        known = load(uri).entries if storage.exists(uri) else ()
        if any((entry.repository, entry.path) == (new.repository, new.path) for entry in known):
            return False
        before = decode(storage.read_bytes(uri)) if known or storage.exists(uri) else ""
        text = (before.rstrip("\n") + "\n\n" if before.strip() else "") + _written(new)
        try:
            _entries(text, uri)
        except InputError as error:  # the file does not end with [[opt_out]] tables
            raise InputError(f"cannot add to {uri}, add it by hand: {_written(new)!r} ({error})") from error
        storage.write_bytes(uri, text.encode())
    return True


@contextlib.contextmanager
def _locked(uri: str) -> Iterator[None]:
    """Lock the list against other processes of this machine, by its folder, because the file itself is replaced."""
    if not storage.is_local(uri):
        yield
        return
    folder = storage.local_path(uri).parent
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _written(new: OptOutEntry) -> str:
    """Return an entry as TOML, whose strings are those of JSON except for the character 127."""
    texts = _present({"repository": new.repository, "path": new.path, "reason": new.reason})
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in texts.items()]
    return "\n".join(["[[opt_out]]", *lines, f"date = {new.date}", ""]).replace("\x7f", "\\u007f")


def digest(uri: str) -> str:
    """Return the SHA-256 of the list; empty if none is set."""
    return hashlib.sha256(storage.read_bytes(uri)).hexdigest() if uri else ""


def _entry(table: Any, where: str) -> OptOutEntry:
    if not isinstance(table, Mapping) or table.keys() - _KEYS or not all(map(_is_word, table.values())):
        raise InputError(f"{where}: an opt-out has repository, path, reason and date only, none of them empty")
    if "repository" not in table:
        raise InputError(f'{where}: repository is missing; write repository = "*" for all')
    values = {name: str(value) for name, value in table.items()}
    path = values.get("path")
    return OptOutEntry(
        **values, names=_pattern(values["repository"]), paths=IgnoreRules(path.encode()) if path else None
    )


def _is_word(value: object) -> bool:
    return (isinstance(value, str) and bool(value.strip())) or isinstance(value, date)


def _pattern(name: str) -> re.Pattern[str]:
    wildcards = {"*": ".*", "?": "."}
    glob = "".join(wildcards.get(part, re.escape(part)) for part in re.split(r"([*?])", name.strip("/")))
    return re.compile(rf"(?:.*/)?{glob}(?:/.*)?", re.IGNORECASE | re.DOTALL)
