"""Source archives: `archive:/path`, one archive or a folder of archives at any depth. Nothing is unpacked to disk.

Sdists, wheels, npm's tarballs, zip files, tar archives (plain, gzip, bzip2, xz, zstd) and Debian source packages are
read, each as one repository. The content may be hostile: an archive that is damaged or exceeds a limit is skipped with
the reason, and so is a single member that leads out of the archive, is a link or a device, or shares its path with
another. An archive inside an archive is not opened.
"""

import contextlib
import importlib.metadata
import io
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from infill.config import CorpusConfig
from infill.corpus import licences
from infill.corpus.sources import debian, folders, listing, packages
from infill.corpus.sources.listing import (
    MAX_STATEMENT_BYTES,
    Beside,
    Listing,
    Member,
    Repository,
    SourceFile,
    open_regular,
)
from infill.corpus.sources.tarballs import LimitError, Tar
from infill.errors import InputError
from infill.foreign import UnreadableError, parse
from infill.text import decode

PREFIX: Final = "archive:"
"""Prefix of the root of an archive; the archive's path follows."""
_SUFFIX: Final = re.compile(
    r"\.(?:zip|whl|crate|dsc|tgz|tbz2?|txz|tzst|tar(?:\.(?:gz|bz2|xz|zst|lzma))?)", re.IGNORECASE
)
_RATIO_FROM: Final = 16_000_000
"""Bytes that every archive may unpack to: the ratio is meaningless for a small one."""
_MAX_NAME: Final = 4_096
_NAME_BYTES: Final = 400
"""Average number of characters of a member's name and link target, at the largest allowed number of members."""
_DIRECTORY_BYTES: Final = 160
"""Bytes of a zip file's directory per allowed member."""
_COMMIT: Final = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")
_EXTENDED_TIME: Final = 0x5455
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2})
_ENCRYPTED: Final = 0x1
_UTF8_NAME: Final = 0x800
_JUNK: Final = re.compile(r"(?:__MACOSX|(?:.*/)?\._[^/]*)(?:/.*)?")
"""Files that macOS adds to archives."""


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """Limits on the content of one archive."""

    max_bytes: int
    max_ratio: float
    max_files: int

    @classmethod
    def of(cls, config: CorpusConfig) -> "ArchiveLimits":
        return cls(
            max_bytes=config.max_archive_bytes,
            max_ratio=config.max_archive_ratio,
            max_files=config.max_repository_files,
        )

    def bytes_of(self, packed: int) -> tuple[int, str]:
        """Return how many bytes an archive of `packed` bytes may unpack to, and the error message for more."""
        by_ratio = max(int(packed * self.max_ratio), _RATIO_FROM)
        if by_ratio < self.max_bytes:
            return by_ratio, f"it unpacks to more than {self.max_ratio:g} times its size (corpus.max_archive_ratio)"
        return self.max_bytes, f"it unpacks to more than {self.max_bytes} bytes (corpus.max_archive_bytes)"


# Finding the archives


def repositories(top: Path, config: CorpusConfig) -> Iterator[Listing]:
    """Yield a function for each archive at or below `top` that lists it. Raises InputError if there is none."""
    archives, _ = _layout(top)
    for name, file in archives:
        yield partial(_listed, name, file, ArchiveLimits.of(config))


def _listed(name: str, file: Path, limits: ArchiveLimits) -> Sequence[Repository]:
    return [_repository(name, file, limits)]


def beside(top: Path) -> Iterator[Beside]:
    """Yield the files in the folder `top` that are not archives."""
    for file in _layout(top)[1]:
        yield Beside(root=str(top), file=file)


def fingerprint(top: Path) -> Iterator[str]:
    """Yield the names, sizes and modification times of the archives, from which a change is detected."""
    for name, file in _layout(top)[0]:
        for part in (file, *debian.parts_of(file)):
            state = part.stat() if part.exists() else None
            yield f"{name}\0{part.name}\0{state and state.st_size}\0{state and state.st_mtime_ns}\0"


def _layout(top: Path) -> tuple[list[tuple[str, Path]], list[SourceFile]]:
    """Return the archives at or below `top` with the names of their repositories, and the other files."""
    if not top.is_dir():
        return [(_name(top.name), top)], []
    files = folders.walk(top)
    usable = [file for file in files if not file.trouble and _SUFFIX.search(file.path)]
    parts = {part for file in usable if file.path.lower().endswith(".dsc") for part in debian.parts_of(top / file.path)}
    archives = [(_name(file.path), top / file.path) for file in usable if top / file.path not in parts]
    if not archives:
        raise InputError(f"archive:{top} holds no archive: name a zip, wheel, tar or .dsc file, or a folder of them")
    taken = {path for _, path in archives} | parts
    others = [file for file in files if top / file.path not in taken]
    return sorted(archives), [
        file if file.trouble else replace(file, trouble="beside", detail="not a supported archive") for file in others
    ]


def _name(path: str) -> str:
    match = _SUFFIX.search(path)
    return path[: match.start()] if match and match.end() == len(path) and match.start() else path


def _repository(name: str, file: Path, limits: ArchiveLimits) -> Repository:
    root = f"{PREFIX}{file}"
    try:
        archive = Archive(file, limits)
        members, comment = archive.members()
        files = _committed(listing.files_of(members), members, comment)
        if file.suffix.lower() == ".whl":
            return _wheel(name, root, files, archive)
        troubled = {file.path for file in files if file.trouble not in ("", "symlink")}
        look = listing.lookup({member.path: member for member in members if member.path not in troubled})
        paths = listing.statement_paths(files)
        statements = listing.statement_files(paths, look)
        coverage = listing.coverage_of(paths, statements, archive.texts(statements.values()))
    except LimitError as error:
        return listing.unreadable(name, root, "archive_limit", str(error))
    except UnreadableError as error:
        return listing.unreadable(name, root, "damaged_archive", str(error))
    return Repository(name=name, root=root, files=files, coverage=coverage)


def _committed(files: tuple[SourceFile, ...], members: Sequence[Member], comment: bytes) -> tuple[SourceFile, ...]:
    """Return `files` with the commit that `git archive` recorded in `comment`; unchanged for other archives."""
    if _COMMIT.fullmatch(comment) is None:
        return files
    commit = str(comment, "ascii")
    date = listing.date_of(max(member.modified for member in members) // 10**9)
    return tuple(replace(file, commit=commit, date=date) for file in files)


def _wheel(name: str, root: str, files: Sequence[SourceFile], archive: "Archive") -> Repository:
    """Return a wheel as if it were installed: its metadata state a licence, but do not count as files."""
    information = [file for file in files if packages.INFORMATION.match(file.path)]
    kept = tuple(file for file in files if not packages.INFORMATION.match(file.path))
    by_path = {packages.INFORMATION.sub("", file.path): file for file in [*kept, *information]}
    members = {
        path: Member(path=path, kind="file", size=file.size, place=file.place)
        for path, file in by_path.items()
        if not file.trouble
    }
    declared: list[str] = []
    if (metadata := members.pop("METADATA", None)) is not None and metadata.size <= MAX_STATEMENT_BYTES:
        text = archive.texts([metadata]).get(metadata.place, "")
        declared = licences.of_metadata(parse(lambda: _Metadata(text).metadata))
    by_path.pop("METADATA", None)
    statements = listing.statement_files(by_path, listing.lookup(members))
    coverage = listing.coverage_of(by_path, statements, archive.texts(statements.values()), declared)
    return Repository(name=name, root=root, files=kept, coverage=coverage)


class _Metadata(importlib.metadata.Distribution):
    """A distribution that consists of its metadata only."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        raise FileNotFoundError(path)


# What is in an archive


class Archive:
    """A source archive, which may consist of several files."""

    def __init__(self, file: Path, limits: ArchiveLimits) -> None:
        """Find the files that belong to the archive. Raises UnreadableError."""
        self._limits = limits
        if file.suffix.lower() == ".dsc":
            self._parts = debian.parts(file)
        else:
            self._parts = [debian.SourceArchive(file=file, strip=file.suffix.lower() != ".whl")]

    def members(self) -> tuple[list[Member], bytes]:
        """Return the members with their paths in the repository, and the archive's comment.

        Raises LimitError if the archive exceeds a limit, UnreadableError if it is damaged.
        """
        members: list[Member] = []
        comment = b""
        for number, part in enumerate(self._parts):
            with _opened(part.file, self._limits) as archive:
                listed = list(self._limited(archive, number))
                comment = comment or archive.comment
            members += _placed(listed, part)
        return (list(debian.without_replaced(members, self._parts)) if len(self._parts) > 1 else members), comment

    def _limited(self, archive: "Tar | Zip", part: int) -> Iterator[Member]:
        names = 0
        for count, member in enumerate(archive, 1):
            names += len(member.path) + len(member.target)
            if count > self._limits.max_files or names > _NAME_BYTES * self._limits.max_files:
                raise LimitError(
                    f"the archive has more than {self._limits.max_files} files (corpus.max_repository_files)"
                )
            yield _cleaned(replace(member, place=f"{part}:{member.place}"))

    def texts(self, members: Iterable[Member]) -> dict[str, str]:
        """Return place -> text, in any encoding, for those of `members` that can be read."""
        contents = self.contents(member.place for member in members)
        return {place: decode(data, "replace") for place, data in contents if isinstance(data, bytes)}

    def contents(self, places: Iterable[str]) -> Iterator[tuple[str, bytes | UnreadableError]]:
        """Yield the place and the content of the members at `places`, or the error, in the order of storage."""
        wanted: dict[int, set[str]] = {}
        for place in places:
            part, _, number = place.partition(":")
            wanted.setdefault(int(part), set()).add(number)
        for position, numbers in sorted(wanted.items()):
            with _opened(self._parts[position].file, self._limits) as archive:
                for number, data in archive.contents(numbers):
                    yield f"{position}:{number}", data


@contextlib.contextmanager
def _opened(path: Path, limits: ArchiveLimits) -> Iterator["Tar | Zip"]:
    """Open a tar or zip file, recognised by its first bytes. Raises UnreadableError for OSErrors of the block too."""
    try:
        with open_regular(path) as file:
            allowed = limits.bytes_of(os.fstat(file.fileno()).st_size)
            is_zip = file.read(2) == b"PK"
            file.seek(0)
            yield (
                Zip(file, *allowed, max_directory=_DIRECTORY_BYTES * limits.max_files)
                if is_zip
                else Tar(file, *allowed)
            )
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror or error}") from error


def _cleaned(member: Member) -> Member:
    """Return a member with a normalised path, or with a `trouble` if its path is not allowed."""
    path, target = member.path, member.target
    if len(path) > _MAX_NAME or len(target) > _MAX_NAME:
        return replace(member, path=path[:100], target="", trouble="bad_name", detail="a name is too long")
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return replace(member, trouble="bad_name", detail="an absolute path")
    steps = [step for step in path.split("/") if step not in ("", ".")]
    if ".." in steps:
        return replace(member, trouble="bad_name", detail="it leads out of the archive")
    return replace(member, path="/".join(steps))


def _placed(members: Sequence[Member], part: debian.SourceArchive) -> Iterator[Member]:
    """Yield the members with their paths in the repository, without the archive's top folder."""
    own = f"{_own_folder(members)}/" if part.strip else "/"
    for member in members:
        if member.trouble == "bad_name":
            yield member
        elif member.path and member.path != own[:-1] and not _JUNK.fullmatch(member.path):
            yield replace(member, path=part.prefix + member.path.removeprefix(own))


def _own_folder(members: Iterable[Member]) -> str:
    """Return the only folder at the top of the archive; empty if there are others, or files."""
    own = ""
    for member in members:
        if member.trouble == "bad_name" or not member.path or _JUNK.fullmatch(member.path):
            continue
        first, slash, _ = member.path.partition("/")
        if (not slash and member.kind != "folder") or (own and own != first):
            return ""
        own = first
    return own


class Zip:
    """The members of a zip file."""

    def __init__(self, file: BinaryIO, max_bytes: int, over: str, *, max_directory: int) -> None:
        """Read the directory. Raises LimitError with the message `over` if the members exceed `max_bytes`."""
        self._file = parse(zipfile.ZipFile, _Capped(file, max_directory))
        self._infos = self._file.infolist()
        if sum(info.file_size for info in self._infos) > max_bytes:
            raise LimitError(over)
        self.comment = self._file.comment

    def __iter__(self) -> Iterator[Member]:
        for number, info in enumerate(self._infos):
            trouble = detail = ""
            if info.flag_bits & _ENCRYPTED:
                trouble, detail = "unreadable", "it is encrypted"
            elif info.compress_type not in _METHODS:
                trouble, detail = "unreadable", f"compression method {info.compress_type} is not supported"
            kind = _zip_kind(info)
            target = self._target(info) if kind == "link" and not trouble else ""
            yield Member(
                path=_zip_name(info),
                kind=kind,
                size=info.file_size,
                target=target,
                place=str(number),
                modified=_zip_time(info) * 10**9,
                trouble=trouble,
                detail=detail,
            )

    def contents(self, numbers: Iterable[str]) -> Iterator[tuple[str, bytes | UnreadableError]]:
        """Yield the number and the content of the members `numbers`, or the error."""
        for number in sorted(numbers, key=int):
            try:
                yield number, parse(self._read, self._infos[int(number)])
            except UnreadableError as error:
                yield number, error

    def _read(self, info: zipfile.ZipInfo) -> bytes:
        with self._file.open(info) as content:
            return content.read(info.file_size + 1)  # the size limits how much is inflated at once

    def _target(self, info: zipfile.ZipInfo) -> str:
        """Return the target of a link; "/", which is outside the archive, if it cannot be read."""
        try:
            return os.fsdecode(parse(self._read, info)) if info.file_size <= _MAX_NAME else "/"
        except UnreadableError:
            return "/"


class _Capped(io.RawIOBase):
    """A file that limits the size of a single read, because the standard library trusts the sizes in zip files."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._limit = limit

    def read(self, size: int = -1, /) -> bytes:
        if size > self._limit:
            raise UnreadableError("the zip file's directory is too large")
        return self._file.read(size if size >= 0 else self._limit)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name with forward slashes, decoded as UTF-8 whether or not its flag declares that."""
    name = info.orig_filename
    if not info.flag_bits & _UTF8_NAME:
        name = str(name.encode("cp437"), "utf-8", "surrogateescape")
    return name.replace("\\", "/")


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if info.is_dir():
        return "folder"
    if stat.S_ISLNK(mode):
        return "link"
    return "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "device"


def _zip_time(info: zipfile.ZipInfo) -> int:
    """Return the modification time in seconds since 1970, from the extra field that has it in UTC; 0 without one."""
    extra = info.extra
    while len(extra) >= 4:
        kind, size = int.from_bytes(extra[:2], "little"), int.from_bytes(extra[2:4], "little")
        if kind == _EXTENDED_TIME and size >= 5 and extra[4] & 1:
            return int.from_bytes(extra[5:9], "little")
        extra = extra[4 + size :]
    return 0


# Reading the files


def reader(root: str, files: Sequence[SourceFile], config: CorpusConfig) -> Callable[[SourceFile], bytes]:
    """Return a function that returns the content of `files`, each once, or raises UnreadableError.

    The first call reads all of them, in the order in which the archive stores them.
    """
    contents: dict[str, bytes | UnreadableError] = {}
    wanted = {file.place for file in files if not file.trouble}

    def read(file: SourceFile) -> bytes:
        if wanted:
            archive = Archive(Path(root.removeprefix(PREFIX)), ArchiveLimits.of(config))
            contents.update(archive.contents(wanted))
            wanted.clear()
        content = contents.pop(file.place, None)
        if isinstance(content, UnreadableError):
            raise content
        if content is None or len(content) != file.size:
            raise UnreadableError("the archive has changed since it was listed")
        return content

    return read
