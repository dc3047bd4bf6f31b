"""Where code comes from: the repositories of a source and the files of a repository, in a fixed order.

`dir:/path` is a folder of repositories. A folder with a licence file, a build file or `.git` at its top is one
repository; otherwise its sub-folders are looked at, two levels deep (`owner/name`). `packages:` is every Python
distribution that is installed in the running environment.

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
from pathlib import Path, PurePosixPath
from typing import Final

from infill.corpus import licences
from infill.errors import InputError

IGNORED: Final = frozenset(
    {".git", ".hg", ".svn", ".bzr", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".DS_Store"}
)
"""Files and folders that belong to tools, not to the repository; they are not even counted."""

VENDORED: Final = frozenset(
    {"node_modules", "bower_components", "site-packages", "_vendor", "vendor", "vendored", "third_party", "third-party"}
    | {"thirdparty", "thirdparty_files", ".venv", "venv"}
)
"""Folders with other people's code, under licences that the repository's own does not tell."""

MAX_DEPTH: Final = 2
MAX_LICENCE_BYTES: Final = 200_000


@dataclass(frozen=True, kw_only=True, order=True)
class SourceFile:
    path: str
    """Relative to the repository, with forward slashes."""
    size: int = 0
    """Bytes, as the file system says."""
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
        if self.nested:
            for folder in PurePosixPath(path).parents:
                if (licence := self.nested.get(str(folder))) is not None:
                    return licence
        return self.licence


def repositories(sources: Iterable[str]) -> Iterator[Repository]:
    """The repositories of all sources, each with its files; a name that occurs twice gets a number ("name~2").

    Raises InputError for a source of unknown kind, a folder that is none, and a source without any repository.
    """
    taken: dict[str, int] = {}
    for source in sources:
        for repository in _of_source(source):
            taken[repository.name] = count = taken.get(repository.name, 0) + 1
            yield repository if count == 1 else replace(repository, name=f"{repository.name}~{count}")


def _of_source(source: str) -> Iterator[Repository]:
    kind, _, place = source.partition(":")
    if kind == "packages" and not place:
        return _distributions()
    if kind == "dir" and place:
        return _folders(place)
    raise InputError(f"{source!r} is no source: write dir:/path/to/folder, or packages: for the installed packages")


def fingerprint(sources: Iterable[str]) -> str:
    """Digest of the sources' state: names, sizes and times of change of the files, or the packages' own records."""
    digest = hashlib.sha256()
    for source in sources:
        kind, _, place = source.partition(":")
        if kind == "packages":
            for name, distribution in _installed():
                record = distribution.read_text("RECORD") or ""
                digest.update(f"{name}\0{distribution.version}\0{record}\0".encode())
        else:
            root = _existing(place)
            for file in _walk(root):
                when = 0 if file.trouble else (root / file.path).lstat().st_mtime_ns
                digest.update(f"{file.path}\0{file.size}\0{when}\0{file.trouble}\0".encode())
    return digest.hexdigest()


# Folders


def _existing(place: str) -> Path:
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise InputError(f"dir:{place} is no folder; give the folder that holds the repositories")
    return folder.resolve()


def _folders(place: str) -> Iterator[Repository]:
    top = _existing(place)
    if _is_repository(top):
        yield _repository(top.name, top)
        return
    found = list(_find(top, MAX_DEPTH))
    if not found:
        raise InputError(
            f"dir:{place} holds no repository: put each repository into a folder of its own, "
            "or a licence file at the top when the folder is the repository"
        )
    for folder in found:
        yield _repository(folder.relative_to(top).as_posix(), folder)


def _find(folder: Path, depth: int) -> Iterator[Path]:
    """The repositories below `folder`; a sub-folder without a mark of its own is one when no repository is in it."""
    for child in sorted(folder.iterdir()):
        if child.name in IGNORED or not child.is_dir():
            continue
        inner = [] if _is_repository(child) or depth == 1 else list(_find_marked(child))
        yield from inner or [child]


def _find_marked(folder: Path) -> Iterator[Path]:
    try:
        children = sorted(folder.iterdir())
    except OSError:
        return
    yield from (child for child in children if child.is_dir() and not child.is_symlink() and _is_repository(child))


def _is_repository(folder: Path) -> bool:
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return any(
        name == ".git" or name in licences.DECLARATIONS or licences.LICENCE_FILE.fullmatch(name) for name in names
    )


def _repository(name: str, root: Path) -> Repository:
    root = root.resolve()
    files = tuple(_walk(root))
    top = [file for file in files if "/" not in file.path and not file.trouble]
    texts = [text for file in top if licences.LICENCE_FILE.fullmatch(file.path) and (text := _text(root, file))]
    declared = {file.path: text for file in top if file.path in licences.DECLARATIONS and (text := _text(root, file))}
    return Repository(
        name=name,
        root=str(root),
        licence=licences.of_repository(texts, declared),
        files=files,
        nested=_nested(root, files),
    )


def _walk(root: Path) -> Iterator[SourceFile]:
    """All files below `root` in the order of their paths. No symbolic link is followed, no file is opened."""
    yield from sorted(_scan(str(root), "", is_root=True))


def _scan(folder: str, prefix: str, *, is_root: bool = False) -> Iterator[SourceFile]:
    try:
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError as error:
        yield SourceFile(path=prefix or ".", trouble="unreadable", detail=error.strerror or "")
        return
    if not is_root and any(entry.name == ".git" for entry in entries):
        yield SourceFile(path=prefix, trouble="vendored", detail="a repository of its own")
        return
    for entry in entries:
        if entry.name in IGNORED:
            continue
        path = prefix + entry.name
        if not _is_good_name(entry.name):
            yield SourceFile(path=path.encode("utf-8", "backslashreplace").decode(), trouble="bad_name")
        elif entry.is_dir(follow_symlinks=False):
            if entry.name.lower() in VENDORED:
                yield SourceFile(path=f"{path}/", trouble="vendored", detail="the folder was not read")
            else:
                yield from _scan(entry.path, f"{path}/")
        else:
            yield _describe(path, entry)


def _is_good_name(name: str) -> bool:
    """Whether a name is valid UTF-8 without control characters: a path stands in the prompt, on a line of its own."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return re.search(r"[\x00-\x1f\x7f]", name) is None


def _describe(path: str, entry: os.DirEntry[str] | Path) -> SourceFile:
    try:
        state = entry.stat(follow_symlinks=False)
    except OSError as error:
        return SourceFile(path=path, trouble="unreadable", detail=error.strerror or "")
    if stat.S_ISLNK(state.st_mode):
        return SourceFile(path=path, trouble="symlink")
    if not stat.S_ISREG(state.st_mode):
        return SourceFile(path=path, trouble="special_file")
    return SourceFile(path=path, size=state.st_size)


def _text(root: Path, file: SourceFile) -> str:
    """The start of a small text file, whatever its encoding; empty when it cannot be read."""
    try:
        with open(root / file.path, "rb") as handle:
            return handle.read(MAX_LICENCE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def _nested(root: Path, files: Iterable[SourceFile]) -> dict[str, str]:
    """Folder -> licence for the licence files below the top that we recognise."""
    texts: dict[str, list[str]] = {}
    for file in files:
        folder, _, name = file.path.rpartition("/")
        if folder and not file.trouble and licences.LICENCE_FILE.fullmatch(name):
            texts.setdefault(folder, []).append(_text(root, file))
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
        root = Path(str(distribution.locate_file("")))
        paths = _recorded(distribution)
        information = {path for path in paths if ".dist-info/" in path or ".egg-info/" in path}
        texts = [
            _text(root, SourceFile(path=path))
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
    return _describe(path, root / path)
