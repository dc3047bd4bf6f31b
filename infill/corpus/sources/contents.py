"""Reading the files of a repository, whatever it lies in."""

from collections.abc import Callable
from functools import partial

from infill.corpus.sources import folders, git
from infill.corpus.sources.listing import SourceFile

Read = Callable[[SourceFile], bytes]
"""Gives the content of a file; raises UnreadableError with the reason when there is none."""


def reader(root: str) -> Read:
    """Return what reads the files of repositories with this root."""
    if root.startswith(git.PREFIX):
        return git.reader(root)
    return partial(folders.read, root)
