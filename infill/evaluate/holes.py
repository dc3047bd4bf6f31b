"""The evaluate stage: complete the holes of held-out repositories, or of a frozen benchmark, and measure.

A hole that an earlier evaluation next to this one completed, with the same model and budgets, is not completed again.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from infill import manifest, metrics, storage, tracking
from infill.artifacts import evaluation as evaluations
from infill.artifacts.benchmark import is_answer, read_held_back
from infill.artifacts.examples import read_holes, request_of
from infill.config import EvaluateConfig
from infill.errors import InputError
from infill.evaluate import completed, latency, plots
from infill.evaluate.generation import ENGINE, Generator
from infill.evaluate.results import Evaluation, Interval, column
from infill.evaluate.statistics import detectable, holes_needed, interval
from infill.stages.contract import Call

VERSION: Final = 7
"""Increased when a metric or the text of a result changes, so that no champion is compared by an old definition."""
CHUNK_HOLES: Final = 256
"""Holes per chunk; a killed run continues with the next chunk."""
log: Final = logging.getLogger(__name__)


def body(call: Call[EvaluateConfig]) -> Mapping[str, float]:
    """Write `record.json`, `results.parquet` and plots; return the mean of each metric.

    Raises InputError when there are no test holes.
    """
    config, model, output = call.settings, call.inputs["model"], call.output
    completer = HoleCompleter(config, model, completed.beside(output, manifest.digest_of(model)))
    holes = read_holes(call.inputs["examples"], "test", config.holes)
    evaluation = evaluate_model(config, holes, model, call.scratch, completer)
    held_back = read_held_back(call.inputs["examples"], config.holes)
    evaluation = replace(evaluation, held_back=_held_back(completer, held_back, call))
    evaluations.write(output, record(config, holes, model, evaluation, output), evaluation.results)
    for name, image in plots.draw(evaluation).items():
        file = storage.join(output, name)
        storage.write_bytes(file, image)
        if storage.is_local(file):
            tracking.current().artifact(storage.local_path(file))
    return {name: figure["value"] for name, figure in evaluation.metrics.items()}


class HoleCompleter:
    """Completes holes with one model, which is loaded only for holes without a known result."""

    def __init__(self, config: EvaluateConfig, model: str, known: Mapping[str, dict[str, Any]] | None = None) -> None:
        self.config, self._model, self._known = config, model, known or {}

    @cached_property
    def generator(self) -> Generator:
        """The model."""
        return Generator(storage.fetch(self._model))

    def results(self, holes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return a row of results for each hole, in order; equal holes have equal rows."""
        digests = [hole_digest(self.config, hole) for hole in holes]
        rows = {digest: self._known[digest] for digest in digests if digest in self._known}
        new = {digest: hole for digest, hole in zip(digests, holes, strict=True) if digest not in rows}
        if new:
            completions = complete(self.config, self.generator, list(new.values()))
            rows |= {digest: {**row, "hole": digest} for digest, row in zip(new, completions, strict=True)}
        if len(new) < len(holes):
            log.info("evaluate: %d of %d holes were completed before", len(holes) - len(new), len(holes))
        return [rows[digest] for digest in digests]


def evaluate_model(
    config: EvaluateConfig, holes: pa.Table, model: str, scratch: str = "", completer: HoleCompleter | None = None
) -> Evaluation:
    """Complete `holes` (rows of `examples.SCHEMA`) greedily with the model at the URI `model`; return the results.

    The output is measured unchanged, cut only at a stop token. With `scratch`, a folder, each chunk of holes is kept
    there, and a second call continues after the last one. `completer` is one of that model that knows earlier results.
    Raises InputError when there are no holes.
    """
    if not holes.num_rows:
        raise InputError(
            "there are no test holes to evaluate on: the corpus has no source files in its test split; "
            "add repositories or raise corpus.test_share"
        )
    log.info(
        "evaluate: %d holes tell models apart that differ by %.1f points of exact match; one point takes %s holes",
        holes.num_rows,
        100 * detectable(holes.num_rows),
        format(holes_needed(0.01), ","),
    )
    completer = completer or HoleCompleter(config, model)
    evaluation = summarise(config, _in_chunks(completer, holes, scratch))
    if not config.latency_holes:
        return evaluation
    return replace(evaluation, latency=_latency(config, completer.generator, holes))


def _in_chunks(completer: HoleCompleter, holes: pa.Table, scratch: str) -> pa.Table:
    """Return the results of all holes; each chunk is kept in `scratch`, unless that is empty."""
    chunks = []
    for start in range(0, holes.num_rows, CHUNK_HOLES):
        file = storage.join(scratch, f"{start:08d}.parquet") if scratch else ""
        if file and storage.exists(file):
            chunks.append(storage.read_table(file))
            continue
        rows = completer.results(holes.slice(start, CHUNK_HOLES).to_pylist())
        chunks.append(pa.Table.from_pylist(rows))
        log.info("evaluate: completed %d of %d holes", start + len(rows), holes.num_rows)
        if file:
            storage.write_table(file, chunks[-1])
    return pa.concat_tables(chunks)


def _held_back(completer: HoleCompleter, holes: pa.Table, call: Call[EvaluateConfig]) -> dict[str, Any] | None:
    """Complete held-back holes and write a row for each; return the share that are right, None without such holes."""
    if not holes.num_rows:
        return None
    scratch = storage.join(call.scratch, "held_back")
    unknown = holes.append_column("middle", pa.nulls(holes.num_rows, pa.string()).fill_null(""))
    results = _in_chunks(completer, unknown, scratch).to_pylist()
    right = [float(is_answer(each["output"], row)) for each, row in zip(results, holes.to_pylist(), strict=True)]
    names = ("id", "hole", "kind", "unit", "language", "output", "prompt_tokens", "output_tokens")
    scored = [
        {**{name: result[name] for name in names}, "exact_match": share}
        for result, share in zip(results, right, strict=True)
    ]
    evaluations.write_held_back(call.output, pa.Table.from_pylist(scored))
    config = call.settings
    share = interval("exact_match", right, resamples=config.bootstrap, seed=config.seed)
    return {"holes": len(right), "exact_match": share}


def _latency(config: EvaluateConfig, generator: Generator, holes: pa.Table) -> dict[str, Any]:
    """Return the time of single completions of the first holes, with the evaluation's budgets."""
    rows = holes.slice(0, config.latency_holes).to_pylist()
    prompts = [generator.prompt(request_of(hole), config.max_prompt_tokens) for hole in rows]
    result = latency.measure(generator, prompts, max_new_tokens=config.max_new_tokens)
    log.info("evaluate: 9 of 10 completions take at most %.0f ms on %s", result["p90_ms"], result["machine"])
    return result


def complete(
    config: EvaluateConfig, generator: Generator, holes: Sequence[Mapping[str, Any]], *, bits: bool = False
) -> list[dict[str, Any]]:
    """Return the completion of each hole with its metrics: the rows of `results.parquet`.

    With `bits`, rows have `bits_per_byte`: the bits of the true middle with its end, and of the half-typed word before.
    """
    prompts = [generator.prompt(request_of(hole), config.max_prompt_tokens) for hole in holes]
    references = [hole["middle"] for hole in holes] if bits else None
    completions = generator.complete(
        prompts, max_new_tokens=config.max_new_tokens, seed=config.seed, references=references
    )
    results = []
    for hole, prompt, completion in zip(holes, prompts, completions, strict=True):
        surroundings = {name: hole[name] for name in ("prefix", "suffix", "language")}
        results.append(
            {
                "id": hole["id"],
                "kind": f"{hole['kind_start']} to {hole['kind_end']}",
                "unit": hole["unit"],
                "language": hole["language"],
                "output": completion.text,
                "middle": hole["middle"],
                "prompt_tokens": len(prompt),
                "output_tokens": completion.tokens,
                **metrics.score(completion.text, hole["middle"], **surroundings, finished=completion.finished),
                **({"bits_per_byte": completion.bits_per_byte(hole["middle"])} if bits else {}),
            }
        )
    return results


def summarise(config: EvaluateConfig, results: pa.Table) -> Evaluation:
    """Return the results with the metrics' means and 95 % intervals: over all holes, by kind and by language."""

    def means(rows: pa.Table) -> dict[str, Interval]:
        return {
            name: interval(name, column(rows, name), resamples=config.bootstrap, seed=config.seed)
            for name in metrics.METRICS
        }

    def by(name: str) -> dict[str, dict[str, Any]]:
        groups = {}
        for value in sorted(set(column(results, name))):
            rows = results.filter(pc.equal(results[name], value))
            groups[value] = {"holes": rows.num_rows, "metrics": means(rows)}
        return groups

    groups = {f"by_{name}": by(name) for name in ("kind", "unit", "language")}
    return Evaluation(results=results, metrics=means(results), **groups)


def hole_digest(config: EvaluateConfig, hole: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all that a hole's row of results depends on besides the model."""
    text = f"{VERSION}/{config.max_prompt_tokens}/{config.max_new_tokens}\n{json.dumps(hole, sort_keys=True)}"
    return hashlib.sha256(text.encode()).hexdigest()


def benchmark_digest(config: EvaluateConfig, holes: pa.Table) -> str:
    """Return the SHA-256 of the holes with their context, the token budgets and the definitions of the metrics.

    Equal digests allow comparison.
    """
    digest = hashlib.sha256(f"{VERSION}/{config.max_prompt_tokens}/{config.max_new_tokens}\n".encode())
    for row in holes.to_pylist():
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()


def record(config: EvaluateConfig, holes: pa.Table, model: str, evaluation: Evaluation, output: str) -> dict[str, Any]:
    """Return the content of `record.json` in the folder `output`."""
    return {
        **manifest.pointer("model", model, output),
        "model_digest": manifest.digest_of(model),
        "benchmark_digest": benchmark_digest(config, holes),
        "engine": ENGINE,
        "holes": holes.num_rows,
        "metrics": evaluation.metrics,
        "by_kind": evaluation.by_kind,
        "by_unit": evaluation.by_unit,
        "by_language": evaluation.by_language,
        **({"latency": evaluation.latency} if evaluation.latency else {}),
        **({"held_back": evaluation.held_back} if evaluation.held_back else {}),
    }
