"""The inverted index of a project's files, kept up to date one file at a time."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

import numpy as np

from infill.context.files import ContextFile, IndexLimits, LeftOut, Stamp, read, source_at, sources
from infill.context.identity import Current, normalised
from infill.context.project_paths import ProjectPaths
from infill.context.signatures import Signatures
from infill.file_kinds import why_not_source
from infill.prompt import ContextItem, Encode

if TYPE_CHECKING:
    from infill.context.index_arrays import Array, BlockSpan, Hidden, Table

MAX_FILE_BYTES: Final = 2_000_000
"""A larger text is left out."""
FILE_MEMORY: Final = 600
"""Bytes that a file takes besides its text, its path and its rows in the table, with all caches of its path."""
T = TypeVar("T")


class File(NamedTuple):
    number: int
    data: bytes
    span: "BlockSpan"


class HiddenFile(NamedTuple):
    """A file that is left out for a while."""

    file: File
    blocks: "Hidden"


class ProjectIndex:
    """An index of the blocks and windows of all files, with their identifiers and lines; for one thread at a time.

    The result of a query depends only on the files, not on the order in which they were added.
    """

    def __init__(self, encode: Encode | None = None) -> None:
        from infill.context.index_arrays import Table  # imports numba, which takes half a second

        self.encode = encode
        """The tokenizer of the strategy `rag`; without one, `rag` compares identifiers."""
        self._table = Table()
        self.files: dict[str, File] = {}
        self.paths: list[str] = []
        """Path by file number; empty for a free number."""
        self.left_out = LeftOut()
        """Files that are not in the index, by reason."""
        self.stamps: dict[str, Stamp] = {}
        """Stamps, from before they were read, of the files that came from a folder."""
        self.text_bytes = 0
        """Bytes of all texts and paths."""
        self._token_sets: dict[str, tuple[Array, Array]] = {}
        self._token_bytes = 0
        self._signatures = Signatures()
        self.free_numbers: list[int] = []
        self.last_paths: list[str] = []
        """Path by file number, of a free number the last one, so that a file that comes back changes nothing here."""
        self._project_paths: ProjectPaths | None = None
        self._last: tuple[Hashable, Any] | None = None
        """Key and value of the last call of `remembered`."""
        self.changes = 0
        """The number of changes so far of files and of what is kept of them, also by queries."""

    @classmethod
    def from_documents(cls, documents: Iterable[tuple[str, str]], encode: Encode | None = None) -> Self:
        """Return the index of (path, text) pairs; a later pair replaces an earlier one of the same path."""
        index = cls(encode)
        for path, text in documents:
            index.update(path, text)
        index.table.squeeze()
        return index

    @classmethod
    def from_repository(
        cls,
        root: str | Path,
        encode: Encode | None = None,
        limits: IndexLimits | None = None,
        near: Sequence[str] = (),
    ) -> Self:
        """Return the index of the source files in a folder; its `left_out` names the other files.

        Under a limit, the files nearest to those in `near` stay. Raises InputError when `root` is not a folder.
        """
        index = cls(encode)
        index.refresh(root, limits, near)
        index.table.squeeze()
        return index

    def __len__(self) -> int:
        return len(self.files)

    @property
    def table(self) -> "Table":
        """The arrays, ready for a query."""
        self._table.settle()
        return self._table

    @property
    def blocks(self) -> int:
        """The number of blocks of all files."""
        return self._table.live_blocks

    @property
    def memory(self) -> int:
        """The bytes of memory that the index takes, an upper bound within a few per cent."""
        others = self.text_bytes + self._token_bytes + self._signatures.memory
        return self._table.memory + others + FILE_MEMORY * len(self.paths)

    def refresh(self, root: str | Path, limits: IndexLimits | None = None, near: Sequence[str] = ()) -> int:
        """Bring the index up to date with a folder; return the number of files that were read or removed.

        Only files whose size, time or inode has changed are read.
        """
        return sum(1 for _ in self.refreshing(root, limits, near))

    def refreshing(
        self, root: str | Path, limits: IndexLimits | None = None, near: Sequence[str] = ()
    ) -> Iterator[str]:
        """Bring the index up to date as `refresh` does, and yield the path of each file that was read or removed.

        Between two files the index may be queried and changed. Files near those in `near`, paths that were recently
        opened, come first; under a limit they stay.
        """
        root, limits, self.left_out = Path(root), limits or IndexLimits(), LeftOut()
        gone = set(self.files)
        for source in sources(root, limits, self.left_out, near):
            if self.stamps.get(source.path) == source.stamp and source.path in self.files:
                gone.discard(source.path)
                continue
            text = read(root, source, limits)
            if isinstance(text, str):
                self.left_out.add(text, source.path)
                continue
            gone.discard(source.path)
            data, self.stamps[source.path] = text
            self.update(source.path, data)
            yield source.path
        for path in gone:
            self.remove(path)
            yield path

    def refresh_file(self, root: str | Path, path: str, limits: IndexLimits | None = None) -> None:
        """Bring the index up to date with one file of a folder, which may be new, changed or removed."""
        root, limits = Path(root), limits or IndexLimits()
        source = source_at(root, path, limits)
        if isinstance(source, ContextFile) and path not in self.files and len(self.files) >= limits.files:
            source = f"beyond {limits.files:,} files"
        text = source if isinstance(source, str) else read(root, source, limits)
        if isinstance(text, str):
            self.remove(path)
            return
        data, self.stamps[path] = text
        self.update(path, data)

    def update(self, path: str, text: str | bytes, *, passing: bool = False) -> None:
        """Add `path`, or replace its text. A file that is not source, or too large, is only added to `left_out`.

        `passing` says that the text comes and goes with each query, so that it is not read each time.
        """
        data = text if isinstance(text, bytes) else text.encode(errors="replace")
        old = self.files.get(path)
        if old is not None and old.data == data:
            return
        why = why_not_source(path) or (f"larger than {MAX_FILE_BYTES:,} bytes" if len(data) > MAX_FILE_BYTES else None)
        if why:
            self.remove(path)
            self.left_out.add(why, path)
            return
        if old is not None:
            self._drop(path, old)
        number = self._number(path) if old is None else old.number
        self._enter(path, File(number, data, self._table.add(data, number, passing=passing)))

    def restore(self, table: "Table", files: Mapping[str, File]) -> None:
        """Take a table and the files whose blocks it has, in an empty index that is being loaded."""
        self._table = table
        self.paths = [""] * (1 + max((file.number for file in files.values()), default=-1))
        for path, file in files.items():
            self.paths[file.number] = path
            self._enter(path, file)
        self.last_paths = [*self.paths]
        self.free_numbers = [number for number, path in enumerate(self.paths) if not path]

    def _enter(self, path: str, file: File) -> None:
        self._last = None
        self.changes += 1
        self.files[path] = file
        self._signatures.put(file.number, path, file.data)
        self.text_bytes += len(file.data) + len(path)

    def tokenize_with(self, encode: Encode | None) -> None:
        """Use another tokenizer for the strategy `rag` from now on."""
        if encode != self.encode:
            self.encode = encode
            self._token_sets.clear()
            self._token_bytes = 0

    def remove(self, path: str) -> None:
        """Remove `path` from the index, if it is there."""
        self.stamps.pop(path, None)
        file = self.files.pop(path, None)
        if file is not None:
            self._drop(path, file)
            self.paths[file.number] = ""
            self._signatures.drop(file.number)
            self.free_numbers.append(file.number)

    def _drop(self, path: str, file: File) -> None:
        self._table.drop(file.span)
        self._forget(path, file)

    def _forget(self, path: str, file: File) -> None:
        self._last = None
        self.changes += 1
        self.text_bytes -= len(file.data) + len(path)
        self._token_bytes -= sum(array.nbytes for array in self._token_sets.pop(path, ()))

    @contextmanager
    def without(self, path: str, text: str = "") -> Iterator[None]:
        """Remove the current file `path` and its copies from the index for the length of the block.

        Otherwise frequencies would include the text in the hole, which is unknown when the model is served. `text` is
        the file's text, if the index may have it under another name.
        """
        hidden = {each: self.hide(each) for each in self.same(Current(path, text))}
        try:
            yield
        finally:
            for each, file in reversed(hidden.items()):
                self.show(each, file)

    def hide(self, path: str) -> HiddenFile:
        """Remove a file until `show`; its number is not free meanwhile, and no text may be added."""
        file = self.files.pop(path)
        self._forget(path, file)
        self.paths[file.number] = ""
        self._signatures.drop(file.number)
        return HiddenFile(file, self._table.hide(file.span))

    def show(self, path: str, hidden: HiddenFile) -> None:
        """Put a file back that `hide` has removed."""
        if path in self.files:
            self.remove(path)
        self.paths[hidden.file.number] = path
        self._enter(path, hidden.file)
        self._table.show(hidden.blocks)

    def same(self, current: Current) -> set[str]:
        """Return the paths of the current file and of files with its text, or with that of a file of its name."""
        named = current.named_in(self.paths[number] for number in self._signatures.named(normalised(current.path)))
        copies = (self.copies(Current(path, self.text(path))) for path in named)
        return named.union(self.copies(current), *copies)

    def copies(self, current: Current) -> set[str]:
        """Return the paths of files with the text of the current one."""
        likely = (self.paths[number] for number in self._signatures.alike(current.data, current.sizes))
        return {path for path in likely if current.has_text(self.files[path].data)}

    def text(self, path: str) -> str:
        """Return the text of a file."""
        return self.files[path].data.decode(errors="replace")

    def block_texts(self, path: str) -> list[str]:
        """Return the text of a file and the texts of its blocks; none if there is no such file."""
        if (file := self.files.get(path)) is None:
            return []
        rows = slice(file.span.first, file.span.first + file.span.blocks)
        bounds = zip(self.table.byte[rows].tolist(), self.table.size[rows].tolist(), strict=True)
        texts = (file.data[begin : begin + size] for begin, size in bounds)
        return [text.decode(errors="replace") for text in (file.data, *texts)]

    def remembered(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what `compute` returns, from the last time if the `key` was the same and no file has changed since."""
        last = self._last
        if last is None or last[0] != key:
            self._last = last = key, compute()
        result: T = last[1]
        return result

    def item(self, first: int, count: int, *, score: float = 0.0, strategy: str = "") -> ContextItem:
        """Return `count` neighbouring blocks of a file, from block `first` on, as one context item."""
        table, last = self.table, first + count - 1
        end = table.byte.item(last) + table.size.item(last)
        rows = [[table.file.item(first), table.byte.item(first), end, table.line.item(first), -1]]
        return self.parts(rows, [score], strategy)[0]

    def parts(self, rows: Sequence[Sequence[int]], scores: Sequence[float], strategy: str) -> list[ContextItem]:
        """Return parts of files as context items.

        A row has number of the file, first byte, end, line and end line (from 0; if it is -1, the lines are counted).
        """
        items, paths, files, new = [], self.paths, self.files, object.__new__
        for (file, begin, end, line, end_line), score in zip(rows, scores, strict=True):
            path = paths[file]
            text = files[path].data[begin:end].decode(errors="replace")
            last = end_line if end_line >= 0 else line + text.count("\n") + (text[-1:] != "\n")
            item = new(ContextItem)  # a query makes dozens, and `__init__` of a frozen class takes five times as long
            fields = item.__dict__
            fields["path"], fields["text"] = path, text
            fields["first_line"], fields["last_line"] = line + 1, last
            fields["score"], fields["strategy"] = score, strategy
            items.append(item)
        return items

    def holds(self, item: ContextItem) -> bool:
        """Return whether the item's file still contains its text."""
        file = self.files.get(item.path)
        return file is not None and item.text.encode(errors="replace") in file.data

    def windows(self, path: str) -> range:
        """Return the numbers of a file's windows: a window is two neighbouring blocks, or the only block."""
        first, count = self.files[path].span
        return range(first, first + max(count - 1, min(count, 1)))

    def width(self, window: int) -> int:
        """Return the number of blocks of a window: one or two."""
        return min(self.files[self.paths[self.table.file[window]]].span.blocks, 2)

    def token_set(self, data: bytes) -> "Array":
        """Return the distinct BPE tokens of a text, sorted; without a tokenizer, hashes of its identifiers."""
        if self.encode is not None:
            return np.unique(np.array(self.encode(data.decode(errors="replace")), np.int32))
        from infill.context import kernels

        return np.unique(kernels.occurrences(*self._table.lexer(data))[1])

    def window_ious(self, path: str, wanted: "Array") -> "Array":
        """Return the IoU of the `token_set` of each window of a file with the set `wanted`."""
        sets, ends = self._window_sets(path)
        shared = np.diff(np.append(0, np.isin(sets, wanted).cumsum())[ends])
        ious: Array = shared / np.maximum(np.diff(ends) + len(wanted) - shared, 1)
        return ious

    def _window_sets(self, path: str) -> tuple["Array", "Array"]:
        """Return the `token_set`s of a file's windows in one array, and their bounds (0 first); cached per file."""
        file = self.files[path]
        if path not in self._token_sets:
            table, (first, count) = self.table, file.span
            bounds = [(int(table.byte[block]), int(table.size[block])) for block in range(first, first + count)]
            blocks = [self.token_set(file.data[start : start + size]) for start, size in bounds]
            sets = [np.union1d(a, b) for a, b in pairwise(blocks)] if count > 1 else blocks
            cached = np.concatenate([*sets, self.token_set(b"")]), np.cumsum([0, *map(len, sets)])
            self._token_sets[path] = cached
            self._token_bytes += sum(array.nbytes for array in cached)
            self.changes += 1
        return self._token_sets[path]

    def idf(self, terms: "Array") -> "Array":
        """Return log(1 + (N - n + 0.5) / (n + 0.5)) for terms in n of N blocks (BM25's idf in Lucene's form)."""
        seen = self.table.lengths[terms]
        return np.log1p((self.table.live_blocks - seen + 0.5) / (seen + 0.5))

    @property
    def project_paths(self) -> ProjectPaths:
        """The paths by file number, also those of removed files; extended after another file was added."""
        if self._project_paths is None:
            self._project_paths = ProjectPaths(tuple(self.last_paths))
        elif len(self._project_paths) < len(self.last_paths):
            self._project_paths = self._project_paths.extended(tuple(self.last_paths))
        return self._project_paths

    def _number(self, path: str) -> int:
        if self.free_numbers:
            number = self.free_numbers.pop()
            self.paths[number] = path
        else:
            number = len(self.paths)
            self.paths.append(path)
            self.last_paths.append(path)
        if self.last_paths[number] != path:
            self.last_paths[number] = path
            self._project_paths = None
        return number
