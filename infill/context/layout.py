"""What the paths of a project say: their order, how far apart files are, and which file an import may mean."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from infill.context.similarity import path_distance

_FOLDER_FILES = frozenset({"__init__", "index", "mod", "lib", "main"})
"""Files that an import names by their folder."""


class Layout:
    """The paths of an index by number of the file; made anew when a file comes or goes."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._distances: dict[str, NDArray[np.float64]] = {}

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """The place of each path in alphabetical order, which settles ties."""
        ranks = np.empty(len(self._paths), np.int64)
        ranks[sorted(range(len(self._paths)), key=self._paths.__getitem__)] = np.arange(len(self._paths))
        return ranks

    @cached_property
    def stems(self) -> dict[str, list[int]]:
        """Name of a file without folder and extensions -> the files of that name."""
        found = defaultdict(list)
        for number, path in enumerate(self._paths):
            found[stem(path)].append(number)
        return found

    def distances(self, path: str) -> NDArray[np.float64]:
        """Directory hops from `path` to each file."""
        folder = path.rpartition("/")[0]
        if folder not in self._distances:
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
    """The word by which an import would name this file."""
    name = PurePosixPath(path).name.partition(".")[0]
    return PurePosixPath(path).parent.name if name in _FOLDER_FILES else name
