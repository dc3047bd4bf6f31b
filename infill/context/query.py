"""The command `infill context query`: the packed context for a caret, with provenance and times."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infill import storage
from infill.context import ProjectIndex, retrieve
from infill.context.caret import CHARACTERS, Unit, read_source, split_at
from infill.context.identity import within
from infill.context.packing import pack
from infill.prompt import FimRequest, infill_format, load_encoder, load_format

Result = TypeVar("Result")


def query_repository(
    repo: str,
    path: str,
    line: int,
    column: int,
    *,
    strategy: str,
    budget: int,
    as_json: bool,
    tokenizer: str | None,
    recent: tuple[str, ...] = (),
    unit: Unit = CHARACTERS,
) -> None:
    """Print the packed context for a caret (line and column from 1, in `unit`) as a table, or as one JSON object.

    `tokenizer` is the URI of a model or tokenizer folder; without one, three bytes count as a token. Raises InputError
    when the repository, the file, the caret, the strategy or the tokenizer does not exist.
    """
    report = inspect(
        repo, path, line, column, strategy=strategy, budget=budget, tokenizer=tokenizer, recent=recent, unit=unit
    )
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        _show(report)


def inspect(
    repo: str,
    path: str,
    line: int,
    column: int,
    *,
    strategy: str,
    budget: int,
    tokenizer: str | None,
    recent: tuple[str, ...],
    unit: Unit,
) -> dict[str, Any]:
    """Return the packed `items` in prompt order with text and provenance, the prompt's size, times, and files left out.

    Raises InputError as `query_repository` does.
    """
    folder = storage.fetch(tokenizer) if tokenizer else None
    encode = load_encoder(folder).encode if folder else _thirds
    fmt = load_format(folder) if folder else infill_format()
    prefix, suffix = split_at(read_source(Path(repo) / path), line, column, unit)
    request = FimRequest(path=within(Path(repo), path), prefix=prefix, suffix=suffix)
    near = (request.path, *recent)
    index, index_ms = _timed(lambda: ProjectIndex.from_repository(repo, encode if folder else None, near=near))
    with index.without(request.path, prefix + suffix):
        retrieve(index, request, strategy=strategy, k=1)  # loads the compiled loops, which must not count as ranking
        context, rank_ms = _timed(lambda: retrieve(index, request, strategy=strategy, recent=recent))
    with_context = FimRequest(path=request.path, prefix=prefix, suffix=suffix, context=context)
    packed, pack_ms = _timed(lambda: pack(fmt, encode, with_context, budget=budget))
    return {
        "strategy": strategy,
        "budget": budget,
        "tokens": {
            "prompt": len(packed.prompt.ids),
            "prefix": packed.prompt.prefix_tokens,
            "suffix": packed.prompt.suffix_tokens,
            "estimated": folder is None,
        },
        "items": [vars(item) for item in packed.prompt.items],
        "candidates": len(context),
        "why_empty": packed.why_empty,
        "index": {"files": len(index), "blocks": index.table.live_blocks, "left_out": dict(index.left_out.counts)},
        "left_out_examples": index.left_out.examples,
        "ms": {"index": index_ms, "rank": rank_ms, "pack": pack_ms},
    }


def _thirds(text: str) -> list[int]:
    """Return about as many numbers as a tokenizer would give ids: one for three bytes."""
    return list(text.encode(errors="replace")[::3])


def _timed(body: Callable[[], Result]) -> tuple[Result, float]:
    """Return the result of `body`, and its time in milliseconds."""
    started = time.perf_counter()
    result = body()
    return result, round((time.perf_counter() - started) * 1000, 3)


def _show(report: dict[str, Any]) -> None:
    console = Console(highlight=False)
    table = Table(
        "score", "lines", "path", "text", title=f"{report['strategy']}, in prompt order", title_justify="left"
    )
    for item in report["items"]:
        text = Text(next((line.strip() for line in item["text"].split("\n") if line.strip()), ""), no_wrap=True)
        table.add_row(f"{item['score']:.3f}", f"{item['first_line']}-{item['last_line']}", Text(item["path"]), text)
    console.print(table if report["items"] else f"no context: {report['why_empty']}")
    tokens, ms, index = report["tokens"], report["ms"], report["index"]
    about = "about " if tokens["estimated"] else ""
    console.print(
        f"{about}{tokens['prompt']} of {report['budget']} tokens, "
        f"prefix {tokens['prefix']}, suffix {tokens['suffix']}; "
        f"{index['files']} files in {index['blocks']} blocks; index {ms['index']:.0f} ms, ranking {ms['rank']:.1f} ms, "
        f"packing {ms['pack']:.1f} ms"
    )
    for reason, count in sorted(index["left_out"].items()):
        console.print(Text(f"left out, {reason}: {count} ({', '.join(report['left_out_examples'][reason])})"))
