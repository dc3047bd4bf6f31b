"""Sources of code: the repositories of each source and the files of each repository, in a fixed order.

| source | meaning |
| --- | --- |
| `dir:/path` | a folder of repositories, at any depth, or one repository, as it is on disk |
| `git:/path@revision` | a Git repository, bare or not, or a folder of them, read at a revision without a checkout |
| `archive:/path` | a source archive or a folder of them: sdists, wheels, npm's tarballs, zip, tar, Debian's `.dsc` |
| `parquet:URI` | a table of files in Parquet, on disk or in an object store |
| `packages:` | every Python distribution that is installed in the running environment |

A repository that cannot be read does not stop the run: it is listed as a single file with the reason. InputError is
raised only if a source that the user named contains nothing that can be read.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from infill import storage
from infill.config import CorpusConfig, Source, parse_source
from infill.corpus.sources import archives, folders, git, packages, tables
from infill.corpus.sources.listing import Beside, Listing, Repository, SourceFile
from infill.corpus.sources.readers import Read, reader
from infill.errors import InputError

__all__ = [
    "Beside",
    "Read",
    "Repository",
    "SourceFile",
    "beside",
    "commits",
    "fingerprint",
    "labels",
    "listed",
    "reader",
    "repositories",
]

_EXPECTED: Final = {
    "archive": "a source archive, or a folder of them",
    "dir": "the folder that holds the repositories",
    "git": "a clone, or a folder of them",
}
"""Kind of source -> what the user must name."""
DEFAULTS: Final = CorpusConfig()
MAX_LISTS: Final = 1_024
"""Repositories are listed in at most this many pieces of work."""
Run = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Applies a function to each item and yields the results in order, as `map` does."""


def repositories(sources: Iterable[str], config: CorpusConfig = DEFAULTS, run: Run = map) -> Iterator[Repository]:
    """Yield the repositories of all sources, each with its files; a name that occurs again gets a number ("name~2").

    `run` applies a function to lists of repositories, and may do it in parallel. Raises InputError for a source of
    unknown kind, one that does not exist, and one without any repository.
    """
    named = [(label, each) for label, text in labels(sources).items() for each in _of(parse_source(text), config)]
    size = -(-len(named) // MAX_LISTS) or 1
    lists = [named[start : start + size] for start in range(0, len(named), size)]
    taken: dict[str, int] = {}
    for repository in itertools.chain.from_iterable(run(listed, lists)):
        taken[repository.name] = count = taken.get(repository.name, 0) + 1
        yield repository if count == 1 else replace(repository, name=f"{repository.name}~{count}")


def listed(named: Sequence[tuple[str, Listing]]) -> list[Repository]:
    """Return the repositories of a list of (source, function that lists some of its repositories)."""
    return [replace(repository, source=source) for source, each in named for repository in each()]


def labels(sources: Iterable[str]) -> dict[str, str]:
    """Return the sources by what a corpus calls them: without the folders above, which are private and may move.

    A second source of the same name gets a number ("dir:code~2").
    """
    named: dict[str, str] = {}
    taken: dict[str, int] = {}
    for text in sources:
        kind, _, place = text.partition(":")
        label = f"{kind}:{place.rstrip('/').rpartition('/')[2]}"
        taken[label] = count = taken.get(label, 0) + 1
        named[label if count == 1 else f"{label}~{count}"] = text
    return named


def _of(source: Source, config: CorpusConfig) -> Iterable[Listing]:
    """Return functions that list the repositories of a source: one for each, or one for all."""
    match source.kind:
        case "dir":
            return folders.repositories(_folder(source))
        case "git":
            return git.repositories(_folder(source), source.revision, config)
        case "archive":
            return archives.repositories(_place(source), config)
        case "parquet":
            return [partial(tables.repositories, _uri(source), config)]
        case _:
            return [packages.repositories]


def commits(repositories: Iterable[Repository]) -> dict[str, dict[str, str]]:
    """Return the commit and its date for each repository that was read at a commit, by name."""
    files_with_commit = {
        repository.name: next((file for file in repository.files if file.commit), None) for repository in repositories
    }
    return {name: {"commit": file.commit, "date": file.date} for name, file in files_with_commit.items() if file}


def beside(sources: Iterable[str]) -> Iterator[Beside]:
    """Yield the files of all sources that belong to no repository. Raises InputError as `repositories` does."""
    for label, text in labels(sources).items():
        source = parse_source(text)
        entries: Iterable[Beside] = ()
        if source.kind == "dir":
            entries = folders.beside(_folder(source))
        elif source.kind == "archive":
            entries = archives.beside(_place(source))
        yield from (replace(entry, source=label) for entry in entries)


def fingerprint(sources: Iterable[str]) -> str:
    """Return a digest of the sources' state.

    It covers the names, sizes and modification times of files, the commits of Git repositories, and the records of
    installed packages.
    """
    digest = hashlib.sha256()
    for source in map(parse_source, sources):
        for part in _state(source):
            digest.update(part.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _state(source: Source) -> Iterator[str]:
    match source.kind:
        case "dir":
            return folders.fingerprint(_folder(source))
        case "git":
            return git.fingerprint(_folder(source), source.revision)
        case "archive":
            return archives.fingerprint(_place(source))
        case "parquet":
            return tables.fingerprint(_uri(source))
        case _:
            return packages.fingerprint()


def _folder(source: Source) -> Path:
    """Return the folder that a source names. Raises InputError if it does not exist or is a file."""
    folder = _place(source)
    if not folder.is_dir():
        raise InputError(f"{source} is a file; name the folder that holds the repositories")
    return folder


def _place(source: Source) -> Path:
    """Return the file or folder that a source names. Raises InputError if it does not exist."""
    if not storage.is_local(source.place):
        raise InputError(f"{source} is not on this machine: clone or copy it to a local folder and name that folder")
    place = storage.local_path(source.place)
    if not place.exists():
        raise InputError(f"{source} does not exist; name {_EXPECTED[source.kind]}")
    return place.resolve()


def _uri(source: Source) -> str:
    """Return the absolute URI that a source names. Raises InputError if it does not exist."""
    uri = storage.absolute(source.place)
    if not storage.exists(uri):
        raise InputError(f"{source} does not exist; name a Parquet file, or a folder of them")
    return uri
