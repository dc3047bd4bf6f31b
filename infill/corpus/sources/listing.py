"""Types that all kinds of sources share: repositories, their files, and the reasons why a file cannot be used."""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import BinaryIO, Final

from infill.corpus import licences
from infill.foreign import UnreadableError

IGNORED: Final = frozenset(
    {".git", ".hg", ".svn", ".bzr", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".DS_Store"}
)
"""Files and folders that belong to tools, not to the repository; they are not even counted."""

VENDORED: Final = frozenset(
    {"node_modules", "bower_components", "site-packages", "_vendor", "vendor", "vendored", "third_party", "third-party"}
    | {"thirdparty", "thirdparty_files", ".venv", "venv", "_vendored", "3rdparty", "extern", "externals"}
    | {"jspm_packages", "godeps"}
)
"""Folders with other people's code, which the repository's licence does not cover."""

MAX_STATEMENT_BYTES: Final = 2_000_000
"""Size limit of licence and build files; a larger one is not read, so its statement is unknown."""
MAX_PATH_LEVELS: Final = 100
"""Maximum depth of a file in a Git repository or an archive; a deeper one counts as having a bad name."""
_MAX_PATH_BYTES: Final = 4_096
_MAX_LINKS: Final = 40
"""Maximum number of symbolic links on the way to one file, the same as in the Linux kernel."""


@dataclass(frozen=True, kw_only=True, order=True, slots=True)
class SourceFile:
    path: str
    """Relative to the repository, with forward slashes."""
    size: int = 0
    """Size in bytes according to the file system, archive or table."""
    modified: int = 0
    """Modification time in nanoseconds since 1970."""
    trouble: str = ""
    """Reason not to use the file, such as `symlink`, `special_file`, `unreadable`, `vendored`; empty if none."""
    detail: str = ""
    place: str = ""
    """Address of the content in the repository's root, in the format of the root's kind, where the path is not it."""
    commit: str = ""
    """The commit that the file was read from; empty if unknown."""
    date: str = ""
    """The commit's date, such as 2024-02-29T12:00:00Z; empty if unknown."""


@dataclass(frozen=True, kw_only=True)
class Repository:
    name: str
    root: str
    """Origin of the files: a local folder, or an address that `readers.reader` understands."""
    files: tuple[SourceFile, ...]
    """Sorted by path."""
    coverage: licences.Coverage = field(default_factory=licences.Coverage)
    """The licence of each file."""
    source: str = ""
    """The entry of `corpus.sources` that it is from."""


Listing = Callable[[], Iterable[Repository]]
"""A function that lists some repositories of a source, in this process or another."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A file that is in a folder of repositories, but belongs to none of them."""

    root: str
    file: SourceFile
    source: str = ""
    """The entry of `corpus.sources` that it is from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """An entry of a Git tree, an archive or a table, before it is decided whether it can be used."""

    path: str
    kind: str
    """`file`, `folder`, `link`, `submodule`, or another kind in words for a message ("device", "hard link")."""
    size: int = 0
    target: str = ""
    """Target of a link."""
    place: str = ""
    modified: int = 0
    trouble: str = ""
    detail: str = ""


def is_good_name(name: str) -> bool:
    """Return whether a name is valid UTF-8 without control characters, as a path is one line of the prompt."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return re.search(r"[\x00-\x1f\x7f]", name) is None


def is_good_path(path: str) -> bool:
    """Return whether a path from a Git tree or an archive is valid for a file inside a folder."""
    parts = path.split("/")
    inside = {"", ".", ".."}.isdisjoint(parts) and len(parts) <= MAX_PATH_LEVELS
    return inside and is_good_name(path) and len(path.encode()) <= _MAX_PATH_BYTES


def date_of(seconds: int) -> str:
    """Return a time in seconds since 1970 as text (2024-02-29T12:00:00Z); empty outside the years 1 to 9999."""
    try:
        return (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat() + "Z"
    except OverflowError:
        return ""


@contextlib.contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file without blocking. Raises OSError, and UnreadableError if it is not a regular file."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UnreadableError("not a regular file")
        yield file


def escaped(path: str) -> str:
    """Return `path` as valid UTF-8, with backslash escapes for what is not."""
    return path.encode("utf-8", "backslashreplace").decode()


def unreadable(name: str, root: str, trouble: str, detail: str) -> Repository:
    """Return a repository that cannot be read: its only file has the reason."""
    return Repository(name=name, root=root, files=(SourceFile(path=".", trouble=trouble, detail=detail),))


def files_of(members: Iterable[Member]) -> tuple[SourceFile, ...]:
    """Return the files of a repository that is not a folder, as `folders` would list them, sorted by path.

    Files of tools are left out, and a folder of other people's code is one entry. If several members have the same
    path, none of them is used, because it depends on the unpacker which of them wins.
    """
    files: dict[str, SourceFile] = {}
    folders: set[str] = set()
    for member in members:
        file = _listed(member, folders)
        if file is None:
            continue
        if file.path in files and not file.path.endswith("/") and file.trouble != "bad_name":
            file = SourceFile(path=file.path, trouble="duplicate_name", detail="more than one file has this path")
        files[file.path] = file
    for path in folders.intersection(files):
        files[path] = SourceFile(path=path, trouble="duplicate_name", detail="a file and a folder have this path")
    return tuple(sorted(files.values()))


def _listed(member: Member, folders: set[str]) -> SourceFile | None:
    """Return the file to list for a member, None if it is not listed; add its parent folders to `folders`."""
    if member.trouble == "bad_name":
        return SourceFile(path=escaped(member.path), trouble=member.trouble, detail=member.detail)
    steps = member.path.split("/")
    above = len(steps) if member.kind == "folder" else len(steps) - 1
    for count, step in enumerate(steps, 1):
        path = "/".join(steps[:count])
        if step in IGNORED:
            return None
        if not is_good_name(step):
            return SourceFile(path=escaped(path), trouble="bad_name")
        if count <= above and step.lower() in VENDORED:
            return SourceFile(path=f"{path}/", trouble="vendored", detail="the folder was not read")
        if count <= above:
            folders.add(path)
    return None if member.kind == "folder" else _judged(member)


def _judged(member: Member) -> SourceFile:
    if not is_good_path(member.path):
        return SourceFile(path=escaped(member.path), trouble="bad_name", detail="not a valid path in a repository")
    if member.kind == "submodule":
        return SourceFile(path=f"{member.path}/", trouble="vendored", detail="a submodule, which is not read")
    if member.kind == "link":
        return SourceFile(path=member.path, trouble="symlink")
    if member.kind != "file":
        return SourceFile(path=member.path, trouble="special_file", detail=f"a {member.kind}")
    return SourceFile(
        path=member.path,
        size=member.size,
        modified=member.modified,
        place=member.place,
        trouble=member.trouble,
        detail=member.detail,
    )


def statement_paths(files: Iterable[SourceFile]) -> list[str]:
    """Return the paths of files that may state a licence, including files that cannot be read."""
    return [file.path for file in files if file.trouble not in ("bad_name", "vendored")]


def statement_files(paths: Iterable[str], look: Callable[[str], Member | None]) -> dict[str, Member]:
    """Return the files among `paths` that may state a licence, by path; `look` returns the member at a path."""
    statements: dict[str, Member] = {}

    def record(path: str) -> None:
        member = follow_links(path, look)
        if member is not None and member.size <= MAX_STATEMENT_BYTES:
            statements[path] = member

    licences.of_files(paths, record)
    return statements


def coverage_of(
    paths: Iterable[str], statements: Mapping[str, Member], texts: Mapping[str, str], declared: Sequence[str] = ()
) -> licences.Coverage:
    """Return the licences that cover the files at `paths` of a repository that is not a folder.

    `statements` is the result of `statement_files`, `texts` has their texts by place, and `declared` lists the licences
    that the package's metadata state.
    """

    def text_of(path: str) -> str | None:
        return texts.get(statements[path].place) if path in statements else None

    return licences.of_files(paths, text_of, declared)


def lookup(at: Mapping[str, Member]) -> Callable[[str], Member | None]:
    """Return a function that returns the member at a path; a folder is known from the paths of its files."""
    above = {path[: match.start()] for path in at for match in re.finditer("/", path)}

    def look(path: str) -> Member | None:
        return at.get(path) or (Member(path=path, kind="folder") if path in above else None)

    return look


def follow_links(path: str, look: Callable[[str], Member | None]) -> Member | None:
    """Return the file at `path` after following symbolic links inside the repository.

    None if a link leads out of the repository or to itself, a parent is not a folder, or the file does not exist.
    """
    top = Member(path="", kind="folder")
    pending, steps, links = path.split("/")[::-1], list[str](), 0
    member: Member | None = top
    while pending:
        part = pending.pop()
        if member is None or member.kind != "folder" or (part == ".." and not steps):
            return None
        if part == "..":
            steps.pop()
        elif part not in ("", "."):
            steps.append(part)
            member = look("/".join(steps))
        if member is not None and member.kind == "link":
            links += 1
            if links > _MAX_LINKS or member.target.startswith("/"):
                return None
            steps.pop()
            pending += member.target.split("/")[::-1]
            member = top
    return member if member is not None and member.kind == "file" else None
