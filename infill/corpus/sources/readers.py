"""Read the files of a repository in a folder, a Git repository, an archive or a table."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from infill.config import CorpusConfig
from infill.corpus.sources import archives, folders, git, tables
from infill.corpus.sources.listing import SourceFile

DEFAULTS: Final = CorpusConfig()
Read = Callable[[SourceFile], bytes]
"""Returns the content of a file; raises UnreadableError with the reason if it cannot be read."""


def reader(root: str, files: Sequence[SourceFile], config: CorpusConfig = DEFAULTS) -> Read:
    """Return a function that reads `files`, each once, below `root`, the root of their repository."""
    if root.startswith(git.PREFIX):
        return git.reader(root)
    if root.startswith(archives.PREFIX):
        return archives.reader(root, files, config)
    if root.startswith(tables.PREFIX):
        return tables.reader(root, files, config)
    return partial(folders.read, root)
