"""The context index of a repository at any of its commits, kept up to date by what differs between two commits."""

from pathlib import Path
from typing import Final

import pygit2

from infill.config import CorpusConfig
from infill.context import ProjectIndex
from infill.corpus import quality
from infill.corpus.sources import git
from infill.corpus.sources.listing import SourceFile
from infill.foreign import parse

LIMITS: Final = CorpusConfig()


class ParentIndex:
    """An index of one repository's source files at one commit at a time."""

    def __init__(self, root: str) -> None:
        self._repository = git.open_repository(Path(root.removeprefix(git.PREFIX)))
        self._read = git.reader(root)
        self._index = ProjectIndex()
        self._objects: dict[str, str] = {}
        """Object of each file in the index, by path."""

    def at(self, commit: str) -> ProjectIndex:
        """Return the index of the files at `commit`; it changes with the next call.

        Raises UnreadableError if a folder of the commit is missing.
        """
        tree = parse(self._repository.__getitem__, commit).peel(pygit2.Commit).tree_id
        files = {file.path: file for file in git.files_of_tree(self._repository, tree) if _is_source(file)}
        for path in self._objects.keys() - files.keys():
            self._index.remove(path)
            del self._objects[path]
        for path, file in files.items():
            if self._objects.get(path) != file.place:
                self._put(file)
        return self._index

    def _put(self, file: SourceFile) -> None:
        text = quality.read_text(self._read, file)
        if isinstance(text, str):
            self._index.update(file.path, text)
        else:
            self._index.remove(file.path)
        self._objects[file.path] = file.place


def _is_source(file: SourceFile) -> bool:
    return quality.judge_name(file, None, LIMITS) is None
