"""The files of a project, cut into windows, with what the strategies need to rank them."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Self

from infill.context.chunks import Chunking, Window, windows
from infill.context.similarity import IDENTIFIER
from infill.prompt import Encode


class ProjectIndex:
    """Windows of all files with their identifiers. Files are added, changed and removed one at a time."""

    def __init__(self, encode: Encode | None = None, chunking: Chunking | None = None) -> None:
        self.encode = encode
        self.chunking = chunking or Chunking()
        self.files: dict[str, list[str]] = {}
        self.windows: dict[str, list[tuple[Window, frozenset[str]]]] = {}
        self.frequency: Counter[str] = Counter()

    @classmethod
    def from_documents(
        cls, documents: Iterable[tuple[str, str]], encode: Encode | None = None, chunking: Chunking | None = None
    ) -> Self:
        """The index of (path, text) pairs; a later pair replaces an earlier one of the same path."""
        index = cls(encode, chunking)
        for path, text in documents:
            index.update(path, text)
        return index

    def update(self, path: str, text: str) -> None:
        """Add `path`, or replace its text."""
        self.remove(path)
        lines = text.splitlines(keepends=True)
        cut = []
        for window in windows(len(lines), self.chunking):
            names = frozenset(IDENTIFIER.findall("".join(lines[window.first - 1 : window.last])))
            self.frequency.update(names)
            cut.append((window, names))
        self.files[path], self.windows[path] = lines, cut

    def remove(self, path: str) -> None:
        """Forget `path`; a path that is not there is fine."""
        self.files.pop(path, None)
        for _, names in self.windows.pop(path, ()):
            self.frequency.subtract(names)

    def text(self, path: str, window: Window | None = None) -> str:
        """The file's text, or that of a window of it."""
        lines = self.files[path]
        return "".join(lines[window.first - 1 : window.last] if window else lines)

    def idf(self, name: str) -> float:
        """log(1 + (N - df + 0.5) / (df + 0.5)) over the windows (Lucene's form of BM25)."""
        count = sum(map(len, self.windows.values()))
        seen = self.frequency[name]
        return math.log1p((count - seen + 0.5) / (seen + 0.5))
