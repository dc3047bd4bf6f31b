"""The context engine: it selects parts of the project's other files for the prompt.

`retrieve` ranks context items, `packing.pack` fits them into a token budget.
"""

from typing import Final

from infill.context.caret import Query
from infill.context.index import ProjectIndex
from infill.context.strategies import rank
from infill.prompt import ContextItem, FimRequest

CANDIDATES: Final = 64
"""Items of about ten lines each that packing may choose from: more than 8,192 tokens can hold with the current file."""

__all__ = ["CANDIDATES", "ContextItem", "ProjectIndex", "Query", "rank", "ranked", "retrieve"]


def retrieve(
    index: ProjectIndex,
    request: FimRequest,
    *,
    strategy: str = "infill",
    k: int = CANDIDATES,
    recent: tuple[str, ...] = (),
) -> tuple[ContextItem, ...]:
    """Return at most `k` items for the caret of `request` in prompt order, the best last; none is from its own file.

    `recent` names the files that were recently opened or edited, the latest first. Raises InputError for an unknown
    `strategy`.
    """
    with index.without(request.path, request.prefix + request.suffix):
        return ranked(index, request, strategy=strategy, k=k, recent=recent)


def ranked(
    index: ProjectIndex, request: FimRequest, *, strategy: str, k: int, recent: tuple[str, ...]
) -> tuple[ContextItem, ...]:
    """Return what `retrieve` does, from an index that lacks the current file."""
    query = Query(path=request.path, prefix=request.prefix, suffix=request.suffix, recent=recent)
    return tuple(reversed(rank(index, query, strategy, k)))
