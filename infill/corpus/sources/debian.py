"""Debian source packages: the tar archives that a `.dsc` file names, and where their files belong in the source."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infill.corpus.sources.listing import Member
from infill.foreign import UnreadableError, read_bytes
from infill.text import decode

_MAX_BYTES: Final = 1_000_000
_SIGNATURE: Final = "-----BEGIN PGP SIGNATURE"
_FIELD: Final = re.compile(r"^(?P<name>[\w-]+):[ \t]*(?P<value>.*(?:\n[ \t].*)*)", re.MULTILINE)
_PART: Final = re.compile(r"\.(?P<role>orig|debian)(?:-(?P<component>[\w-]+))?\.tar\.\w+$")


@dataclass(frozen=True, kw_only=True)
class SourceArchive:
    """An archive that holds some or all files of a repository."""

    file: Path
    prefix: str = ""
    """Prefix of the paths of its members."""
    strip: bool = True
    """Whether a single folder at the top of the archive is left out of the paths."""


def parts_of(dsc: Path) -> list[Path]:
    """Return the files that a `.dsc` names, existing or not; an empty list if it cannot be read or is another file."""
    try:
        return [dsc.parent / name for name in _checksums(dsc)] if dsc.suffix.lower() == ".dsc" else []
    except UnreadableError:
        return []


def parts(dsc: Path) -> list[SourceArchive]:
    """Return the archives of a source package, the upstream archive first, after verifying their checksums.

    Patches in `debian/patches` are not applied. Raises UnreadableError if a file is missing or damaged.
    """
    archives: list[SourceArchive] = []
    for name, (size, sha256) in _checksums(dsc).items():
        if name.endswith(".asc"):  # upstream's signature, which mirrors and users often leave out
            continue
        file = dsc.parent / name
        _verify(file, size, sha256)
        match = _PART.search(name)
        if ".tar." not in name:
            raise UnreadableError(f"{name}: source packages in format 1.0 with a diff are not supported")
        role, component = (match["role"], match["component"]) if match else ("native", None)
        archives.append(SourceArchive(file=file, prefix=f"{component}/" if component else "", strip=role != "debian"))
    if not archives:
        raise UnreadableError("the .dsc file names no tar archive")
    return sorted(archives, key=lambda part: (not part.strip, part.prefix))


def _checksums(dsc: Path) -> dict[str, tuple[int, str]]:
    """Return file name -> (size in bytes, SHA-256) for the files that a `.dsc` names. Raises UnreadableError."""
    text = decode(read_bytes(dsc, _MAX_BYTES).data, "replace").replace("\r\n", "\n").partition(_SIGNATURE)[0]
    fields = {match["name"].lower(): match["value"] for match in _FIELD.finditer(text)}
    files: dict[str, tuple[int, str]] = {}
    for line in fields.get("checksums-sha256", "").split("\n"):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or not words[1].isdigit() or re.fullmatch(r"[\w.+~:-]+", words[2]) is None:
            raise UnreadableError(f"the file list of the .dsc file is damaged: {line.strip()[:80]!r}")
        files[words[2]] = (int(words[1]), words[0])
    if not files:
        raise UnreadableError("the .dsc file lists no files with SHA-256 checksums")
    return files


def _verify(file: Path, size: int, sha256: str) -> None:
    try:
        if not file.is_file():
            raise UnreadableError(f"{file.name} is missing")
        if file.stat().st_size != size:
            raise UnreadableError(f"{file.name} does not have the size that the .dsc file states")
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != sha256:
                raise UnreadableError(f"{file.name} does not have the checksum that the .dsc file states")
    except OSError as error:
        raise UnreadableError(f"{file.name} cannot be read: {error.strerror}") from error


def without_replaced(members: Iterable[Member], parts: Sequence[SourceArchive]) -> Iterator[Member]:
    """Yield the members, except those of the upstream archive in a folder that another archive replaces."""
    replaced = tuple(part.prefix or "debian/" for part in parts if part.prefix or not part.strip)
    for member in members:
        if not member.place.startswith("0:") or not member.path.startswith(replaced):
            yield member
