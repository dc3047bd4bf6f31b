"""Reading the files of a repository, whatever it lies in."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from infill.config import CorpusConfig
from infill.corpus.sources import archives, folders, git, tables
from infill.corpus.sources.listing import SourceFile

DEFAULTS: Final = CorpusConfig()
Read = Callable[[SourceFile], bytes]
"""Gives the content of a file; raises UnreadableError with the reason when there is none."""


def reader(root: str, files: Sequence[SourceFile], config: CorpusConfig = DEFAULTS) -> Read:
    """Return what reads `files`, each once, from the root of their repositories."""
    if root.startswith(git.PREFIX):
        return git.reader(root)
    if root.startswith(archives.PREFIX):
        return archives.reader(root, files, config)
    if root.startswith(tables.PREFIX):
        return tables.reader(root, files, config)
    return partial(folders.read, root)
