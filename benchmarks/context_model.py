"""Effect of context on a model: held-out holes with the engine's context, with the paper's `rag`, and without any.

    python -m benchmarks.context_model --out DIR [--stage sft] [--holes N] [--max-prompt-tokens N] [--keep FILE]

DIR is the folder of a run (`infill run --out DIR`). The output holds for each strategy the metrics of the pipeline's
evaluation, bits per byte of the true middle, and the share of its identifiers in the completion; and the paired
difference between the engine's context and each other strategy, over all holes and over those that need context: their
middle has an identifier that occurs in another file of the repository but nowhere else in its own. With the engine's
context, it also holds the metrics by the kinds of the holes' boundaries. Intervals are for 95 % confidence.
"""

import json
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from benchmarks import completions
from infill import entry, manifest, metrics, storage
from infill.artifacts.corpus import documents
from infill.artifacts.examples import read_holes, request_of
from infill.cli_options import input_folder, integer
from infill.config import EvaluateConfig, ExamplesConfig
from infill.errors import InputError
from infill.evaluate.generation import Generator, SampledCompletion
from infill.evaluate.results import column
from infill.evaluate.statistics import compare, interval
from infill.model import context_length
from infill.stages import execute

STRATEGIES: Final = ("infill", "rag", "none")
QUICK: Final = 20
"""Number of holes of a quick run."""
RESAMPLES: Final = 2_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.context_model", description="Context and the model.")
    parser.add_argument("--out", required=True, type=input_folder, metavar="DIR", help="folder of a finished run")
    parser.add_argument("--stage", default="sft", choices=("pretrain", "sft", "dpo"), help="the model to measure")
    parser.add_argument("--holes", type=integer("the number of holes", 1), default=400, metavar="N")
    parser.add_argument(
        "--max-prompt-tokens",
        type=integer("the number of tokens", 1),
        default=1_024,
        metavar="N",
        help="longest prompt in tokens, at most three quarters of the model's context (default: 1,024)",
    )
    completions.option(parser)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} holes")
    options = parser.parse_args(arguments)
    corpus, tokenizer, model = (_newest(options.out, stage) for stage in ("corpus", "tokenizer", options.stage))
    config = ExamplesConfig(holes=1, validation_holes=0, test_holes=QUICK if options.quick else options.holes)
    settings = _settings(model, options.max_prompt_tokens)
    results: dict[str, dict[str, list[float]]] = {}
    needing: list[bool] = []
    kinds: list[str] = []
    for strategy in STRATEGIES:
        holes = _holes(replace(config, evaluation_strategy=strategy), corpus, tokenizer)
        results[strategy] = _measure(holes, settings, model, options.keep)
        needing = needing or _needing(holes, corpus)
        kinds = [f"{hole['kind_start']} to {hole['kind_end']}" for hole in holes.to_pylist()]
    print(
        json.dumps(
            {
                "model": manifest.load(model).digest,
                "max_prompt_tokens": settings.max_prompt_tokens,
                "all": _compared(results, range(len(needing))),
                "needing_context": _compared(results, [place for place, needs in enumerate(needing) if needs]),
                "by_kind": _by_kind(results["infill"], kinds),
            }
        )
    )


def _compared(results: Mapping[str, Mapping[str, list[float]]], places: Sequence[int]) -> dict[str, Any]:
    """Return the mean of each metric over the holes at `places`, and the gain of the engine's context over others."""
    if not places:
        return {"holes": 0}
    chosen = {
        strategy: {name: [each[place] for place in places] for name, each in values.items()}
        for strategy, values in results.items()
    }
    return {
        "holes": len(places),
        "values": {
            strategy: {name: round(sum(each) / len(each), 4) for name, each in values.items()}
            for strategy, values in chosen.items()
        },
        "gain": {other: _gains(chosen["infill"], chosen[other]) for other in STRATEGIES if other != "infill"},
    }


def _by_kind(values: Mapping[str, list[float]], kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return for each kind the number of its holes and the metrics with intervals, the most frequent kind first."""
    groups = {}
    for kind, count in Counter(kinds).most_common():
        chosen = {
            name: [value for value, each in zip(column, kinds, strict=True) if each == kind]
            for name, column in values.items()
        }
        figures = {name: interval(name, each, resamples=RESAMPLES, seed=0) for name, each in chosen.items()}
        groups[kind] = {
            "holes": count,
            **{name: {key: round(value, 4) for key, value in each.items()} for name, each in figures.items()},
        }
    return groups


def _newest(out: Path, stage: str) -> str:
    """Return the newest folder that `stage` wrote in the store of a run. Raises InputError if there is none."""
    written = manifest.newest(out / "store", stage)
    if written is None:
        raise InputError(f"{out} has no finished stage {stage}; run `infill run --out {out}` first")
    return storage.parent(written)


def _holes(config: ExamplesConfig, corpus: str, tokenizer: str) -> pa.Table:
    """Return the test holes, in the order of their ids, with context by the strategy of `config`."""
    with tempfile.TemporaryDirectory() as folder:
        execute("examples", config, {"corpus": corpus, "tokenizer": tokenizer}, "", output=folder)
        return read_holes(folder, "test", config.test_holes)


def _needing(holes: pa.Table, corpus: str) -> list[bool]:
    """Return for each hole whether its middle needs a name that occurs only in other files of the repository."""
    names: dict[str, dict[str, set[str]]] = defaultdict(dict)
    repos = set(column(holes, "repo"))
    for file in documents(corpus):
        for row in storage.read_table(file, ["repo", "path", "content"]).to_pylist():
            if row["repo"] in repos:
                names[row["repo"]][row["path"]] = _identifiers(row["content"])
    return [
        any(new & others for path, others in names[hole["repo"]].items() if path != hole["path"])
        for hole in holes.to_pylist()
        for new in [_identifiers(hole["middle"]) - _identifiers(hole["prefix"] + "\n" + hole["suffix"])]
    ]


def _identifiers(text: str) -> set[str]:
    """Return the names of at least three characters, since shorter ones occur everywhere."""
    return set(re.findall(r"\b[^\W\d]\w{2,}", text))


def _measure(holes: pa.Table, settings: EvaluateConfig, model: str, keep: Path | None) -> dict[str, list[float]]:
    """Return each metric's values in the order of the holes, which is the same for every strategy."""
    generator = Generator(storage.fetch(model))
    rows = holes.to_pylist()
    prompts = [generator.prompt(request_of(hole), settings.max_prompt_tokens) for hole in rows]
    completed = completions.complete(
        generator,
        prompts,
        model=completions.model_key(model),
        max_new_tokens=settings.max_new_tokens,
        references=[hole["middle"] for hole in rows],
        keep=keep,
    )
    values: dict[str, list[float]] = defaultdict(list)
    for hole, prompt, completion in zip(rows, prompts, completed, strict=True):
        for name, value in _values(hole, completion).items():
            values[name].append(value)
        values["prompt_tokens"].append(float(len(prompt)))
    return dict(values)


def _values(hole: Mapping[str, Any], completion: SampledCompletion) -> dict[str, float]:
    """Return the metrics of a completion; `bits_per_byte` is of the true middle with its end, given the prompt."""
    surroundings = {name: hole[name] for name in ("prefix", "suffix", "language")}
    return {
        **metrics.score(completion.text, hole["middle"], **surroundings, finished=completion.finished),
        "identifier_recall": _recall(completion.text, hole["middle"]),
        "bits_per_byte": completion.bits_per_byte(hole["middle"]),
    }


def _recall(output: str, middle: str) -> float:
    """Return the share of the middle's identifiers that occur in the completion; 1 for a middle without any."""
    names = _identifiers(middle)
    return len(names & _identifiers(output)) / len(names) if names else 1.0


def _settings(model: str, max_prompt_tokens: int) -> EvaluateConfig:
    """Return budgets that leave room for the middle in the model's context."""
    context = context_length(storage.read_json(storage.join(model, "config.json")))
    return EvaluateConfig(
        max_prompt_tokens=min(max_prompt_tokens, context * 3 // 4), max_new_tokens=min(64, context // 16)
    )


def _gains(ours: Mapping[str, list[float]], other: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return for each metric the mean paired difference, ours minus the other, with its interval and p-values."""
    gains = {}
    for name in ours:
        comparison = compare(name, ours[name], other[name], resamples=RESAMPLES, seed=0)
        figures = {key: value for key, value in asdict(comparison).items() if value is not None and key != "holes"}
        gains[name] = {key: round(value, 4) for key, value in figures.items()}
    return gains


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.context_model", main))
