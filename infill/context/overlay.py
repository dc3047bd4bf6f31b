"""An index as one query sees it: with unsaved texts in the place of files, and without the current file.

Between two keystrokes neither changes much, so what a query needs stays in the index until another one needs something
else, or until `lift`.
"""

from collections.abc import Collection, Mapping

from infill.context.identity import Current
from infill.context.index import HiddenFile, ProjectIndex
from infill.prompt import ContextItem


class Overlay:
    """The changes of an index for queries; for one thread at a time. Nothing else may change the index meanwhile."""

    def __init__(self, index: ProjectIndex) -> None:
        self.index = index
        self._texts: dict[str, str] = {}
        """The unsaved texts."""
        self._own: dict[str, bytes | None] = {}
        """The saved text of each file with an unsaved one; None if the index has no such file."""
        self._hidden: dict[str, HiddenFile] = {}
        """The current file and its copies."""
        self._path: str | None = None
        """The path of the current file; None without one."""
        self._same = frozenset[str]()
        """The files that are the current one whatever its text is."""

    def show(self, texts: Mapping[str, str], current: Current | None = None) -> None:
        """Make the index what a query sees, by as few changes as possible."""
        path = current.path if current else None
        if texts != self._texts or path != self._path:
            self._reveal(self._hidden)
            self._put(texts)
            self._path, self._same = path, frozenset(self.index.same(Current(path)) if path is not None else ())
        same = set(self._same)
        if current is not None:
            hidden = self._hidden.keys() - same
            same.update(self.index.copies(current), (each for each in hidden if current.has_text(self._text(each))))
        self._reveal(self._hidden.keys() - same)
        for each in same - self._hidden.keys():
            self._hidden[each] = self.index.hide(each)

    def lift(self) -> None:
        """Make the index what it is by itself."""
        self.show({})

    def holds(self, item: ContextItem) -> bool:
        """Return whether the item's file, which may be the current one, still contains its text."""
        if item.path not in self._hidden:
            return self.index.holds(item)
        return item.text.encode(errors="replace") in self._text(item.path)

    def _text(self, path: str) -> bytes:
        """Return the text of a hidden file."""
        return self._hidden[path].file.data

    def _reveal(self, paths: Collection[str]) -> None:
        for path in [path for path in reversed(self._hidden) if path in paths]:
            self.index.show(path, self._hidden.pop(path))

    def _put(self, texts: Mapping[str, str]) -> None:
        """Put unsaved texts in the place of the former ones."""
        for path in [path for path, text in reversed(self._texts.items()) if texts.get(path) != text]:
            if (own := self._own[path]) is None:
                self.index.remove(path)
            else:
                self.index.update(path, own, passing=True)
            del self._texts[path], self._own[path]
        for path, text in texts.items():
            if path not in self._texts:
                file = self.index.files.get(path)
                self._texts[path], self._own[path] = text, file and file.data
                self.index.update(path, text, passing=True)
