"""What its owners asked to be left out: repositories, and paths in them, listed in a TOML file.

    [[opt_out]]
    repository = "acme/*"
    path = "examples/**"
    reason = "asked for by Acme, ticket 4711"
    date = 2026-11-02

`repository` is a name or a pattern (`*`, `?`), without regard to case. It matches a repository with that name, with
folders before it (`github.com/acme/widgets`), and every repository below it. `path` is a pattern as in a `.gitignore`;
without one the whole repository is left out. `reason` is for people: it stands beside every file that is removed.
`date` is the day of the request. `infill corpus remove` adds an entry.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from infill import storage
from infill.errors import InputError
from infill.foreign import UnreadableError, parse
from infill.gitignore import Rules
from infill.text import DecodeError, decode

VARIABLE: Final = "INFILL_OPT_OUT"
"""Environment variable: the list that is used where a command names none; empty for no list."""
SETTING: Final = "corpus.opt_out"
_KEYS: Final = frozenset({"repository", "path", "reason", "date"})
_NUMBER: Final = re.compile(r"~\d+$")
"""What tells repositories of the same name apart (`sources.repositories`)."""
log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One request."""

    repository: str
    path: str = ""
    """Empty: the whole repository."""
    reason: str = ""
    date: str = ""
    """As 2026-11-02."""
    names: re.Pattern[str]
    """`repository`, compiled."""
    paths: Rules | None
    """`path`, compiled."""

    @property
    def told(self) -> str:
        """The entry, for people."""
        path = f": {self.path}" if self.path else ""
        return self.repository + path + (f" ({self.reason})" if self.reason else "")

    def covers_repository(self, repository: str) -> bool:
        """Return whether the entry concerns files of `repository`."""
        return self.names.fullmatch(_NUMBER.sub("", repository)) is not None

    def covers(self, repository: str, path: str) -> bool:
        """Return whether a file is left out for this entry; a folder's path ends in a slash."""
        if not self.covers_repository(repository):
            return False
        return self.paths is None or self.paths.ignore(path.rstrip("/"), folder=path.endswith("/"))


@dataclass(frozen=True)
class OptOuts:
    """The list; empty where none is set."""

    entries: Sequence[Entry] = ()

    def of(self, repository: str, path: str) -> str | None:
        """Return the entry for which a file is left out; None when it is not."""
        return next((entry.told for entry in self.entries if entry.covers(repository, path)), None)


def usual() -> str:
    """Return the list of a command that names none: that of INFILL_OPT_OUT, else one of the user's own."""
    if VARIABLE in os.environ:
        return storage.absolute(os.environ[VARIABLE]) if os.environ[VARIABLE] else ""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return str(home / "infill" / "opt-out.toml")


def with_usual(settings: Mapping[str, Any], *, on_cluster: bool = False) -> dict[str, Any]:
    """Return a command's settings, with the usual list where they name none.

    A list in INFILL_OPT_OUT must exist when it is read; the user's own may be missing. Raises InputError for a list on
    this machine where the corpus is built on a cluster, so that nobody's request is passed over.
    """
    if SETTING in settings or not (uri := usual()) or not (VARIABLE in os.environ or storage.exists(uri)):
        return dict(settings)
    if on_cluster and storage.is_local(uri):
        raise InputError(
            f"the opt-outs in {uri} are on this machine, where the cluster cannot read them; copy the list to the store"
            f" and give --set {SETTING}=URI, or set {VARIABLE}"
        )
    log.info("what %s lists is left out", uri)
    return {**settings, SETTING: uri}


def load(uri: str) -> OptOuts:
    """Return the list in the file `uri`; an empty one for an empty `uri`.

    Raises InputError for a file that is missing or is no such list: an opt-out that cannot be read must not be passed
    over.
    """
    if not uri:
        return OptOuts()
    try:
        text = decode(storage.read_bytes(uri))
    except DecodeError as error:
        raise InputError(f"{SETTING} {uri} is not a text file ({error}); mend it") from error
    return OptOuts(_entries(text, uri))


def _entries(text: str, uri: str) -> tuple[Entry, ...]:
    try:
        value = parse(tomllib.loads, text)
    except UnreadableError as error:
        raise InputError(f"{SETTING} {uri} is not a TOML file ({error}); mend it") from error
    tables = value.get("opt_out", [])
    if value.keys() - {"opt_out"} or not isinstance(tables, list):
        raise InputError(f"{SETTING} {uri} must hold [[opt_out]] tables and nothing else; see infill.corpus.opt_out")
    return tuple(_entry(table, f"{uri}, entry {number}") for number, table in enumerate(tables, 1))


def entry(repository: str, path: str = "", reason: str = "") -> Entry:
    """Return a request of today. Raises InputError for names that no repository and no file can have."""
    if "://" in repository or repository.startswith("git@"):
        name = re.sub(r"(\.git)?/*$", "", repository.rpartition("://")[2].rpartition(":")[2]).partition("/")[2]
        raise InputError(
            f"repository {repository} is an address; give the name that it has in the corpus, such as {name or 'NAME'}"
        )
    if path.startswith(("!", "#")):
        raise InputError(f"path {path} names no file, as in a .gitignore; write \\{path} for a file of that name")
    today = datetime.now(UTC).date()
    return _entry(
        {"repository": repository, "date": today} | _present({"path": path, "reason": reason}), "the new entry"
    )


def _present(values: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def add(uri: str, new: Entry) -> bool:
    """Add an entry to the list in the file `uri`, which may be missing; return False if it is there already.

    What stands in the file, comments included, stays. Raises InputError as `load` does.
    """
    with _locked(uri):
        known = load(uri).entries if storage.exists(uri) else ()
        if any((entry.repository, entry.path) == (new.repository, new.path) for entry in known):
            return False
        before = decode(storage.read_bytes(uri)) if known or storage.exists(uri) else ""
        text = (before.rstrip("\n") + "\n\n" if before.strip() else "") + _written(new)
        try:
            _entries(text, uri)
        except InputError as error:  # it ends with something else than [[opt_out]] tables
            raise InputError(f"cannot add to {uri}, add it by hand: {_written(new)!r} ({error})") from error
        storage.write_bytes(uri, text.encode())
    return True


@contextlib.contextmanager
def _locked(uri: str) -> Iterator[None]:
    """Let no other process of this machine change the list meanwhile: its folder is locked, as the file is replaced."""
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


def _written(new: Entry) -> str:
    """Return an entry as TOML, whose strings are those of JSON but for the character 127."""
    texts = _present({"repository": new.repository, "path": new.path, "reason": new.reason})
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in texts.items()]
    return "\n".join(["[[opt_out]]", *lines, f"date = {new.date}", ""]).replace("\x7f", "\\u007f")


def digest(uri: str) -> str:
    """Return the SHA-256 of the list, empty where none is set."""
    return hashlib.sha256(storage.read_bytes(uri)).hexdigest() if uri else ""


def _entry(table: Any, where: str) -> Entry:
    if not isinstance(table, Mapping) or table.keys() - _KEYS or not all(map(_is_word, table.values())):
        raise InputError(f"{where}: an opt-out has repository, path, reason and date, each a text that is not empty")
    if "repository" not in table:
        raise InputError(f'{where}: it names no repository; write repository = "*" for all')
    values = {name: str(value) for name, value in table.items()}
    path = values.get("path")
    return Entry(**values, names=_pattern(values["repository"]), paths=Rules(path.encode()) if path else None)


def _is_word(value: object) -> bool:
    return (isinstance(value, str) and bool(value.strip())) or isinstance(value, date)


def _pattern(name: str) -> re.Pattern[str]:
    wildcards = {"*": ".*", "?": "."}
    glob = "".join(wildcards.get(part, re.escape(part)) for part in re.split(r"([*?])", name.strip("/")))
    return re.compile(rf"(?:.*/)?{glob}(?:/.*)?", re.IGNORECASE | re.DOTALL)
