"""Where code comes from: the repositories of a source and the files of a repository, in a fixed order.

`dir:/path` is a folder of repositories. If it has a licence file, a build file or `.git` at its top, it is one
repository itself; otherwise each sub-folder is one, or each of its sub-folders (`owner/name`) where there is nothing
else in it. Files beside the repositories belong to none and are not looked at. What the top `.gitignore` names is left
out, and no symbolic link is followed, except that a repository may stand in the folder as a link.
`packages:` is every Python distribution that is installed in the running environment.

Nothing is read here but licence and build files: names, kinds and sizes come from the file system.
"""

import csv
import hashlib
import importlib.metadata
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import starmap
from pathlib import Path, PurePosixPath
from typing import Final

from infill import gitignore, storage
from infill.corpus import licences
from infill.errors import InputError
from infill.foreign import UnreadableError, read_bytes
from infill.text import decode

IGNORED: Final = frozenset(
    {".git", ".hg", ".svn", ".bzr", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".DS_Store"}
)
"""Files and folders that belong to tools, not to the repository; they are not even counted."""

VENDORED: Final = frozenset(
    {"node_modules", "bower_components", "site-packages", "_vendor", "vendor", "vendored", "third_party", "third-party"}
    | {"thirdparty", "thirdparty_files", ".venv", "venv"}
)
"""Folders with other people's code, under licences that the repository's own does not tell."""

MAX_LICENCE_BYTES: Final = 200_000


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
    licence: str
    """SPDX expression, `NOASSERTION` when nobody states one."""
    files: tuple[SourceFile, ...]
    """In the order of their paths."""
    nested: Mapping[str, str] = field(default_factory=dict)
    """Folder -> licence, where a folder below the top has a licence file of its own."""

    def licence_of(self, path: str) -> str:
        """The licence of the nearest folder above `path` that has its own, else the repository's."""
        folder = path.rpartition("/")[0] if self.nested else ""
        while folder:
            if (licence := self.nested.get(folder)) is not None:
                return licence
            folder = folder.rpartition("/")[0]
        return self.licence


def repositories(sources: Iterable[str]) -> Iterator[Repository]:
    """The repositories of all sources, each with its files; a name that occurs twice gets a number ("name~2").

    Raises InputError for a source of unknown kind, a folder that is none, and a source without any repository.
    """
    taken: dict[str, int] = {}
    for source in sources:
        place = _folder_of(source)
        for repository in _distributions() if place is None else starmap(_repository, _roots(place)):
            taken[repository.name] = count = taken.get(repository.name, 0) + 1
            yield repository if count == 1 else replace(repository, name=f"{repository.name}~{count}")


def _folder_of(source: str) -> Path | None:
    """The folder of a `dir:` source, None for `packages:`."""
    kind, _, place = source.partition(":")
    if kind == "packages" and not place:
        return None
    if kind != "dir" or not place:
        raise InputError(f"{source!r} is no source: write dir:/path/to/folder, or packages: for the installed packages")
    folder = storage.local_path(place)
    if not folder.is_dir():
        raise InputError(f"{source} is no folder; give the folder that holds the repositories")
    return folder.resolve()


def fingerprint(sources: Iterable[str]) -> str:
    """Digest of the sources' state: names, sizes and times of change of the files, or the packages' own records."""
    digest = hashlib.sha256()
    for source in sources:
        place = _folder_of(source)
        if place is None:
            for name, distribution in _installed():
                record = distribution.read_text("RECORD") or ""
                digest.update(f"{name}\0{distribution.version}\0{record}\0".encode())
        else:
            for name, root in _roots(place):
                digest.update(f"{name}\0".encode())
                for file in _files(root):
                    digest.update(f"{file.path}\0{file.size}\0{file.modified}\0{file.trouble}\0".encode())
    return digest.hexdigest()


# Folders


def _roots(top: Path) -> list[tuple[str, Path]]:
    """Name and folder of each repository in the folder `top`, by name. Raises InputError when there is none."""
    if _is_repository(top):
        return [(top.name, top)]
    found = [repository for child in _subfolders(top) for repository in _below(child)]
    if not found:
        raise InputError(
            f"dir:{top} holds no repository: put each repository into a folder of its own, "
            "or a licence file at the top when the folder is the repository"
        )
    return [(folder.relative_to(top).as_posix(), folder.resolve()) for folder in found]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.name not in IGNORED and child.is_dir())


def _below(folder: Path) -> list[Path]:
    """`folder`, or what is in it when it is an owner: only folders, one of them with the mark of a repository."""
    if not os.access(folder, os.R_OK | os.X_OK) or _is_repository(folder):
        return [folder]
    children = _subfolders(folder)
    is_owner = len(children) == len(list(folder.iterdir())) and any(map(_is_repository, children))
    return children if is_owner else [folder]


def _is_repository(folder: Path) -> bool:
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return any(
        name == ".git" or name in licences.DECLARATIONS or licences.LICENCE_FILE.fullmatch(name) for name in names
    )


def _repository(name: str, root: Path) -> Repository:
    files = _files(root)
    top = [file for file in files if "/" not in file.path]
    texts = [_text(root, file.path) for file in top if licences.LICENCE_FILE.fullmatch(file.path)]
    declared = {file.path: _text(root, file.path) for file in top if file.path in licences.DECLARATIONS}
    licence = licences.of_repository(texts, declared)
    return Repository(name=name, root=str(root), licence=licence, files=files, nested=_nested(root, files))


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
        if prefix and any(entry.name == ".git" for entry in entries):
            found.append(SourceFile(path=prefix, trouble="vendored", detail="a repository of its own"))
            continue
        for entry in entries:
            if entry.name != ".git":
                found += _look(entry, f"{prefix}{entry.name}", pending)
    return sorted(found)


def _look(entry: os.DirEntry[str], path: str, pending: list[str]) -> list[SourceFile]:
    """The file behind `entry`; a folder is appended to `pending`, or told as one line when it is not ours."""
    if not _is_good_name(entry.name):
        return [SourceFile(path=path.encode("utf-8", "backslashreplace").decode(), trouble="bad_name")]
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


def _text(root: Path, path: str) -> str:
    """The start of a text file, whatever its encoding; empty when it cannot be read or leads out of the repository."""
    try:
        file = (root / path).resolve(strict=True)
        if not file.is_relative_to(root) or not file.is_file():
            return ""
        return decode(read_bytes(file, MAX_LICENCE_BYTES).data, "replace")
    except (OSError, RuntimeError, UnreadableError):  # RuntimeError: a loop of links
        return ""


def _nested(root: Path, files: Iterable[SourceFile]) -> dict[str, str]:
    """Folder -> licence for the licence files below the top that we recognise."""
    texts: dict[str, list[str]] = {}
    for file in files:
        folder, _, name = file.path.rpartition("/")
        if folder and licences.LICENCE_FILE.fullmatch(name):
            texts.setdefault(folder, []).append(_text(root, file.path))
    found = {folder: licences.of_repository(contents, {}) for folder, contents in texts.items()}
    return {folder: licence for folder, licence in found.items() if licence != licences.UNKNOWN}


# Installed packages


def _installed() -> list[tuple[str, importlib.metadata.Distribution]]:
    """Normalised name and distribution, by name; of two with the same name the first on the path, as for imports."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution)
    return sorted(found.items())


def _distributions() -> Iterator[Repository]:
    for name, distribution in _installed():
        root = Path(str(distribution.locate_file(""))).resolve()
        paths = _recorded(distribution)
        information = {path for path in paths if ".dist-info/" in path or ".egg-info/" in path}
        texts = [
            _text(root, path)
            for path in sorted(information)
            if licences.LICENCE_FILE.fullmatch(PurePosixPath(path).name)
        ]
        files = tuple(_installed_file(root, path) for path in sorted(set(paths) - information))
        yield Repository(
            name=name,
            root=str(root),
            licence=licences.of_distribution(distribution.metadata, texts),
            files=files,
            nested=_nested(root, files),
        )


def _recorded(distribution: importlib.metadata.Distribution) -> list[str]:
    """Paths of the installed files inside the root, from RECORD; scripts and byte code are left out."""
    rows = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    paths = (row[0].replace("\\", "/") for row in rows if row)
    return [path for path in paths if not path.startswith(("../", "/")) and "__pycache__/" not in path]


def _installed_file(root: Path, path: str) -> SourceFile:
    if not _is_good_name(path):
        return SourceFile(path=path.encode("utf-8", "backslashreplace").decode(), trouble="bad_name")
    if VENDORED.intersection(path.lower().split("/")[:-1]):
        return SourceFile(path=path, trouble="vendored")
    return _describe(path, f"{root}/{path}")
