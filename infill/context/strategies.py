"""Rank the windows or files of a project for a caret: the paper's three strategies and ours."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from infill.context.chunks import Window
from infill.context.index import ProjectIndex
from infill.context.similarity import IDENTIFIER, iou, line_set, path_distance
from infill.errors import InputError
from infill.prompt import ContextItem


@dataclass(frozen=True, kw_only=True)
class Query:
    """Where the caret stands: between `prefix` and `suffix` of the file `path`."""

    path: str
    prefix: str
    suffix: str
    recent: tuple[str, ...] = ()
    """Files that were opened or edited lately, the latest first."""


Scored = tuple[float, str, Window]
NEAREST_FILES: Final = 50
MAX_FILE_LINES: Final = 200


def rank(index: ProjectIndex, query: Query, strategy: str, k: int = 8) -> list[ContextItem]:
    """The `k` best items of `strategy`, best first; ties go to the lower path and line. Never the current file.

    Raises InputError for a strategy that does not exist.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"unknown context strategy {strategy!r}: use one of {', '.join(STRATEGIES)}")
    scored = sorted(STRATEGIES[strategy](index, query), key=lambda hit: (-hit[0], hit[1], hit[2]))
    return [
        ContextItem(
            path=path,
            text=index.text(path, window),
            first_line=window.first,
            last_line=window.last,
            score=score,
            strategy=strategy,
        )
        for score, path, window in scored[:k]
    ]


def _none(index: ProjectIndex, query: Query) -> Iterator[Scored]:  # noqa: ARG001
    return iter(())


def _iou(index: ProjectIndex, query: Query) -> Iterator[Scored]:
    lines = line_set(query.prefix)
    for path, text in index.files.items():
        if path != query.path and path_distance(path, query.path) == 0:
            yield iou(lines, line_set("".join(text))), path, Window(1, min(len(text), MAX_FILE_LINES))


def _path_distance(index: ProjectIndex, query: Query) -> Iterator[Scored]:
    for path, text in index.files.items():
        if path != query.path:
            yield -float(path_distance(path, query.path)), path, Window(1, min(len(text), MAX_FILE_LINES))


def _round_caret(query: Query, lines: int = 20) -> str:
    before, after = query.prefix.splitlines(keepends=True), query.suffix.splitlines(keepends=True)
    return "".join(before[-lines:] + after[:lines])


def _rag(index: ProjectIndex, query: Query) -> Iterator[Scored]:
    others = [path for path in index.files if path != query.path]
    nearest = sorted(others, key=lambda path: (path_distance(path, query.path), path))[:NEAREST_FILES]
    wanted = frozenset(IDENTIFIER.findall(_round_caret(query)))
    for path in {*nearest, *(path for path in query.recent if path in index.files and path != query.path)}:
        for window, names in index.windows[path]:
            yield iou(wanted, names), path, window


def _infill(index: ProjectIndex, query: Query) -> Iterator[Scored]:
    weight = {name: index.idf(name) for name in IDENTIFIER.findall(_round_caret(query))}
    for path, cut in index.windows.items():
        if path != query.path:
            for window, names in cut:
                score = sum(weight.get(name, 0.0) for name in names) / (1 + len(names)) ** 0.4
                if score > 0:
                    yield score, path, window


STRATEGIES: Final[dict[str, Callable[[ProjectIndex, Query], Iterator[Scored]]]] = {
    "none": _none,
    "iou": _iou,
    "path_distance": _path_distance,
    "rag": _rag,
    "infill": _infill,
}
