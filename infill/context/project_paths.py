"""The paths of a project: their order, the distance between files, and the files that imports name."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_FOLDER_FILES = frozenset({"__init__", "index", "mod", "lib", "main"})
"""Files that an import names by their folder."""

Parts = tuple[str, ...]
"""The names of a folder and of those that contain it, the outermost first."""


class Folders(NamedTuple):
    """All folders, each after the one that contains it and before the next one next to it: all folders in a
    folder are in a row."""

    numbers: dict[Parts, int]
    depths: NDArray[np.int64]
    ends: NDArray[np.int64]
    """Number after the last folder in each folder."""
    of_files: NDArray[np.int64]
    """The folder of each file."""


class ProjectPaths:
    """The paths of an index by file number."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def extended(self, paths: Sequence[str]) -> "ProjectPaths":
        """Return the same for `paths`, which begin with those that are here, with little work for a few more.

        Nobody may use this object afterwards.
        """
        more, added = ProjectPaths(paths), range(len(self), len(paths))
        known = vars(self)
        if "_order" in known:
            # Two sorted parts, which Python's sort merges.
            order = [*self._order, *sorted(added, key=paths.__getitem__)]
            vars(more)["_order"] = sorted(order, key=paths.__getitem__)
        if "stems" in known:
            for number in added:
                self.stems[stem(paths[number])].append(number)
            vars(more)["stems"] = self.stems
        if "folders" in known:
            numbers = [self.folders.numbers.get(_folder(paths[number])) for number in added]
            if None not in numbers:
                of_files = np.append(self.folders.of_files, np.array(numbers, np.int64))
                vars(more)["folders"] = self.folders._replace(of_files=of_files)
        return more

    @cached_property
    def _order(self) -> list[int]:
        """The numbers of the files in alphabetical order of their paths."""
        return sorted(range(len(self._paths)), key=self._paths.__getitem__)

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """The rank of each path in alphabetical order, which decides ties."""
        ranks = np.empty(len(self._paths), np.int64)
        ranks[self._order] = np.arange(len(self._paths))
        return ranks

    @cached_property
    def stems(self) -> defaultdict[str, list[int]]:
        """The numbers of the files with each stem (see `stem`)."""
        files = defaultdict[str, list[int]](list)
        for number, path in enumerate(self._paths):
            files[stem(path)].append(number)
        return files

    @cached_property
    def folders(self) -> Folders:
        """The folders of all files."""
        of_files = [_folder(path) for path in self._paths]
        every = sorted({folder[:size] for folder in set(of_files) for size in range(len(folder) + 1)} or {()})
        numbers = {folder: number for number, folder in enumerate(every)}
        ends = np.arange(1, len(every) + 1)
        for number in range(len(every) - 1, 0, -1):
            outer = numbers[every[number][:-1]]
            ends[outer] = max(ends[outer], ends[number])
        depths = np.array([len(folder) for folder in every], np.int64)
        return Folders(numbers, depths, ends, np.array([numbers[folder] for folder in of_files], np.int64))

    def folder_distances(self, path: str) -> NDArray[np.int64]:
        """Return the directory hops from the file `path`, which may be new, to the files of each folder."""
        folders, (around, depth) = self.folders, self.around(path)
        common = np.zeros(len(folders.depths), np.int64)
        for size, number in enumerate(around.tolist(), 1):
            common[number : folders.ends[number]] = size
        return depth + folders.depths - 2 * common

    def around(self, path: str) -> tuple[NDArray[np.int64], int]:
        """Return the folders that contain the file `path`, the outermost first without the root, and their number.

        Of a file that is new, only the first folders may be here.
        """
        own, numbers = _folder(path), list[int]()
        for size in range(1, len(own) + 1):
            number = self.folders.numbers.get(own[:size])
            if number is None:
                break
            numbers.append(number)
        return np.array(numbers, np.int64), len(own)

    def distances(self, path: str) -> NDArray[np.int64]:
        """Return the directory hops from the file `path` to each file."""
        return self.folder_distances(path)[self.folders.of_files]


def _folder(path: str) -> Parts:
    return tuple(path.split("/")[:-1])


def stem(path: str) -> str:
    """Return the word by which an import would name this file."""
    folder, _, file = path.rpartition("/")
    name = file.partition(".")[0]
    return folder.rpartition("/")[2] if name in _FOLDER_FILES else name
