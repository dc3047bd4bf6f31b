"""Git repositories at a revision: `git:/path@revision`. Their objects are read directly; nothing is checked out.

The path is a repository, bare or not, or a folder of repositories at any depth. All committed files are read, whatever
`.gitignore` says; submodules are not followed. No hook, filter or command of the repository's configuration runs.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infill.config import CorpusConfig
from infill.corpus.sources import folders, listing
from infill.corpus.sources.listing import (
    IGNORED,
    MAX_STATEMENT_BYTES,
    VENDORED,
    Listing,
    Member,
    Repository,
    SourceFile,
)
from infill.errors import InputError
from infill.foreign import UnreadableError, parse
from infill.text import decode

if TYPE_CHECKING:
    import pygit2

PREFIX: Final = "git:"
"""Prefix of the root of a Git repository; the repository's path follows."""
_MAX_DEPTH: Final = 12
"""Number of folder levels that are searched for repositories."""
_FOLDER, _LINK, _SUBMODULE = 0o040000, 0o120000, 0o160000
_MAX_TARGET: Final = 4_096
_SHOWN: Final = 8
"""Number of branches and tags that an error message lists."""
_MISSING: Final = "the object is missing or damaged; a partial clone lacks it"


def repositories(top: Path, revision: str, config: CorpusConfig) -> Iterator[Listing]:
    """Yield a function for each repository at or below `top`, sorted by name, that lists it as of `revision`.

    The revision is HEAD if it is empty. Raises InputError if there is no repository, or none has the revision.
    """
    for name, path, commit in _commits(top, revision):
        yield partial(_listed, name, path, commit, config.max_repository_files)


def _listed(name: str, path: Path, commit: "str | UnreadableError", max_files: int) -> Iterator[Repository]:
    try:
        if isinstance(commit, UnreadableError):
            raise commit
        yield _repository(name, path, commit, max_files)
    except UnreadableError as error:
        yield listing.unreadable(name, f"{PREFIX}{path}", "unreadable", str(error))


def fingerprint(top: Path, revision: str) -> Iterator[str]:
    """Yield the names of the repositories and the commits at which they are read."""
    for name, _, commit in _commits(top, revision):
        yield f"{name}\0{commit}\0"


def _commits(top: Path, revision: str) -> Iterator[tuple[str, Path, "str | UnreadableError"]]:
    """Yield name, path and commit of each repository; an error in place of the commit if it has none."""
    commits = [(name, path, _commit(path, revision)) for name, path in _find(top)]
    if not commits:
        raise InputError(f"git:{top} holds no Git repository; clone one there, or name a folder of files as dir:{top}")
    errors = [commit for _, _, commit in commits if isinstance(commit, UnreadableError)]
    if len(errors) == len(commits):
        raise InputError(f"git:{top}: {errors[0]}")
    yield from commits


def _find(top: Path) -> list[tuple[str, Path]]:
    """Return name and path of the repositories at or below `top`, by name; repositories are not searched for others."""
    if _is_repository(top):
        return [(_name(top.parent.name if top.name == ".git" else top.name), top)]
    repositories: list[tuple[str, Path]] = []
    pending = [("", top)]
    while pending:
        prefix, folder = pending.pop()
        for entry in folders.entries(folder):
            name, path = f"{prefix}{entry.name}", Path(entry.path)
            if not entry.is_dir(follow_symlinks=False) or not listing.is_good_name(entry.name):
                continue
            if _is_repository(path):
                repositories.append((_name(name), path))
            elif name.count("/") < _MAX_DEPTH:
                pending.append((f"{name}/", path))
    return sorted(repositories)


def _is_repository(path: Path) -> bool:
    """Return whether a folder looks like a repository with a work tree (`.git` is a folder or a file) or a bare one."""
    return os.path.lexists(path / ".git") or ((path / "HEAD").is_file() and (path / "objects").is_dir())


def _name(path: str) -> str:
    return path.removesuffix(".git") or "repository"


def open_repository(path: Path) -> "pygit2.Repository":
    """Return the repository at `path`. Raises UnreadableError."""
    import pygit2

    # Mirrors on a shared volume belong to other users; skipping Git's check of the owner is safe, as nothing is run.
    pygit2.option(pygit2.enums.Option.SET_OWNER_VALIDATION, False)
    pygit2.option(pygit2.enums.Option.SET_EXTENSIONS, ["partialclone"], 1)
    return parse(pygit2.Repository, str(path), pygit2.enums.RepositoryOpenFlag.NO_SEARCH)


def _commit(path: Path, revision: str) -> str | UnreadableError:
    """Return the ID of the commit that `revision` names, or the error if there is none."""
    import pygit2

    try:
        repository = open_repository(path)
        if not revision and repository.is_empty:
            raise UnreadableError("the repository has no commit")
        try:
            target = repository.revparse_single(revision or "HEAD")
        except (KeyError, ValueError) as error:
            raise UnreadableError(
                f"the repository has no revision {revision or 'HEAD'!r}; {_choices(repository)}"
            ) from error
        return str(parse(target.peel, pygit2.Commit).id)
    except UnreadableError as error:
        return error


def _choices(repository: "pygit2.Repository") -> str:
    """Return the names of branches and tags, for the error message about an unknown revision."""
    names = [name.removeprefix("refs/").partition("/")[2] for name in parse(list, repository.references)]
    some = ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)
    return f"it has {some}" if names else "it has no branches or tags"


def _repository(name: str, path: Path, commit_id: str, max_files: int) -> Repository:
    """Return the repository with the files of a commit. Raises UnreadableError."""
    import pygit2

    repository = open_repository(path)
    commit = parse(repository.__getitem__, commit_id).peel(pygit2.Commit)
    members: list[Member] = []
    for member in _walk(repository, commit.tree_id):
        members.append(member)
        if len(members) > max_files:
            raise UnreadableError(f"the repository has more than {max_files} files (corpus.max_repository_files)")
    date = listing.date_of(commit.commit_time)
    files = tuple(replace(file, commit=commit_id, date=date) for file in listing.files_of(members))
    paths = listing.statement_paths(files)
    statements = listing.statement_files(paths, partial(_look, repository, commit.tree_id))
    coverage = listing.coverage_of(paths, statements, _texts(repository, statements.values()))
    return Repository(name=name, root=f"{PREFIX}{path}", files=files, coverage=coverage)


def files_of_tree(repository: "pygit2.Repository", tree: "pygit2.Oid") -> tuple[SourceFile, ...]:
    """Return the files of a tree, sorted by path. Raises UnreadableError for a tree that is missing or damaged."""
    return listing.files_of(_walk(repository, tree))


def _walk(repository: "pygit2.Repository", tree: "pygit2.Oid") -> Iterator[Member]:
    """Yield the members of a tree, at any depth; of the folders only those that are not read."""
    pending = [("", tree)]
    while pending:
        prefix, tree_id = pending.pop()
        for name, mode, object_id in _entries(repository, tree_id):
            path = f"{prefix}{name}"
            if "/" in name:
                yield Member(path=path, kind="file", trouble="bad_name", detail="the name has a slash")
            elif (
                mode == _FOLDER and name not in IGNORED and name.lower() not in VENDORED and listing.is_good_path(path)
            ):
                pending.append((f"{path}/", object_id))
            else:
                yield _member(repository, path, mode, object_id)


def _entries(repository: "pygit2.Repository", tree_id: "pygit2.Oid") -> Iterator[tuple[str, int, "pygit2.Oid"]]:
    for entry in _tree(repository, tree_id):
        yield os.fsdecode(entry.raw_name or b""), entry.filemode, entry.id


def _tree(repository: "pygit2.Repository", tree_id: "pygit2.Oid") -> "pygit2.Tree":
    import pygit2

    tree: Any = parse(repository.__getitem__, tree_id)
    if not isinstance(tree, pygit2.Tree):
        raise UnreadableError("the object of a folder is not a tree")
    return tree


def _member(repository: "pygit2.Repository", path: str, mode: int, object_id: "pygit2.Oid") -> Member:
    place = str(object_id)
    if mode == _FOLDER:
        return Member(path=path, kind="folder")
    if mode == _SUBMODULE:
        return Member(path=path, kind="submodule")
    if mode == _LINK:
        return Member(path=path, kind="link", place=place)
    try:
        _, size = parse(repository.odb.read_header, object_id)
    except UnreadableError:
        return Member(path=path, kind="file", trouble="unreadable", detail=_MISSING)
    return Member(path=path, kind="file", size=size, place=place)


def _look(repository: "pygit2.Repository", tree_id: "pygit2.Oid", path: str) -> Member | None:
    """Return the member at a path of a tree, a link with its target; None if there is none or it cannot be read."""
    try:
        entry = parse(_tree(repository, tree_id).__getitem__, path)
    except UnreadableError:
        return None
    member = _member(repository, path, entry.filemode, entry.id)
    if member.kind == "link":
        content = _content(repository, member.place, _MAX_TARGET)
        return replace(member, target=os.fsdecode(content)) if isinstance(content, bytes) else None
    return None if member.trouble else member


def _content(repository: "pygit2.Repository", place: str, limit: int) -> bytes | UnreadableError:
    """Return the content of an object of at most `limit` bytes, or the error if it cannot be read."""
    import pygit2

    try:
        object_id = pygit2.Oid(hex=place)
        if parse(repository.odb.read_header, object_id)[1] > limit:
            return UnreadableError(f"it has more than {limit} bytes")
        return parse(repository.odb.read, object_id)[1]
    except UnreadableError:
        return UnreadableError(_MISSING)


def _texts(repository: "pygit2.Repository", members: Iterable[Member]) -> dict[str, str]:
    contents = {member.place: _content(repository, member.place, MAX_STATEMENT_BYTES) for member in members}
    return {place: decode(data, "replace") for place, data in contents.items() if isinstance(data, bytes)}


def reader(root: str) -> Callable[[SourceFile], bytes]:
    """Return a function that returns the content of a file of the repository, or raises UnreadableError."""
    repository: list[pygit2.Repository] = []

    def read(file: SourceFile) -> bytes:
        if not repository:
            repository.append(open_repository(Path(root.removeprefix(PREFIX))))
        content = _content(repository[0], file.place, file.size)
        if isinstance(content, UnreadableError):
            raise content
        return content

    return read
