"""Where code comes from: the repositories of a source and the files of a repository, in a fixed order.

`dir:/path` is a folder of repositories, at any depth, or one repository. A folder is a repository when it has a mark
(`.git`, a licence file, a build file) or code of its own, or when nothing below it has a mark; other folders only hold
repositories, and files in them belong to none. A clone inside a repository is one of its own, a submodule is not read.
What the top `.gitignore` names is left out, and no symbolic link is followed, except that a repository may stand in the
folder as a link. `packages:` is every Python distribution that is installed in the running environment.

Nothing is read here but licence and build files: names, kinds and sizes come from the file system.
"""

import csv
import hashlib
import importlib.metadata
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from infill import file_kinds, gitignore, storage
from infill.corpus import licences
from infill.errors import InputError
from infill.foreign import UnreadableError, parse, read_bytes
from infill.text import decode, split_lines

IGNORED: Final = frozenset(
    {".git", ".hg", ".svn", ".bzr", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".DS_Store"}
)
"""Files and folders that belong to tools, not to the repository; they are not even counted."""

CLONE: Final = "own_repository"
"""Trouble of a folder inside a repository that is a repository itself."""
_INFORMATION: Final = re.compile(r"[^/]+\.(?:dist|egg)-info/(?:licenses/|license_files/)?")
"""The folder of a distribution's metadata, with the one of its licence files."""

VENDORED: Final = frozenset(
    {"node_modules", "bower_components", "site-packages", "_vendor", "vendor", "vendored", "third_party", "third-party"}
    | {"thirdparty", "thirdparty_files", ".venv", "venv"}
)
"""Folders with other people's code, under licences that the repository's own does not tell."""

MAX_STATING_BYTES: Final = 2_000_000
"""A licence or build file that is larger is not read, so that what it says is not known."""
_MAX_DEPTH: Final = 12
"""Levels of folders in which repositories are looked for."""


@dataclass(frozen=True, kw_only=True, order=True, slots=True)
class SourceFile:
    path: str
    """Relative to the repository, with forward slashes."""
    size: int = 0
    """Bytes, as the file system says."""
    modified: int = 0
    """Time of the last change in nanoseconds."""
    trouble: str = ""
    """Why the file cannot be taken (`symlink`, `special_file`, `unreadable`, `vendored`, `bad_name`), else empty."""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Repository:
    name: str
    root: str
    """Local folder that the files' paths are relative to."""
    files: tuple[SourceFile, ...]
    """In the order of their paths."""
    coverage: licences.Coverage = field(default_factory=licences.Coverage)
    """Which licence covers which file."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A file in a folder that holds repositories, which belongs to none of them."""

    root: str
    file: SourceFile


def repositories(sources: Iterable[str]) -> Iterator[Repository]:
    """Yield the repositories of all sources, each with its files; a name that occurs twice gets a number ("name~2").

    Raises InputError for a source of unknown kind, a folder that is none, and a source without any repository.
    """
    taken: dict[str, int] = {}
    for source in sources:
        place = _folder_of(source)
        for repository in _distributions() if place is None else _folders(place):
            taken[repository.name] = count = taken.get(repository.name, 0) + 1
            yield repository if count == 1 else replace(repository, name=f"{repository.name}~{count}")


def beside(sources: Iterable[str]) -> Iterator[Beside]:
    """Yield the files beside the repositories of all sources. Raises InputError as `repositories` does."""
    for source in sources:
        if (place := _folder_of(source)) is not None:
            for file in _layout(place).beside:
                yield Beside(root=str(place), file=file)


def _folder_of(source: str) -> Path | None:
    """The folder of a `dir:` source, None for `packages:`."""
    kind, _, place = source.partition(":")
    if kind == "packages" and not place:
        return None
    if kind != "dir" or not place:
        raise InputError(
            f"{source!r} is not a source: write dir:/path/to/folder, or packages: for the installed packages"
        )
    folder = storage.local_path(place)
    if not folder.exists():
        raise InputError(f"{source} is not a folder: nothing is there; give the folder that holds the repositories")
    if not folder.is_dir():
        raise InputError(f"{source} is a file; give the folder that holds the repositories")
    return folder.resolve()


def fingerprint(sources: Iterable[str]) -> str:
    """Digest of the sources' state: names, sizes and times of change of the files, or the packages' own records."""
    digest = hashlib.sha256()
    for source in sources:
        place = _folder_of(source)
        if place is None:
            for name, package in _installed():
                digest.update(f"{name}\0{package.metadata['Version']}\0{package.read_text('RECORD')}\0".encode())
        else:
            layout = _layout(place)
            listed = [(root.name, _files(root.path)) for root in _with_clones(layout.roots)]
            for name, files in [*listed, ("", layout.beside)]:
                digest.update(f"{name}\0".encode())
                for file in files:
                    digest.update(f"{file.path}\0{file.size}\0{file.modified}\0{file.trouble}\0".encode())
    return digest.hexdigest()


# Folders


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
        if not _is_good_name(entry.name):
            layout.beside.append(SourceFile(path=_escaped(path), trouble="bad_name"))
            continue
        if not _is_folder(entry):
            file = _describe(path, entry.path)
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
    for entry in _entries(folder):
        if _is_folder(entry):
            children.append(Path(entry.path))
        elif file_kinds.language_of(entry.name) in file_kinds.CODE:
            return False
    return any(_is_marked(child) or _holds_repositories(child, depth - 1) for child in children)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether `entry` is a folder, or a link that leads to one."""
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what stands in a folder, without what belongs to tools or to others; nothing when it cannot be listed."""
    try:
        with os.scandir(folder) as listing:
            return [entry for entry in listing if entry.name not in IGNORED and entry.name.lower() not in VENDORED]
    except OSError:
        return []  # it becomes a repository, and walking it tells why it cannot be read


def _is_marked(folder: Path) -> bool:
    """Return whether a folder has what a repository has at its top: .git, a licence file, a build file."""
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return any(name == ".git" or licences.is_licence(name) or licences.is_build_file(name) for name in names)


def _with_clones(roots: Iterable[_Root]) -> Iterator[_Root]:
    """Yield the repositories, each followed by the clones inside it."""
    for root in roots:
        yield root
        clones = [file.path for file in _files(root.path) if file.trouble == CLONE]
        yield from _with_clones(_Root(f"{root.name}/{path.rstrip('/')}", root.path / path) for path in clones)


def _folders(top: Path) -> Iterator[Repository]:
    for root in _with_clones(_layout(top).roots):
        files = _files(root.path)
        paths = [file.path for file in files if file.trouble in ("", "symlink")]
        coverage = licences.of_files(paths, partial(_text, root.path))
        yield Repository(name=root.name, root=str(root.path), files=files, coverage=coverage)


def _files(root: Path) -> tuple[SourceFile, ...]:
    """The files below `root` in the order of their paths, without those that the `.gitignore` at the top names."""
    found = _walk(root)
    rules = gitignore.load(root / ".gitignore")
    return tuple(file for file in found if rules is None or not rules.ignore(file.path))


def _walk(root: Path) -> list[SourceFile]:
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
    if not _is_good_name(entry.name):
        return [SourceFile(path=_escaped(path), trouble="bad_name")]
    if not entry.is_dir(follow_symlinks=False):
        return [_describe(path, entry.path)]
    if entry.name.lower() in VENDORED:
        return [SourceFile(path=f"{path}/", trouble="vendored", detail="the folder was not read")]
    pending.append(f"{path}/")
    return []


def _is_good_name(name: str) -> bool:
    """Whether a name is valid UTF-8 without control characters: a path stands in the prompt, on a line of its own."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return re.search(r"[\x00-\x1f\x7f]", name) is None


def _escaped(path: str) -> str:
    """Return a path that is not valid UTF-8 as one that is."""
    return path.encode("utf-8", "backslashreplace").decode()


def _describe(path: str, place: str) -> SourceFile:
    try:
        state = os.lstat(place)
    except OSError as error:
        return SourceFile(path=path, trouble="unreadable", detail=error.strerror or "")
    if stat.S_ISLNK(state.st_mode):
        return SourceFile(path=path, trouble="symlink")
    if not stat.S_ISREG(state.st_mode):
        return SourceFile(path=path, trouble="special_file")
    return SourceFile(path=path, size=state.st_size, modified=state.st_mtime_ns)


def _text(root: Path, path: str) -> str | None:
    """Return a text file, whatever its encoding; None when it cannot be read or leads out of the repository."""
    try:
        file = (root / path).resolve(strict=True)
        if not file.is_relative_to(root) or not file.is_file() or file.stat().st_size > MAX_STATING_BYTES:
            return None
        return decode(read_bytes(file, MAX_STATING_BYTES).data, "replace")
    except (OSError, RuntimeError, UnreadableError):  # RuntimeError: a loop of links
        return None


# Installed packages


class _Package(importlib.metadata.Distribution):
    """An installed distribution whose metadata may hold anything."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read_text(self, filename: str) -> str | None:
        """Return a file of the metadata, whatever its encoding; None when it cannot be read."""
        try:
            return decode(read_bytes(self._folder / filename, follow_links=True).data, "replace")
        except UnreadableError:
            return None

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        return self._folder.parent / path

    @property
    def key(self) -> str:
        """The normalised name, that of the folder where the metadata names none; empty without metadata."""
        if all(self.read_text(name) is None for name in ("METADATA", "PKG-INFO")):
            return ""
        stated = self.metadata["Name"]
        name = stated if stated and _is_good_name(stated) else self._folder.name.partition("-")[0]
        return re.sub(r"[-_.]+", "-", name).lower() if _is_good_name(name) else ""


def _installed() -> list[tuple[str, _Package]]:
    """Normalised name and distribution, by name; of two with the same name the first on the path, as for imports."""
    found: dict[str, _Package] = {}
    for place in sys.path:
        for entry in _entries(Path(place)):
            if entry.name.lower().endswith((".dist-info", ".egg-info")) and _is_folder(entry):
                package = _Package(Path(entry.path))
                found.setdefault(package.key, package)
    found.pop("", None)
    return sorted(found.items())


def _distributions() -> Iterator[Repository]:
    for name, distribution in _installed():
        root = distribution.locate_file("").resolve()
        try:
            paths = sorted(set(_recorded(distribution)))
        except UnreadableError as error:
            trouble = SourceFile(path="RECORD", trouble="unreadable", detail=str(error))
            yield Repository(name=name, root=str(root), files=(trouble,))
            continue
        information = {path for path in paths if _INFORMATION.match(path)}
        files = tuple(_installed_file(root, path) for path in paths if path not in information)
        # A wheel keeps its licence files under the paths that they have in the sources (PEP 639).
        stating = {file.path: file.path for file in files if not file.trouble}
        stating |= {_INFORMATION.sub("", path): path for path in information if not path.endswith("/METADATA")}
        coverage = licences.of_files(
            stating, partial(_stating_text, root, stating), licences.of_metadata(distribution.metadata)
        )
        yield Repository(name=name, root=str(root), files=files, coverage=coverage)


def _stating_text(root: Path, stating: Mapping[str, str], path: str) -> str | None:
    return _text(root, stating[path])


def _recorded(distribution: _Package) -> list[str]:
    """Return the paths of the installed files inside the root, from RECORD; scripts and byte code are left out.

    Raises UnreadableError when it is no table.
    """
    rows = parse(list, csv.reader(split_lines(distribution.read_text("RECORD") or "", keepends=True)))
    paths = (row[0].replace("\\", "/") for row in rows if row)
    outside = {"..", "__pycache__"}
    return [path for path in paths if path and not path.startswith("/") and outside.isdisjoint(path.split("/"))]


def _installed_file(root: Path, path: str) -> SourceFile:
    if not _is_good_name(path):
        return SourceFile(path=_escaped(path), trouble="bad_name")
    if VENDORED.intersection(path.lower().split("/")[:-1]):
        return SourceFile(path=path, trouble="vendored")
    return _describe(path, f"{root}/{path}")
