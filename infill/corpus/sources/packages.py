"""Installed Python distributions as repositories."""

import csv
import importlib.metadata
import os
import re
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from infill.corpus import licences
from infill.corpus.sources import folders
from infill.corpus.sources.listing import VENDORED, Repository, SourceFile, escaped, is_good_name
from infill.foreign import UnreadableError, parse, read_bytes
from infill.text import decode, split_lines

INFORMATION: Final = re.compile(r"[^/]+\.(?:dist|egg)-info/(?:licenses/|license_files/)?")
"""The folder of a distribution's metadata, including its subfolder of licence files."""


class _Package(importlib.metadata.Distribution):
    """An installed distribution whose metadata are not trusted to be valid."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read_text(self, filename: str) -> str | None:
        """Return the text of a metadata file, in any encoding; None if it cannot be read."""
        try:
            return decode(read_bytes(self._folder / filename, follow_links=True).data, "replace")
        except UnreadableError:
            return None

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        return self._folder.parent / path

    @property
    def key(self) -> str:
        """The normalised name, from the metadata or else from the folder; empty without metadata."""
        if all(self.read_text(name) is None for name in ("METADATA", "PKG-INFO")):
            return ""
        stated = self.metadata["Name"]
        name = stated if stated and is_good_name(stated) else self._folder.name.partition("-")[0]
        return re.sub(r"[-_.]+", "-", name).lower() if is_good_name(name) else ""


def fingerprint() -> Iterator[str]:
    """Yield the names, versions and records of the installed distributions, from which a change is detected."""
    for name, package in _installed():
        yield f"{name}\0{package.metadata['Version']}\0{package.read_text('RECORD')}\0"


def _installed() -> list[tuple[str, _Package]]:
    """Return (normalised name, distribution), sorted by name; of equal names the first on `sys.path`."""
    installed: dict[str, _Package] = {}
    for place in sys.path:
        for entry in folders.entries(Path(place)):
            if entry.name.lower().endswith((".dist-info", ".egg-info")) and folders.is_folder(entry):
                package = _Package(Path(entry.path))
                installed.setdefault(package.key, package)
    installed.pop("", None)
    return sorted(installed.items())


def repositories() -> Iterator[Repository]:
    """Yield the installed distributions, sorted by name."""
    for name, distribution in _installed():
        root = distribution.locate_file("").resolve()
        try:
            paths = sorted(set(_recorded(distribution)))
        except UnreadableError as error:
            trouble = SourceFile(path="RECORD", trouble="unreadable", detail=str(error))
            yield Repository(name=name, root=str(root), files=(trouble,))
            continue
        information = {path for path in paths if INFORMATION.match(path)}
        files = tuple(_installed_file(root, path) for path in paths if path not in information)
        # The metadata folder keeps licence files under the paths that they have in the sources (PEP 639).
        installed = {file.path: file.path for file in files if not file.trouble}
        installed |= {INFORMATION.sub("", path): path for path in information if not path.endswith("/METADATA")}
        coverage = licences.of_files(
            installed, partial(_text_of, root, installed), licences.of_metadata(distribution.metadata)
        )
        yield Repository(name=name, root=str(root), files=files, coverage=coverage)


def _text_of(root: Path, installed: Mapping[str, str], path: str) -> str | None:
    """Return the text of the file that has `path` in the sources; `installed` maps it to the installed path."""
    return folders.text_of(root, installed[path])


def _recorded(distribution: _Package) -> list[str]:
    """Return the paths of the installed files below the root, from RECORD, without scripts and byte code.

    Raises UnreadableError if RECORD is not valid CSV.
    """
    rows = parse(list, csv.reader(split_lines(distribution.read_text("RECORD") or "", keepends=True)))
    paths = (row[0].replace("\\", "/") for row in rows if row)
    outside = {"..", "__pycache__"}
    return [path for path in paths if path and not path.startswith("/") and outside.isdisjoint(path.split("/"))]


def _installed_file(root: Path, path: str) -> SourceFile:
    if not is_good_name(path):
        return SourceFile(path=escaped(path), trouble="bad_name")
    if VENDORED.intersection(path.lower().split("/")[:-1]):
        return SourceFile(path=path, trouble="vendored")
    return folders.describe(path, f"{root}/{path}")
