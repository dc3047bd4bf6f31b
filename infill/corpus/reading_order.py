"""The order in which the files of a repository are read: what a file imports comes before it.

Imports are resolved by name and place, without a build; a wrong edge makes the order worse, nothing else. Files that
import each other in a circle are in the order of their paths. A file follows directly after what it imports (depth
first, in the order of paths), so that a few consecutive files belong together. The order depends on the paths and
imports of the repository's documents alone.
"""

import itertools
import posixpath
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Steps = tuple[str, ...]
"""The components of a path, without the extension of the file."""

FOLDER_FILES: Final = frozenset({"__init__", "index", "mod", "lib", "main"})
"""Files that an import names by their folder."""
SOURCE_FOLDERS: Final[Sequence[Steps]] = ((), ("src",), ("lib",), ("include",))
"""Folders at the top from which a file may be imported by its bare name."""
END: Final = 3
"""Number of components by whose equality names are looked up."""
MAX_ALIKE: Final = 1_000
"""Number of names with the same last components that are compared further."""
MAX_FILES: Final = 64
"""Files of a folder that is imported as a whole (a package of Go or Java)."""
_FAMILIES: Final = {"cpp": "c", "typescript": "javascript", "tsx": "javascript", "kotlin": "java"}
"""Language -> language that it shares imports with."""


class Importer(NamedTuple):
    """A document, and what it imports."""

    path: str
    language: str
    imports: Sequence[str]
    """The paths that it imports, as `imports.targets` returns them."""


def places(files: Sequence[Importer]) -> list[int]:
    """Return the place of each file in the order; `files` are those of one repository, sorted by path."""
    if not any(file.imports for file in files):
        return list(range(len(files)))
    edges = _Resolver(files).edges()
    order = _depth_first(*_without_cycles(edges))
    result = np.empty(len(files), np.int64)
    result[order] = np.arange(len(files))
    return [int(place) for place in result]


def _without_cycles(edges: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the groups of files that import each other, and the groups that each imports, both in order of path."""
    sources = np.repeat(np.arange(len(edges)), [len(each) for each in edges])
    targets = np.array([number for each in edges for number in each], np.int64)
    graph = coo_array((np.ones(len(targets), np.int8), (sources, targets)), shape=(len(edges), len(edges)))
    _, label = connected_components(graph.tocsr(), connection="strong")
    groups = _grouped(label)
    group_of = {number: place for place, group in enumerate(groups) for number in group}
    above = [
        sorted({group_of[target] for number in group for target in edges[number]} - {place})
        for place, group in enumerate(groups)
    ]
    return groups, above


def _grouped(label: NDArray[np.int32]) -> list[list[int]]:
    """Return the numbers with each label, in the order of their first numbers."""
    groups: dict[int, list[int]] = {}
    for number, name in enumerate(label.tolist()):
        groups.setdefault(name, []).append(number)
    return list(groups.values())


def _depth_first(groups: Sequence[Sequence[int]], above: Sequence[Sequence[int]]) -> list[int]:
    """Return the numbers in `groups`, each group after those that it imports."""
    order: list[int] = []
    entered = [False] * len(groups)
    for start in range(len(groups)):
        pending = [(start, iter(above[start]))] * (not entered[start])
        entered[start] = True
        while pending:
            group, rest = pending[-1]
            following = next((each for each in rest if not entered[each]), None)
            if following is None:
                order += groups[group]
                pending.pop()
            else:
                entered[following] = True
                pending.append((following, iter(above[following])))
    return order


class _Resolver:
    """The files of a repository by what an import may call them, for each family of languages.

    Every look-up takes bounded time: a repository may have a hundred thousand files called `index.js`.
    """

    def __init__(self, files: Sequence[Importer]) -> None:
        self._files = files
        self._families = [_FAMILIES.get(file.language, file.language) for file in files]
        self._folders = [_steps(posixpath.dirname(file.path)) for file in files]
        self._whole: dict[tuple[str, Steps], int] = {}
        """Name of a file -> number."""
        self._by_end: dict[tuple[str, Steps], list[tuple[Steps, int]]] = defaultdict(list)
        """End of a name -> the names that end so, in order, and the files' numbers."""
        self._by_folder: dict[tuple[str, Steps], dict[Steps, list[int]]] = defaultdict(dict)
        """End of a folder's path -> the folders that end so, and the numbers of their files."""
        for number, (file, family) in enumerate(zip(files, self._families, strict=True)):
            for steps in _names(file.path):
                self._whole.setdefault((family, steps), number)
                for end in _ends(steps):
                    self._by_end[family, end].append((steps, number))
            folder = self._folders[number]
            for end in _ends(folder):
                self._by_folder[family, end].setdefault(folder, []).append(number)
        for names in self._by_end.values():
            names.sort()

    def edges(self) -> list[list[int]]:
        """Return the numbers of the files that each file imports, in order."""
        return [
            sorted({other for target in file.imports for other in self._of(number, target)} - {number})
            for number, file in enumerate(self._files)
        ]

    def _of(self, number: int, target: str) -> list[int]:
        if target.startswith("."):
            return self._relative(number, target)
        steps = _steps(target.strip("/"))
        outside = len(steps) if steps and ("." in steps[0] or steps[0] in ("@", "~")) else 1
        for first in range(outside):
            for name in (steps[first:], steps[first:-1]):
                if name and (files := self._nearest(number, name) or self._members(number, name)):
                    return files
        return []

    def _relative(self, number: int, target: str) -> list[int]:
        """Return the file with exactly this name, or with it without its last component, which is then a symbol."""
        steps = _steps(posixpath.normpath(posixpath.join("/".join(self._folders[number]), target)))
        files = [self._whole.get((self._families[number], name)) for name in (steps, steps[:-1])]
        return [file for file in files if file is not None][:1]

    def _nearest(self, number: int, name: Steps) -> list[int]:
        """Return the file whose name ends with `name` and has the most folders in common with file `number`.

        A name of one component must be in the same folder or in one of the sources at the top.
        """
        family, own = self._families[number], self._folders[number]
        if len(name) == 1:
            near = (self._whole.get((family, (*folder, *name))) for folder in (own, *SOURCE_FOLDERS))
            return [file for file in near if file is not None][:1]
        files = self._by_end.get((family, name[-END:]), [])
        if len(name) > END:
            files = [(full, other) for full, other in files[:MAX_ALIKE] if full[-len(name) :] == name]
        place = bisect_left(files, (own,))
        common = max((_common(own, full) for full, _ in files[max(place - 1, 0) : place + 1]), default=0)
        first = bisect_left(files, (own[:common],))
        return [other for _, other in files[first : first + 1]]

    def _members(self, number: int, name: Steps) -> list[int]:
        """Return the files of the folders that end with `name`; a single component is a folder at the top."""
        folders = self._by_folder.get((self._families[number], name[-END:]), {})
        likely = [name] if len(name) == 1 else itertools.islice(folders, MAX_ALIKE)
        ending = (full for full in likely if full in folders and full[-len(name) :] == name)
        return list(itertools.islice((other for full in ending for other in folders[full]), MAX_FILES))


def _steps(path: str) -> Steps:
    return tuple(path.split("/")) if path else ()


def _ends(steps: Steps) -> Iterator[Steps]:
    """Yield the last components of a path, at most END."""
    for size in range(1, min(len(steps), END) + 1):
        yield steps[-size:]


def _names(path: str) -> Iterator[Steps]:
    """Yield what an import may call a file: its path, without its extension, and its folder for an `__init__.py`."""
    *folders, file = path.split("/")
    stem = file.partition(".")[0] or file
    yield (*folders, file)
    if stem != file:
        yield (*folders, stem)
    if stem in FOLDER_FILES and folders:
        yield tuple(folders)


def _common(one: Steps, other: Steps) -> int:
    """Return the number of components that two paths have in common at the start."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
