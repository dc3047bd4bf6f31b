"""Measure the context engine against its peers; the last line is one JSON object.

    python -m benchmarks.context [--quick] [--repo DIR ...] [--chunks N] [--curve FILE]

Speed is measured on the Python packages installed here, coverage and reuse on published packages (`projects.py`), or
everything on each DIR. `--curve` measures the price of fresh context instead (`curve`), and the speed of a query and of
bm25s's on each project, and draws FILE (SVG or PNG). Times are processor time of one core.
"""

import argparse
import json
import random
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from benchmarks.context import coverage, curve, projects, replay, speed
from infill import entry
from infill.bases.pre_tokenizers import PATTERN
from infill.cli_options import input_folder, integer, output_file
from infill.experiments import needed_names
from infill.prompt import Encode

VOCABULARY: Final = 16_384
TRAINING_CHARS: Final = 4_000_000
KV_BUDGET, PACK_BUDGET = 6_144, 8_192


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.context", description="Context engine and its peers.")
    parser.add_argument("--quick", action="store_true", help="two packages, 40 holes, 3,000 chunks")
    parser.add_argument(
        "--repo", type=input_folder, action="append", metavar="DIR", help="measure on this folder; may be repeated"
    )
    parser.add_argument("--curve", type=output_file, metavar="FILE", help="draw the price of fresh context as FILE")
    parser.add_argument(
        "--chunks",
        type=integer("the number of chunks", 1),
        default=0,
        metavar="N",
        help="size of the index (default: 30,000)",
    )
    options = parser.parse_args(arguments)
    chunks = options.chunks or (3_000 if options.quick else 30_000)
    queries = 50 if options.quick else 500
    folders = options.repo or [Path(sysconfig.get_paths()["purelib"])]
    result = {} if options.curve else {"speed": {folder.name: _speed(folder, chunks, queries) for folder in folders}}
    sources = _projects(options)
    encode = _tokenizer(text for project in sources.values() for text in project.values())
    sizes = {"holes": 40 if options.quick else 400, "sessions": 1 if options.quick else 20}
    if options.curve:
        curves = _curves(sources, encode, chunks=chunks, queries=queries, **sizes)
        curve.plot({name: each["points"] for name, each in curves.items()}, options.curve)
        result["curves"] = curves
    else:
        result |= _quality(sources, encode, **sizes)
    print(json.dumps(result))


def _projects(options: argparse.Namespace) -> dict[str, projects.Project]:
    if options.repo:
        return {folder.name: dict(projects.files(folder)) for folder in options.repo}
    packages = (*projects.TUNED, *projects.CHECKED)
    return {
        each.name: projects.fetch(each) for each in (packages[2:3] + packages[-3:-2] if options.quick else packages)
    }


def _tokenizer(texts: Iterable[str]) -> Encode:
    """Return the encoder of a byte-level BPE with our pattern, trained on a sample of the projects."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    every, sample, room = list(texts), list[str](), TRAINING_CHARS
    random.Random(0).shuffle(every)
    while every and room > 0:
        sample.append(every.pop()[:20_000])
        room -= len(sample[-1])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(sample, trainer)
    return lambda text: list(tokenizer.encode(text).ids)


def _speed(root: Path, chunks: int, count: int) -> dict[str, Any]:
    index, seconds, size = speed.build(projects.files(root), chunks)
    asked = speed.queries(index, count)
    ours = speed.ours(index)
    for body in ours.values():
        speed.milliseconds(body, asked)
    memory = speed.memory_mb()
    texts = speed.window_texts(index)
    exact, brute = speed.is_exact(index, texts, asked[: speed.EXACT_QUERIES])
    peers = speed.peers(list(texts.values()))
    turns = speed.measure(ours | peers, asked)
    times = {name: speed.percentiles(np.concatenate(each)) for name, each in turns.items()}
    slow = {"brute_force": brute, "rank_bm25": speed.slow_peer(list(texts.values()), asked)}
    updates = speed.update_times(index, count)
    print(f"{len(index)} files, {size / 1e6:.1f} MB of {root}: {index.table.live_blocks} chunks", file=sys.stderr)
    return {
        "chunks": index.table.live_blocks,
        "mb": round(size / 1e6, 2),
        "exact": exact,
        "query_ms": {name: times[name] for name in ours},
        "over_bm25s": {name: speed.ratio(turns[name], turns["bm25s"]) for name in ours},
        "build_s_per_24mb": round(seconds / size * 24e6, 3),
        "update_ms": round(float(np.percentile(updates, 95)), 3),
        "update_p50_p99_ms": speed.percentiles(updates),
        "memory_mb": memory,
        "peers": {name: times[name] for name in peers} | {name: speed.percentiles(slow[name]) for name in slow},
    }


def _quality(sources: dict[str, projects.Project], encode: Encode, holes: int, sessions: int) -> dict[str, Any]:
    covered, gains, steps, packs = {}, {}, list[replay.Step](), list[replay.Step]()
    for name, project in sources.items():
        cut = needed_names.holes(project, holes, name)
        results = coverage.measure(project, cut, encode)
        covered[name] = {strategy: coverage.interval(values) for strategy, values in results.items()}
        gains[name] = {peer: coverage.interval(results["infill"] - results[peer]) for peer in ("bm25", "rag")}
        steps += replay.replay(project, cut, sessions, KV_BUDGET, encode)[0]
        packs += replay.replay(project, cut[::-1], 1, PACK_BUDGET, encode)[0]
        over = ", ".join(f"{peer} {gain['value']:+.1f}" for peer, gain in gains[name].items())
        print(f"{name}: {len(cut)} holes, infill {covered[name]['infill']['value']}, over {over}", file=sys.stderr)
    return {
        "coverage": covered,
        "gain": gains,
        "kv_reuse": _reuse(steps),
        "pack_ms_p95": round(1000 * float(np.percentile([step.seconds for step in packs], 95)), 3),
        "pack_tokens_p50": float(np.median([step.tokens for step in packs])),
    }


def _reuse(steps: Sequence[replay.Step]) -> dict[str, float]:
    return curve.point(steps) | {
        "new_tokens_p50": float(np.percentile([step.tokens - step.shared for step in steps], 50)),
        "new_tokens_p90": float(np.percentile([step.tokens - step.shared for step in steps], 90)),
        "prompt_tokens_mean": round(float(np.mean([step.tokens for step in steps])), 1),
    }


def _curves(
    sources: dict[str, projects.Project], encode: Encode, *, holes: int, sessions: int, chunks: int, queries: int
) -> dict[str, Any]:
    """Return the curve of each project, and how a query's median time compares with bm25s's."""
    curves = {}
    for name, project in sources.items():
        index, _, _ = speed.build(sorted(project.items()), chunks)
        asked = speed.queries(index, queries)
        peers = speed.peers([*speed.window_texts(index).values()])
        bodies = {"infill": speed.ours(index)["default"]} | {peer: peers[peer] for peer in ("bm25s", "bm25s_numba")}
        speed.milliseconds(bodies["infill"], asked)
        turns = speed.measure(bodies, asked)
        points = curve.curve(project, needed_names.holes(project, holes, name), sessions, KV_BUDGET, encode)
        curves[name] = {
            "files": len(project),
            "chunks": index.table.live_blocks,
            "query_ms": {each: speed.percentiles(np.concatenate(turn)) for each, turn in turns.items()},
            "over_bm25s": speed.ratio(turns["infill"], turns["bm25s"]),
            "over_bm25s_numba": speed.ratio(turns["infill"], turns["bm25s_numba"]),
            "points": points,
        }
        print(f"{name}: {len(project)} files, over bm25s {curves[name]['over_bm25s']}", file=sys.stderr)
    return curves


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.context", main))
