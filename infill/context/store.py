"""An index on disk; one that is damaged or of another version is built again.

The file is a line with the version, a line with a header in JSON, the arrays that it names, the texts of all files, and
the SHA-256 of all that. An index may have gigabytes, so nothing is copied but what the loaded index keeps.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from infill import storage
from infill.context.files import IndexLimits, Stamp
from infill.context.index import File, ProjectIndex
from infill.prompt import Encode

VERSION: Final = 2
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
        "arrays": [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()],
        "files": [[path, index.files[path].number, *index.files[path].span] for path in order],
        "stamps": [index.stamps.get(path) for path in order],
        "sizes": [len(index.files[path].data) for path in order],
    }
    yield _MAGIC
    yield json.dumps(header).encode() + b"\n"
    for array in arrays.values():
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    for path in order:
        yield index.files[path].data


def load(uri: str, encode: Encode | None = None) -> ProjectIndex | None:
    """Return the index saved at `uri`; None if there is none, or it is damaged or of another version."""
    if not storage.exists(uri):
        return None
    content = storage.read_bytes(uri)
    if not content.startswith(_MAGIC):
        return None
    body = memoryview(content)[:-_DIGEST]
    if hashlib.sha256(body).digest() != content[-_DIGEST:]:
        return None
    return _restored(content, encode)


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


def _restored(content: bytes, encode: Encode | None) -> ProjectIndex:
    from infill.context.index_arrays import BlockSpan, Table

    place = content.index(b"\n", len(_MAGIC)) + 1
    header = json.loads(content[len(_MAGIC) : place])
    arrays: dict[str, NDArray[Any]] = {}
    for name, kind, shape in header["arrays"]:
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(content, kind, count, place).reshape(shape)
        place += count * np.dtype(kind).itemsize
    index = ProjectIndex(encode)
    index.table = Table.restored(arrays)
    files: dict[str, File] = {}
    for (path, number, *span), stamp, size in zip(header["files"], header["stamps"], header["sizes"], strict=True):
        files[path] = File(number, content[place : place + size], BlockSpan(*span))
        place += size
        if stamp:
            index.stamps[path] = Stamp(*stamp)
    index.restore(files)
    return index
