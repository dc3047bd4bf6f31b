"""An index on disk; one that is damaged or of another version is built again."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from infill import storage
from infill.context.files import IndexLimits, Stamp
from infill.context.index import File, ProjectIndex
from infill.prompt import Encode

VERSION: Final = 1
"""Increased when the meaning of the arrays of `Table`, or of the kernels' results in them, changes."""
_MAGIC: Final = f"infill index {VERSION}\n".encode()
_DIGEST: Final = 32
_TABLE: Final = "table."


def save(index: ProjectIndex, uri: str) -> None:
    """Write the index to one file: a line with the version, the SHA-256 of the rest, and the arrays as NumPy's npz."""
    order = sorted(index.files)
    files = [
        {
            "path": path,
            "number": index.files[path].number,
            "span": index.files[path].span,
            "stamp": index.stamps.get(path),
        }
        for path in order
    ]
    data = [index.files[path].data for path in order]
    arrays = {_TABLE + name: array for name, array in index.table.saved().items()} | {
        "files": np.frombuffer(json.dumps(files).encode(), np.uint8),
        "texts": np.frombuffer(b"".join(data), np.uint8),
        "sizes": np.array([len(each) for each in data], np.int64),
    }
    body = io.BytesIO()
    np.savez(body, allow_pickle=False, **arrays)
    content = body.getvalue()
    storage.write_bytes(uri, _MAGIC + hashlib.sha256(content).digest() + content)


def load(uri: str, encode: Encode | None = None) -> ProjectIndex | None:
    """Return the index saved at `uri`; None if there is none, or it is damaged or of another version."""
    if not storage.exists(uri):
        return None
    content = storage.read_bytes(uri)
    start = len(_MAGIC) + _DIGEST
    if content[: len(_MAGIC)] != _MAGIC or hashlib.sha256(content[start:]).digest() != content[len(_MAGIC) : start]:
        return None
    with np.load(io.BytesIO(content[start:]), allow_pickle=False) as archive:
        arrays = dict(archive)
    return _restored(arrays, encode)


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


def _restored(arrays: dict[str, Any], encode: Encode | None) -> ProjectIndex:
    from infill.context.index_arrays import BlockSpan, Table

    index = ProjectIndex(encode)
    index.table = Table.restored({name.removeprefix(_TABLE): array for name, array in arrays.items()})
    files = json.loads(arrays["files"].tobytes())
    ends = np.cumsum(arrays["sizes"])
    texts = arrays["texts"].tobytes()
    index.paths = [""] * (1 + max((file["number"] for file in files), default=-1))
    for file, size, end in zip(files, arrays["sizes"].tolist(), ends.tolist(), strict=True):
        path, number = file["path"], file["number"]
        index.files[path] = File(number, texts[end - size : end], BlockSpan(*file["span"]))
        index.paths[number] = path
        if file["stamp"]:
            index.stamps[path] = Stamp(*file["stamp"])
    index.text_bytes = len(texts) + sum(map(len, index.files))
    index.last_paths = [*index.paths]
    index.free_numbers = [number for number, path in enumerate(index.paths) if not path]
    return index
