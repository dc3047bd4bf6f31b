"""Folders of repositories on disk: `dir:/path`.

A folder is a repository when it has a mark (`.git`, a licence file, a build file) or code of its own, or when nothing
below it has a mark; other folders only hold repositories, and files in them belong to none. A clone inside a repository
is one of its own, a submodule is not read. What the top `.gitignore` names is left out, and no symbolic link is
followed, except that a repository may stand in the folder as a link.

Nothing is read here but licence and build files: names, kinds and sizes come from the file system.
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
    MAX_STATING_BYTES,
    VENDORED,
    Beside,
    Repository,
    SourceFile,
    escaped,
    is_good_name,
)
from infill.errors import InputError
from infill.foreign import UnreadableError, read_bytes
from infill.text import decode

CLONE: Final = "own_repository"
"""Trouble of a folder inside a repository that is a repository itself."""
_MAX_DEPTH: Final = 12
"""Levels of folders in which repositories are looked for."""


def repositories(top: Path) -> Iterator[Repository]:
    """Yield the repositories below `top`, each with its files. Raises InputError when there is none."""
    for root in _with_clones(_layout(top).roots):
        files = _files(root.path)
        paths = [file.path for file in files if file.trouble in ("", "symlink")]
        coverage = licences.of_files(paths, partial(text_of, root.path))
        yield Repository(name=root.name, root=str(root.path), files=files, coverage=coverage)


def beside(top: Path) -> Iterator[Beside]:
    """Yield the files beside the repositories below `top`. Raises InputError when there is no repository."""
    for file in _layout(top).beside:
        yield Beside(root=str(top), file=file)


def fingerprint(top: Path) -> Iterator[str]:
    """Yield what a change below `top` changes: names, sizes and times of change of the files."""
    layout = _layout(top)
    listed = [(root.name, _files(root.path)) for root in _with_clones(layout.roots)]
    for name, files in [*listed, ("", layout.beside)]:
        yield f"{name}\0"
        for file in files:
            yield f"{file.path}\0{file.size}\0{file.modified}\0{file.trouble}\0"


def read(root: str, file: SourceFile) -> bytes:
    """Return the content of a file below `root`. Raises UnreadableError.

    Never waits (a FIFO that has taken the file's place), never follows a link, never reads more than the size that the
    file had when it was listed, and one byte.
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
class _Layout:
    """Where the repositories of a folder are."""

    roots: list[_Root] = field(default_factory=list)
    beside: list[SourceFile] = field(default_factory=list)
    """Files in folders that only hold repositories; their paths are relative to the folder."""


def _layout(top: Path) -> _Layout:
    """Return the repositories in the folder `top`, by name. Raises InputError when there is none."""
    layout = _Layout()
    if _is_marked(top):
        layout.roots.append(_Root(top.name or "repository", top))
        return layout
    _search(top, "", layout, {top})
    if not layout.roots:
        raise InputError(
            f"dir:{top} holds no repository: put each repository into a folder of its own, "
            "or a licence file at the top when the folder is the repository"
        )
    layout.roots.sort(key=lambda root: root.name)
    return layout


def _search(folder: Path, prefix: str, layout: _Layout, above: set[Path]) -> None:
    """Add the repositories below `folder`, which is none itself, to `layout`, and the files that it holds."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = f"{prefix}{entry.name}"
        if entry.name in IGNORED:
            continue
        if not is_good_name(entry.name):
            layout.beside.append(SourceFile(path=escaped(path), trouble="bad_name"))
            continue
        if not is_folder(entry):
            file = describe(path, entry.path)
            layout.beside.append(file if file.trouble else replace(file, trouble="beside", detail="in no repository"))
            continue
        child = Path(entry.path).resolve()
        if child in above:
            layout.beside.append(SourceFile(path=path, trouble="symlink", detail="it leads to a folder above"))
        elif _holds_repositories(child, _MAX_DEPTH - len(above)):
            _search(child, f"{path}/", layout, above | {child})
        else:
            layout.roots.append(_Root(path, child))


def _holds_repositories(folder: Path, depth: int) -> bool:
    """Return whether `folder` is no repository, but a folder below it has the mark of one."""
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
    """Return what stands in a folder, without what belongs to tools or to others; nothing when it cannot be listed."""
    try:
        with os.scandir(folder) as listing:
            return [entry for entry in listing if entry.name not in IGNORED and entry.name.lower() not in VENDORED]
    except OSError:
        return []  # it becomes a repository, and walking it tells why it cannot be read


def _is_marked(folder: Path) -> bool:
    """Return whether a folder has what a repository has at its top: .git, a licence file, a build file."""
    try:
        with os.scandir(folder) as listing:
            return any(map(_is_mark, listing))
    except OSError:
        return False


def _is_mark(entry: os.DirEntry[str]) -> bool:
    """Return whether `entry` marks a repository; a folder that is only named like a licence may be one itself."""
    if entry.name in {".git", "LICENSES"}:
        return True
    return (licences.is_licence(entry.name) or licences.is_build_file(entry.name)) and not is_folder(entry)


def _with_clones(roots: Iterable[_Root]) -> Iterator[_Root]:
    """Yield the repositories, each followed by the clones inside it."""
    for root in roots:
        yield root
        clones = [file.path for file in _files(root.path) if file.trouble == CLONE]
        yield from _with_clones(_Root(f"{root.name}/{path.rstrip('/')}", root.path / path) for path in clones)


def _files(root: Path) -> tuple[SourceFile, ...]:
    """The files below `root` in the order of their paths, without those that the `.gitignore` at the top names."""
    found = walk(root)
    rules = gitignore.load(root / ".gitignore")
    return tuple(file for file in found if rules is None or not rules.ignore(file.path))


def walk(root: Path) -> list[SourceFile]:
    """All files below `root` in the order of their paths. No symbolic link is followed, no file is opened."""
    found: list[SourceFile] = []
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(root / prefix) as listing:
                entries = [entry for entry in listing if entry.name not in IGNORED or entry.name == ".git"]
        except OSError as error:
            found.append(SourceFile(path=prefix or ".", trouble="unreadable", detail=error.strerror or ""))
            continue
        if prefix and (git := [entry for entry in entries if entry.name == ".git"]):
            found.append(_other_repository(prefix, is_clone=git[0].is_dir(follow_symlinks=False)))
            continue
        for entry in entries:
            if entry.name != ".git":
                found += _look(entry, f"{prefix}{entry.name}", pending)
    return sorted(found)


def _other_repository(path: str, *, is_clone: bool) -> SourceFile:
    if is_clone:
        return SourceFile(path=path, trouble=CLONE, detail="a repository of its own")
    return SourceFile(path=path, trouble="vendored", detail="a submodule or worktree, which is not read")


def _look(entry: os.DirEntry[str], path: str, pending: list[str]) -> list[SourceFile]:
    """The file behind `entry`; a folder is appended to `pending`, or told as one line when it is not ours."""
    if not is_good_name(entry.name):
        return [SourceFile(path=escaped(path), trouble="bad_name")]
    if not entry.is_dir(follow_symlinks=False):
        return [describe(path, entry.path)]
    if entry.name.lower() in VENDORED:
        return [SourceFile(path=f"{path}/", trouble="vendored", detail="the folder was not read")]
    pending.append(f"{path}/")
    return []


def describe(path: str, place: str) -> SourceFile:
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
    """Return a text file, whatever its encoding; None when it cannot be read or leads out of the repository."""
    try:
        file = (root / path).resolve(strict=True)
        if not file.is_relative_to(root) or not file.is_file() or file.stat().st_size > MAX_STATING_BYTES:
            return None
        return decode(read_bytes(file, MAX_STATING_BYTES).data, "replace")
    except (OSError, RuntimeError, UnreadableError):  # RuntimeError: a loop of links
        return None
