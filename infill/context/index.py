"""The files of a project with an inverted index over them, kept up to date one file at a time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np

from infill.context.files import LeftOut, Limits, Source, Stamp, read, source_at, sources
from infill.context.identity import Current
from infill.context.layout import Layout
from infill.file_kinds import why_not_source
from infill.prompt import ContextItem, Encode

if TYPE_CHECKING:
    from infill.context.table import Array, Span

MAX_FILE_BYTES: Final = 2_000_000
"""A larger text is left out."""


class File(NamedTuple):
    number: int
    data: bytes
    span: "Span"


class ProjectIndex:
    """Blocks and windows of all files with their identifiers and lines; for one thread at a time.

    What a query finds depends on the files alone, not on the order in which they came.
    """

    def __init__(self, encode: Encode | None = None) -> None:
        from infill.context.table import Table  # imports numba, which takes half a second

        self.encode = encode
        """The tokenizer for the ranking by BPE tokens; without one that compares identifiers."""
        self.table = Table()
        self.files: dict[str, File] = {}
        self.paths: list[str] = []
        """Path by number of the file; empty for a number that is free."""
        self.left_out = LeftOut()
        """What the index does not hold, and why."""
        self.stamps: dict[str, Stamp] = {}
        """Of the files that came from a folder: what they looked like when they were read."""
        self._token_sets: dict[str, tuple[Array, Array]] = {}
        self.free_numbers: list[int] = []
        self._layout: Layout | None = None

    @classmethod
    def from_documents(cls, documents: Iterable[tuple[str, str]], encode: Encode | None = None) -> Self:
        """The index of (path, text) pairs; a later pair replaces an earlier one of the same path."""
        index = cls(encode)
        for path, text in documents:
            index.update(path, text)
        index.table.squeeze()
        return index

    @classmethod
    def from_repository(cls, root: str | Path, encode: Encode | None = None, limits: Limits | None = None) -> Self:
        """The index of the source files in a folder; `left_out` says what is not in it.

        Raises InputError when `root` is no folder.
        """
        index = cls(encode)
        index.refresh(root, limits)
        index.table.squeeze()
        return index

    def __len__(self) -> int:
        return len(self.files)

    def refresh(self, root: str | Path, limits: Limits | None = None) -> int:
        """Bring the index up to date with a folder; the number of files that were read, or removed as gone.

        Only files whose size, time or inode differ from the last look are read.
        """
        return sum(1 for _ in self.refreshing(root, limits))

    def refreshing(self, root: str | Path, limits: Limits | None = None) -> Iterator[str]:
        """As `refresh`, one file at a time: yield its path. In between the index may be asked and changed."""
        root, limits, self.left_out = Path(root), limits or Limits(), LeftOut()
        gone = set(self.files)
        for source in sources(root, limits, self.left_out):
            if self.stamps.get(source.path) == source.stamp and source.path in self.files:
                gone.discard(source.path)
                continue
            found = read(root, source, limits)
            if isinstance(found, str):
                self.left_out.add(found, source.path)
                continue
            gone.discard(source.path)
            data, self.stamps[source.path] = found
            self.update(source.path, data)
            yield source.path
        for path in gone:
            self.remove(path)
            yield path

    def refresh_file(self, root: str | Path, path: str, limits: Limits | None = None) -> None:
        """Bring the index up to date with one file of a folder, which may have come, changed or gone."""
        root, limits = Path(root), limits or Limits()
        source = source_at(root, path, limits)
        if isinstance(source, Source) and path not in self.files and len(self.files) >= limits.files:
            source = f"beyond {limits.files:,} files"
        text = source if isinstance(source, str) else read(root, source, limits)
        if isinstance(text, str):
            self.remove(path)
            return
        data, self.stamps[path] = text
        self.update(path, data)

    def update(self, path: str, text: str | bytes) -> None:
        """Add `path`, or replace its text. What is not source, or above MAX_FILE_BYTES, is left out with the reason."""
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
            self.table.drop(old.span)
            self._token_sets.pop(path, None)
        number = self._number(path) if old is None else old.number
        self.files[path] = File(number, data, self.table.add(data, number))

    def tokenize_with(self, encode: Encode | None) -> None:
        """Rank by the tokens of another tokenizer from now on."""
        if encode != self.encode:
            self.encode = encode
            self._token_sets.clear()

    def remove(self, path: str) -> None:
        """Forget `path`; a path that is not there is fine."""
        self.stamps.pop(path, None)
        file = self.files.pop(path, None)
        if file is not None:
            self.table.drop(file.span)
            self._token_sets.pop(path, None)
            self.paths[file.number] = ""
            self.free_numbers.append(file.number)
            self._layout = None

    @contextmanager
    def without(self, path: str, text: str = "") -> Iterator[None]:
        """Inside, the index does not hold the current file `path`, which the request itself shows, nor a copy of it.

        Else its frequencies would count what stands in the hole, which no request holds when the model is served.
        `text` is the file's where the index may hold it under another name.
        """
        removed = {each: self.files[each] for each in self._same(Current(path, text))}
        for each in removed:
            self.remove(each)
        try:
            yield
        finally:
            for each, file in removed.items():
                self.update(each, file.data)

    def _same(self, current: Current) -> set[str]:
        """Return the files that are the current one or have its text."""
        named = current.named_in(self.files)
        texts = [current, *(Current(path, self.text(path)) for path in named)]
        return named | {path for path, file in self.files.items() if any(each.has_text(file.data) for each in texts)}

    def text(self, path: str) -> str:
        """The text of a file."""
        return self.files[path].data.decode(errors="replace")

    def item(self, first: int, count: int, *, score: float = 0.0, strategy: str = "") -> ContextItem:
        """The text of `count` neighbouring blocks of a file from number `first` on, with where it stands."""
        table, path = self.table, self.paths[self.table.file.item(first)]
        begin, last = table.byte.item(first), first + count - 1
        text = self.files[path].data[begin : table.byte.item(last) + table.size.item(last)].decode(errors="replace")
        line = table.line.item(first) + 1
        lines = text.count("\n") + (not text.endswith("\n"))
        return ContextItem(
            path=path, text=text, first_line=line, last_line=line + lines - 1, score=score, strategy=strategy
        )

    def holds(self, item: ContextItem) -> bool:
        """Whether the item's file still has its text."""
        file = self.files.get(item.path)
        return file is not None and item.text.encode(errors="replace") in file.data

    def windows(self, path: str) -> range:
        """Numbers of the windows of a file: a window is two neighbouring blocks, or the only one."""
        first, count = self.files[path].span
        return range(first, first + max(count - 1, min(count, 1)))

    def width(self, window: int) -> int:
        """Blocks of a window: one or two."""
        return min(self.files[self.paths[self.table.file[window]]].span.blocks, 2)

    def token_set(self, data: bytes) -> "Array":
        """The distinct BPE tokens of a text, sorted; hashes of its identifiers when the index has no tokenizer."""
        if self.encode is not None:
            return np.unique(np.array(self.encode(data.decode(errors="replace")), np.int32))
        from infill.context import kernels

        return np.unique(kernels.occurrences(*self.table.lexer(data))[1])

    def window_ious(self, path: str, wanted: "Array") -> "Array":
        """Of each window of a file the IoU of its `token_set` with the set `wanted`."""
        sets, ends = self._window_sets(path)
        shared = np.diff(np.append(0, np.isin(sets, wanted).cumsum())[ends])
        ious: Array = shared / np.maximum(np.diff(ends) + len(wanted) - shared, 1)
        return ious

    def _window_sets(self, path: str) -> tuple["Array", "Array"]:
        """The `token_set` of each window one behind the other, and where each ends, a 0 before; kept until the file
        changes."""
        file = self.files[path]
        if path not in self._token_sets:
            table, (first, count) = self.table, file.span
            bounds = [(int(table.byte[block]), int(table.size[block])) for block in range(first, first + count)]
            blocks = [self.token_set(file.data[start : start + size]) for start, size in bounds]
            sets = [np.union1d(a, b) for a, b in pairwise(blocks)] if count > 1 else blocks
            self._token_sets[path] = np.concatenate([*sets, self.token_set(b"")]), np.cumsum([0, *map(len, sets)])
        return self._token_sets[path]

    def idf(self, terms: "Array") -> "Array":
        """log(1 + (N - n + 0.5) / (n + 0.5)) with n of N blocks holding the term (BM25's idf in Lucene's form)."""
        seen = self.table.lengths[terms]
        return np.log1p((self.table.live_blocks - seen + 0.5) / (seen + 0.5))

    @property
    def layout(self) -> Layout:
        """What the paths say. Made when first asked for after a file came or went."""
        if self._layout is None:
            self._layout = Layout(tuple(self.paths))
        return self._layout

    def _number(self, path: str) -> int:
        self._layout = None
        if self.free_numbers:
            number = self.free_numbers.pop()
            self.paths[number] = path
            return number
        self.paths.append(path)
        return len(self.paths) - 1
