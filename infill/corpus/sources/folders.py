"""Folders of repositories on disk: `dir:/path`.

A folder is a repository if it has a marker (`.git`, a licence file, a build file) or code of its own, or if no folder
below it has a marker. Other folders only hold repositories, and their own files belong to none. A clone inside a
repository is a separate repository; a submodule is not read. Files that the top `.gitignore` names are left out. No
symbolic link is followed, except one in the given folder that leads to a repository.

Only licence and build files are opened here: names, kinds and sizes come from the file system.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from infill import file_kinds, gitignore
from infill.corpus import licences
from infill.corpus.sources.listing import (
    IGNORED,
    MAX_STATEMENT_BYTES,
    VENDORED,
    Beside,
    Listing,
    Repository,
    SourceFile,
    escaped,
    is_good_name,
)
from infill.errors import InputError
from infill.foreign import UnreadableError, read_bytes
from infill.text import decode

CLONE: Final = "own_repository"
"""The `trouble` of a folder inside a repository that is a repository itself."""
_MAX_DEPTH: Final = 12
"""Number of folder levels that are searched for repositories."""


def repositories(top: Path) -> Iterator[Listing]:
    """Yield a function for each repository below `top` that lists it and the clones inside it.

    Raises InputError if there is none.
    """
    for root in _layout(top).roots:
        yield partial(_listed, root)


def _listed(root: "_Root") -> Iterator[Repository]:
    files = _files(root.path)
    paths = [file.path for file in files if file.trouble in ("", "symlink")]
    coverage = licences.of_files(paths, partial(text_of, root.path))
    yield Repository(name=root.name, root=str(root.path), files=files, coverage=coverage)
    for clone in _clones(root, files):
        yield from _listed(clone)


def beside(top: Path) -> Iterator[Beside]:
    """Yield the files below `top` that belong to no repository. Raises InputError if there is no repository."""
    for file in _layout(top).beside:
        yield Beside(root=str(top), file=file)


def fingerprint(top: Path) -> Iterator[str]:
    """Yield the names, sizes and modification times of the files below `top`, from which a change is detected."""
    layout = _layout(top)
    listed = [(root.name, _files(root.path)) for root in _with_clones(layout.roots)]
    for name, files in [*listed, ("", layout.beside)]:
        yield f"{name}\0"
        for file in files:
            yield f"{file.path}\0{file.size}\0{file.modified}\0{file.trouble}\0"


def read(root: str, file: SourceFile) -> bytes:
    """Return the content of a file below `root`. Raises UnreadableError.

    Never blocks on a FIFO that replaced the file, never follows a link, and reads at most one byte more than the size
    that the file had when it was listed.
    """
    data = read_bytes(os.path.join(root, file.path), file.size + 1).data
    if len(data) > file.size:
        raise UnreadableError("the file grew while it was read")
    return data


@dataclass(frozen=True)
class _Root:
    name: str
    path: Path


@dataclass(frozen=True)
class _FolderLayout:
    """The repositories of a folder, and the files outside them."""

    roots: list[_Root] = field(default_factory=list)
    beside: list[SourceFile] = field(default_factory=list)
    """Files in folders that only hold repositories; paths are relative to the searched folder."""


def _layout(top: Path) -> _FolderLayout:
    """Return the repositories in the folder `top`, sorted by name. Raises InputError if there is none."""
    layout = _FolderLayout()
    if _is_marked(top):
        layout.roots.append(_Root(top.name or "repository", top))
        return layout
    _search(top, "", layout, {top})
    if not layout.roots:
        raise InputError(
            f"dir:{top} holds no repository: put each repository into a folder of its own, "
            "or add a licence file at the top if the folder itself is the repository"
        )
    layout.roots.sort(key=lambda root: root.name)
    return layout


def _search(folder: Path, prefix: str, layout: _FolderLayout, above: set[Path]) -> None:
    """Add the repositories below `folder`, which is not a repository itself, and its own files to `layout`."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = f"{prefix}{entry.name}"
        if entry.name in IGNORED:
            continue
        if not is_good_name(entry.name):
            layout.beside.append(SourceFile(path=escaped(path), trouble="bad_name"))
            continue
        if not is_folder(entry):
            file = describe(path, entry.path)
            layout.beside.append(
                file if file.trouble else replace(file, trouble="beside", detail="not in a repository")
            )
            continue
        child = Path(entry.path).resolve()
        if child in above:
            layout.beside.append(SourceFile(path=path, trouble="symlink", detail="it leads to a parent folder"))
        elif _holds_repositories(child, _MAX_DEPTH - len(above)):
            _search(child, f"{path}/", layout, above | {child})
        else:
            layout.roots.append(_Root(path, child))


def _holds_repositories(folder: Path, depth: int) -> bool:
    """Return whether `folder` is not a repository, but a folder below it has a repository's marker."""
    if depth <= 0 or _is_marked(folder):
        return False
    children = []
    for entry in entries(folder):
        if is_folder(entry):
            children.append(Path(entry.path))
        elif file_kinds.language_of(entry.name) in file_kinds.CODE:
            return False
    return any(_is_marked(child) or _holds_repositories(child, depth - 1) for child in children)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether `entry` is a folder, or a link that leads to one."""
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder without tools' and vendored folders; an empty list if it cannot be listed."""
    try:
        with os.scandir(folder) as listing:
            return [entry for entry in listing if entry.name not in IGNORED and entry.name.lower() not in VENDORED]
    except OSError:
        return []  # the folder then counts as a repository, and `walk` reports why it cannot be read


def _is_marked(folder: Path) -> bool:
    """Return whether a folder has a repository's marker at its top: .git, a licence file or a build file."""
    try:
        with os.scandir(folder) as listing:
            return any(map(_is_mark, listing))
    except OSError:
        return False


def _is_mark(entry: os.DirEntry[str]) -> bool:
    """Return whether `entry` marks a repository; a folder named like a licence does not, it may be one itself."""
    if entry.name in {".git", "LICENSES"}:
        return True
    return (licences.is_licence(entry.name) or licences.is_build_file(entry.name)) and not is_folder(entry)


def _with_clones(roots: Iterable[_Root]) -> Iterator[_Root]:
    """Yield the repositories, each followed by the clones inside it."""
    for root in roots:
        yield root
        yield from _with_clones(_clones(root, _files(root.path)))


def _clones(root: _Root, files: Iterable[SourceFile]) -> Iterator[_Root]:
    """Yield the clones among the files of a repository, as repositories."""
    for path in (file.path for file in files if file.trouble == CLONE):
        yield _Root(f"{root.name}/{path.rstrip('/')}", root.path / path)


def _files(root: Path) -> tuple[SourceFile, ...]:
    """Return the files below `root`, sorted by path, without those that the `.gitignore` at the top names."""
    rules = gitignore.load(root / ".gitignore")
    return tuple(file for file in walk(root) if rules is None or not rules.ignore(file.path))


def walk(root: Path) -> list[SourceFile]:
    """Return all files below `root`, sorted by path. No symbolic link is followed, no file is opened."""
    files: list[SourceFile] = []
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(root / prefix) as listing:
                entries = [entry for entry in listing if entry.name not in IGNORED or entry.name == ".git"]
        except OSError as error:
            files.append(SourceFile(path=prefix or ".", trouble="unreadable", detail=error.strerror or ""))
            continue
        if prefix and (git := [entry for entry in entries if entry.name == ".git"]):
            files.append(_other_repository(prefix, is_clone=git[0].is_dir(follow_symlinks=False)))
            continue
        for entry in entries:
            if entry.name != ".git":
                files += _look(entry, f"{prefix}{entry.name}", pending)
    return sorted(files)


def _other_repository(path: str, *, is_clone: bool) -> SourceFile:
    if is_clone:
        return SourceFile(path=path, trouble=CLONE, detail="a separate repository")
    return SourceFile(path=path, trouble="vendored", detail="a submodule or worktree, which is not read")


def _look(entry: os.DirEntry[str], path: str, pending: list[str]) -> list[SourceFile]:
    """Return the file at `entry`; append a folder to `pending`, or return it as one entry if it is vendored."""
    if not is_good_name(entry.name):
        return [SourceFile(path=escaped(path), trouble="bad_name")]
    if not entry.is_dir(follow_symlinks=False):
        return [describe(path, entry.path)]
    if entry.name.lower() in VENDORED:
        return [SourceFile(path=f"{path}/", trouble="vendored", detail="the folder was not read")]
    pending.append(f"{path}/")
    return []


def describe(path: str, place: str) -> SourceFile:
    """Return the file at `place` with its size, modification time or `trouble`, under `path` in its repository."""
    try:
        state = os.lstat(place)
    except OSError as error:
        return SourceFile(path=path, trouble="unreadable", detail=error.strerror or "")
    if stat.S_ISLNK(state.st_mode):
        return SourceFile(path=path, trouble="symlink")
    if not stat.S_ISREG(state.st_mode):
        return SourceFile(path=path, trouble="special_file")
    return SourceFile(path=path, size=state.st_size, modified=state.st_mtime_ns)


def text_of(root: Path, path: str) -> str | None:
    """Return the text of a file in any encoding; None if it cannot be read or leads out of the repository."""
    try:
        file = (root / path).resolve(strict=True)
        if not file.is_relative_to(root) or not file.is_file() or file.stat().st_size > MAX_STATEMENT_BYTES:
            return None
        return decode(read_bytes(file, MAX_STATEMENT_BYTES).data, "replace")
    except (OSError, RuntimeError, UnreadableError):  # RuntimeError: a loop of links
        return None
