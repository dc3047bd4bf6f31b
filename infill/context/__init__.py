"""The context engine: what else of the project stands in the prompt, and why.

`retrieve` ranks, `packing.pack` fits the ranked items into a budget of tokens.
"""

from typing import Final

from infill.context.caret import Query
from infill.context.index import ProjectIndex
from infill.context.strategies import rank
from infill.prompt import ContextItem, FimRequest

CANDIDATES: Final = 64
"""Items, each of some ten lines, that packing may choose from: more than 8,192 tokens hold beside the current file."""

__all__ = ["CANDIDATES", "ContextItem", "ProjectIndex", "Query", "rank", "retrieve"]


def retrieve(
    index: ProjectIndex,
    request: FimRequest,
    *,
    strategy: str = "infill",
    k: int = CANDIDATES,
    recent: tuple[str, ...] = (),
) -> tuple[ContextItem, ...]:
    """At most `k` items for the caret of `request` in prompt order, the best last; never from the current file.

    `recent` are the files that were recently opened or edited, the latest first.
    """
    query = Query(path=request.path, prefix=request.prefix, suffix=request.suffix, recent=recent)
    with index.without(request.path, request.prefix + request.suffix):
        return tuple(reversed(rank(index, query, strategy, k)))
