"""The paths of a project: their order, the distance between files, and the files that imports name."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from infill.context.similarity import path_distance

MAX_FOLDERS: Final = 16
"""Folders from which the distances to all files are cached."""
_FOLDER_FILES = frozenset({"__init__", "index", "mod", "lib", "main"})
"""Files that an import names by their folder."""


class ProjectPaths:
    """The paths of an index by file number; replaced when a file is added or removed."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._distances: dict[str, NDArray[np.float64]] = {}

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """The rank of each path in alphabetical order, which decides ties."""
        ranks = np.empty(len(self._paths), np.int64)
        ranks[sorted(range(len(self._paths)), key=self._paths.__getitem__)] = np.arange(len(self._paths))
        return ranks

    @cached_property
    def stems(self) -> dict[str, list[int]]:
        """The numbers of the files with each stem (see `stem`)."""
        files = defaultdict(list)
        for number, path in enumerate(self._paths):
            files[stem(path)].append(number)
        return files

    def distances(self, path: str) -> NDArray[np.float64]:
        """Return the directory hops from `path` to each file."""
        folder = path.rpartition("/")[0]
        if folder not in self._distances:
            if len(self._distances) >= MAX_FOLDERS:
                del self._distances[next(iter(self._distances))]
            hops = {each: path_distance(path, f"{each}/x" if each else "x") for each in self._folders}
            self._distances[folder] = np.array([hops[each] for each in self._folder_of], np.float64)
        return self._distances[folder]

    @cached_property
    def _folder_of(self) -> list[str]:
        return [path.rpartition("/")[0] for path in self._paths]

    @cached_property
    def _folders(self) -> set[str]:
        return set(self._folder_of)


def stem(path: str) -> str:
    """Return the word by which an import would name this file."""
    folder, _, file = path.rpartition("/")
    name = file.partition(".")[0]
    return folder.rpartition("/")[2] if name in _FOLDER_FILES else name
