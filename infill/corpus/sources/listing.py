"""What every kind of source gives: repositories with their files, and what is said of a file that cannot be taken."""

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
"""Folders with other people's code, under licences that the repository's own does not tell."""

MAX_STATING_BYTES: Final = 2_000_000
"""A licence or build file that is larger is not read, so that what it says is not known."""
MAX_PATH_LEVELS: Final = 100
"""A file that lies deeper in a Git repository or an archive has a bad name."""
_MAX_PATH_BYTES: Final = 4_096
_MAX_LINKS: Final = 40
"""Symbolic links on the way to one file, as the kernel of Linux counts them."""


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
    place: str = ""
    """Where the content lies in the repository's root when the path does not tell it, as the root's kind writes it."""
    commit: str = ""
    """The commit that the file was read from; empty where none is known."""
    date: str = ""
    """The commit's date, as 2024-02-29T12:00:00Z; empty where none is known."""


@dataclass(frozen=True, kw_only=True)
class Repository:
    name: str
    root: str
    """What the files are read from: a local folder, or a text that `contents.reader` understands."""
    files: tuple[SourceFile, ...]
    """In the order of their paths."""
    coverage: licences.Coverage = field(default_factory=licences.Coverage)
    """Which licence covers which file."""
    source: str = ""
    """The entry of `corpus.sources` that it is from."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A file in a folder that holds repositories, which belongs to none of them."""

    root: str
    file: SourceFile
    source: str = ""
    """The entry of `corpus.sources` that it is from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """What stands at a path of a Git tree or an archive, before it is judged."""

    path: str
    kind: str
    """`file`, `folder`, `link`, `submodule`, or what else it is, as told to people: "device", "hard link"."""
    size: int = 0
    target: str = ""
    """Where a link leads."""
    place: str = ""
    modified: int = 0
    trouble: str = ""
    detail: str = ""


def is_good_name(name: str) -> bool:
    """Whether a name is valid UTF-8 without control characters: a path stands in the prompt, on a line of its own."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return re.search(r"[\x00-\x1f\x7f]", name) is None


def is_good_path(path: str) -> bool:
    """Whether a path that no file system has checked is one of a file inside a folder."""
    parts = path.split("/")
    inside = {"", ".", ".."}.isdisjoint(parts) and len(parts) <= MAX_PATH_LEVELS
    return inside and is_good_name(path) and len(path.encode()) <= _MAX_PATH_BYTES


def date_of(seconds: int) -> str:
    """Return a time in seconds since 1970 as 2024-02-29T12:00:00Z; empty for one outside the years 1 to 9999."""
    try:
        return (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat() + "Z"
    except OverflowError:
        return ""


@contextlib.contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file without waiting for a pipe. Raises OSError, and UnreadableError for anything else."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UnreadableError("not a regular file")
        yield file


def escaped(path: str) -> str:
    """Return a path that is not valid UTF-8 as one that is."""
    return path.encode("utf-8", "backslashreplace").decode()


def whole(name: str, root: str, trouble: str, detail: str) -> Repository:
    """Return a repository of which nothing can be taken, with the reason."""
    return Repository(name=name, root=root, files=(SourceFile(path=".", trouble=trouble, detail=detail),))


def files_of(members: Iterable[Member]) -> tuple[SourceFile, ...]:
    """Return the files of a repository that lies in no folder as a folder would give them, in the order of their paths.

    What belongs to tools is left out, and a folder of other people's code is one line. A path that several members have
    belongs to none of them: who unpacks it may get either.
    """
    files: dict[str, SourceFile] = {}
    folders: set[str] = set()
    for member in members:
        file = _listed(member, folders)
        if file is None:
            continue
        if file.path in files and not file.path.endswith("/") and file.trouble != "bad_name":
            file = SourceFile(path=file.path, trouble="duplicate_name", detail="several files have this path")
        files[file.path] = file
    for path in folders.intersection(files):
        files[path] = SourceFile(path=path, trouble="duplicate_name", detail="a file and a folder have this path")
    return tuple(sorted(files.values()))


def _listed(member: Member, folders: set[str]) -> SourceFile | None:
    """Return how a member is told, None where it is not; the folders above it are added to `folders`."""
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
        return SourceFile(path=escaped(member.path), trouble="bad_name", detail="no path of a file in a repository")
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


def stating(files: Iterable[SourceFile]) -> list[str]:
    """Return the paths at which a licence may be stated, also where the file that states it cannot be read."""
    return [file.path for file in files if file.trouble not in ("bad_name", "vendored")]


def asked(paths: Iterable[str], look: Callable[[str], Member | None]) -> dict[str, Member]:
    """Return the files that state something of those at `paths`, by path; `look` gives what stands at a path."""
    stated: dict[str, Member] = {}

    def ask(path: str) -> None:
        member = follow_links(path, look)
        if member is not None and member.size <= MAX_STATING_BYTES:
            stated[path] = member

    licences.of_files(paths, ask)
    return stated


def coverage_of(
    paths: Iterable[str], stated: Mapping[str, Member], texts: Mapping[str, str], declared: Sequence[str] = ()
) -> licences.Coverage:
    """Return what covers the files at `paths` of a repository that lies in no folder.

    `stated` are the files that `asked` gives, `texts` their texts by place; `declared` is what the package's metadata
    state.
    """
    return licences.of_files(paths, lambda path: texts.get(stated[path].place) if path in stated else None, declared)


def lookup(at: Mapping[str, Member]) -> Callable[[str], Member | None]:
    """Return what gives the member at a path; folders need no member of their own."""
    above = {path[: match.start()] for path in at for match in re.finditer("/", path)}

    def look(path: str) -> Member | None:
        return at.get(path) or (Member(path=path, kind="folder") if path in above else None)

    return look


def follow_links(path: str, look: Callable[[str], Member | None]) -> Member | None:
    """Return the file that `path` leads to by symbolic links inside the repository.

    None when it leads out of it, in circles, through what is no folder, or nowhere.
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
