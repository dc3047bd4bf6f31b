"""Completions of a few fixed holes during a training, so that people see the model learn.

The holes are from repositories that are not trained on (DPO, which has only pairs, shows some of these). Greedy
completions of a few short prompts cost about as much as one step, draw no random number and change no weight.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from infill import fim, model, prompt
from infill.artifacts.examples import request_of
from infill.errors import InputError
from infill.evaluate.generation import Generator
from infill.prompt import FimRequest
from infill.train.data import TrainingDocument, TrainingDocuments, draw
from infill.train.engine import Engine

NEW_TOKENS: Final = 32
PROMPT_TOKENS: Final = 256
MIDDLE_CHARS: Final = 80
"""Maximum length of the middle of a hole in pre-training."""
TRIED: Final = 64
"""Maximum number of documents that are tried per hole."""
SHARDS: Final = 8
"""Number of shards of the corpus from which documents are taken."""
SHOWN_LINES: Final = 4
"""Number of lines that are shown before and after a hole."""
SHOWN_CHARS: Final = 400

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SampleHole:
    request: FimRequest
    language: str
    middle: str


def completions(make: Callable[[], Iterable[SampleHole]], folder: Path) -> Callable[[Engine], list[Row]]:
    """Return a function from an engine to the rows of its model's completions of the holes of `make`.

    `make` is called once; `folder` has tokenizer and prompt format. Only the first worker completes holes; the function
    returns no rows on the others.
    """
    fixed: list[SampleHole] = []

    def complete(engine: Engine) -> list[Row]:
        if engine.rank:
            return []
        if not fixed:
            fixed.extend(make())
        with _ordinary_attention(engine.model):
            return _complete(engine, fixed, folder)

    return complete


def _complete(engine: Engine, holes: list[SampleHole], folder: Path) -> list[Row]:
    generator = Generator.of(engine.model, prompt.load_encoder(folder), prompt.load_format(folder))
    context = model.context_length(engine.model.config)
    new = min(NEW_TOKENS, context // 4)
    budget = min(PROMPT_TOKENS, context - new)
    prompts = [generator.prompt(hole.request, budget) for hole in holes]
    completed = generator.complete(prompts, max_new_tokens=new)
    return [
        {
            "hole": number,
            "language": hole.language,
            "path": hole.request.path,
            "before": _end(hole.request.prefix),
            "expected": hole.middle,
            "completion": completion.text,
            "finished": completion.finished,
            "after": _start(hole.request.suffix),
        }
        for number, (hole, completion) in enumerate(zip(holes, completed, strict=True), 1)
    ]


@contextlib.contextmanager
def _ordinary_attention(decoder: Any) -> Iterator[None]:
    """Switch `decoder` to ordinary attention in the block: generation with a cache has one document per row.

    Compiled code is not used: prompts of each length would compile it again.
    """
    trained_with = decoder.config._attn_implementation
    decoder.config._attn_implementation = "sdpa"
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        decoder.config._attn_implementation = trained_with


def of_documents(corpus: str, split: str, count: int, seed: int) -> list[SampleHole]:
    """Return one short syntactic hole from each of at most `count` documents of a split, chosen by hash."""
    documents = TrainingDocuments(corpus, split)
    holes = (hole for document in _shuffled(documents, seed, TRIED * count) for hole in _cut(document, seed))
    return list(itertools.islice(holes, count))


def _shuffled(documents: TrainingDocuments, seed: int, most: int) -> Iterator[TrainingDocument]:
    """Yield at most `most` documents of the first shards by hash, one of each repository before a second of any."""
    places: list[tuple[int, float, int, int]] = []
    for shard in range(min(SHARDS, len(documents.shards))):
        met = Counter[str]()
        repos = [str(repo) for repo in documents.table(shard)["repo"].to_pylist()]
        for rank, row in sorted((draw("samples", seed, shard, row), row) for row in range(len(repos))):
            places.append((met[repos[row]], rank, shard, row))
            met[repos[row]] += 1
    yield from (documents.get(shard, row) for _, _, shard, row in sorted(places)[:most])


def _cut(document: TrainingDocument, seed: int) -> list[SampleHole]:
    """Return one hole; none if the text has no hole, or there is no grammar for its language."""
    text, settings = document.text, fim.SplitConfig(max_middle_chars=MIDDLE_CHARS)
    try:
        drawn = fim.syntactic_holes(text, document.language, settings, seed=seed, epoch=0, document=document.name, n=1)
    except InputError:
        return []
    return [
        SampleHole(
            request=FimRequest(path=document.path, prefix=text[: hole.start], suffix=text[hole.end :]),
            language=document.language,
            middle=text[hole.start : hole.end],
        )
        for hole in drawn
    ]


def of_rows(rows: Iterable[Mapping[str, Any]], middle: str) -> list[SampleHole]:
    """Return the holes of rows of examples or pairs, with the completion in the column `middle`."""
    return [SampleHole(request=request_of(row), language=row["language"], middle=row[middle]) for row in rows]


def _end(text: str) -> str:
    return "\n".join(text.split("\n")[-SHOWN_LINES:])[-SHOWN_CHARS:]


def _start(text: str) -> str:
    return "\n".join(text.split("\n")[:SHOWN_LINES])[:SHOWN_CHARS]
