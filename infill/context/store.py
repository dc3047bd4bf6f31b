"""An index on disk; one that is damaged or of another version is built again.

The file is a line with the version, the SHA-256 of the next line, a line with a header in JSON, the arrays that it
names, the texts of all files, and the SHA-256 of all that. An index may have gigabytes, so each array is read to the
place where the loaded index keeps it.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray

from infill import storage
from infill.context.files import IndexLimits, Stamp
from infill.context.index import File, ProjectIndex
from infill.prompt import Encode

if TYPE_CHECKING:
    from io import BufferedIOBase

VERSION: Final = 3
"""Increased when the meaning of the arrays of `Table`, or of the kernels' results in them, changes."""
_MAGIC: Final = f"infill index {VERSION}\n".encode()
_DIGEST: Final = 32


def save(index: ProjectIndex, uri: str) -> None:
    """Write the index to one file."""
    digest = hashlib.sha256()
    with storage.open_write(uri) as file:
        for part in _parts(index):
            digest.update(part)
            file.write(part)
        file.write(digest.digest())


def _parts(index: ProjectIndex) -> Iterator[bytes | memoryview]:
    order, arrays = sorted(index.files), index.table.saved()
    header = {
        "arrays": [[name, array.dtype.str, len(array)] for name, array in arrays.items()],
        "files": [[path, index.files[path].number, *index.files[path].span] for path in order],
        "stamps": [index.stamps.get(path) for path in order],
        "sizes": [len(index.files[path].data) for path in order],
    }
    line = json.dumps(header).encode() + b"\n"
    yield from (_MAGIC, hashlib.sha256(line).digest(), line)
    for array in arrays.values():
        yield np.ascontiguousarray(array).view(np.uint8).data
    for path in order:
        yield index.files[path].data


def load(uri: str, encode: Encode | None = None) -> ProjectIndex | None:
    """Return the index saved at `uri`; None if there is none, or it is damaged or of another version."""
    if not storage.exists(uri):
        return None
    with storage.open_read(uri) as file:
        return _Reader(file, storage.size(uri)).index(encode)


def open_repository(
    root: str | Path, saved: str, encode: Encode | None = None, limits: IndexLimits | None = None
) -> ProjectIndex:
    """Return the index of the folder `root`: the one at `saved`, updated, and saved there again if it has changed.

    Raises InputError when `root` is not a folder.
    """
    index = load(saved, encode)
    changed = index is None
    index = index or ProjectIndex(encode)
    if index.refresh(root, limits) or changed:
        save(index, saved)
    return index


class _Reader:
    """A saved index that is being read, each part to the place where it stays."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = cast("BufferedIOBase", file)
        self._left = size
        self._digest = hashlib.sha256()

    def index(self, encode: Encode | None) -> ProjectIndex | None:
        """Return the index; None if the file is damaged or of another version."""
        if self._bytes(len(_MAGIC)) != _MAGIC:
            return None
        digest, line = self._bytes(_DIGEST), self._line()
        if digest != hashlib.sha256(line).digest():
            return None
        header = json.loads(line)
        sizes = [rows * np.dtype(kind).itemsize for _, kind, rows in header["arrays"]] + header["sizes"]
        if sum(sizes) + _DIGEST != self._left:
            return None
        index = self._read(header, encode)
        return index if self._file.read(_DIGEST) == self._digest.digest() else None

    def _bytes(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= size
        self._digest.update(data)
        return data

    def _line(self) -> bytes:
        line = self._file.readline()
        self._left -= len(line)
        self._digest.update(line)
        return line

    def _array(self, name: str, kind: str, rows: int) -> NDArray[Any]:
        from infill.context.index_arrays import Table

        array: NDArray[Any] = np.zeros(Table.room(name, rows), kind)
        part = array[:rows].view(np.uint8).data
        self._file.readinto(part)
        self._digest.update(part)
        return array

    def _read(self, header: dict[str, Any], encode: Encode | None) -> ProjectIndex:
        from infill.context.index_arrays import BlockSpan, Table

        table = Table.restored({name: self._array(name, kind, rows) for name, kind, rows in header["arrays"]})
        index, files = ProjectIndex(encode), dict[str, File]()
        for (path, number, *span), stamp, size in zip(header["files"], header["stamps"], header["sizes"], strict=True):
            files[path] = File(number, self._bytes(size), BlockSpan(*span))
            if stamp:
                index.stamps[path] = Stamp(*stamp)
        index.restore(table, files)
        return index
