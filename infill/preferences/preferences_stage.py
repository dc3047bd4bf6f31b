"""The preferences stage: sample completions, judge them, and pair the better with the worse.

Holes are processed in chunks; each chunk is written below `scratch/`, so a killed run continues with the next one.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow as pa

from infill import manifest, storage
from infill.artifacts.examples import COUNTS, read_holes
from infill.artifacts.preferences import SCHEMA, read_pairs, write_pairs
from infill.config import PreferencesConfig
from infill.errors import InputError, ServiceError
from infill.evaluate.generation import ENGINE, Generator
from infill.preferences import feedback as users
from infill.preferences.candidates import sample
from infill.preferences.judges import Judge, rules
from infill.preferences.llm import KEY, LlmJudge
from infill.preferences.pairs import Pair, echo, pairs
from infill.stages.contract import Call

log = logging.getLogger(__name__)

VERSION: Final = 2

CHUNK_HOLES: Final = 32
"""Holes per chunk; a killed run continues with the next chunk."""
JUDGE_REQUESTS: Final = 8
"""Maximum number of concurrent requests to a judge's server."""


def outside(config: PreferencesConfig, _digests: Mapping[str, str]) -> dict[str, str]:
    """Return the digest of the feedback dataset, which the stage reads besides its inputs."""
    return users.digests(config.feedback)


def body(call: Call[PreferencesConfig]) -> Mapping[str, float]:
    """Write `pairs.parquet` and `report.json`; return the numbers of holes, samples, and pairs by kind.

    Raises InputError when there are no train holes, ServiceError when an LLM judge is unreachable or its answers are
    unusable.
    """
    config, examples = call.settings, call.inputs["examples"]
    holes = read_holes(examples, "train", config.holes).to_pylist()
    if not holes:
        raise InputError(f"{examples} has no train holes to sample for; run the examples stage on a larger corpus")
    feedback = users.read(config.feedback)
    holes += feedback.holes
    return _finish(config, holes, _chunks(config, holes, call.inputs["model"], call.scratch), feedback, call.output)


def _chunks(config: PreferencesConfig, holes: Sequence[Mapping[str, Any]], model: str, scratch: str) -> list[str]:
    """Write the missing chunks below `scratch`; return the folders of all chunks."""
    starts = range(0, len(holes), CHUNK_HOLES)
    folders = {start: storage.join(scratch, f"{start:08d}") for start in starts}
    missing = [start for start in starts if not storage.exists(storage.join(folders[start], COUNTS))]
    if missing:
        generator = Generator(storage.fetch(model))
        with open_judge(config) as judge:
            for start in missing:
                chunk = holes[start : start + CHUNK_HOLES]
                rows, counts = judge_chunk(config, chunk, generator, judge)
                if counts["holes without a usable verdict"] == min(CHUNK_HOLES, len(holes)):
                    raise ServiceError(
                        f"the judge at {config.judge} answered {len(chunk)} times in a row without the requested "
                        "JSON; choose a more capable preferences.judge_model"
                    )
                write_pairs(folders[start], pa.Table.from_pylist(rows, SCHEMA))
                storage.write_json(storage.join(folders[start], COUNTS), counts)
                log.info("preferences: judged %d of %d holes", start + len(chunk), len(holes))
    return list(folders.values())


@contextmanager
def open_judge(config: PreferencesConfig) -> Iterator[Judge]:
    """Yield the judge that `config.judge` names.

    Raises InputError when it is neither `rules` nor a URL, or contains a password, which would be in every artifact.
    """
    if config.judge == "rules":
        yield rules
    elif urlsplit(config.judge).username is not None:
        raise InputError(f"preferences.judge must not contain a user name or password; put the key in {KEY}")
    elif config.judge.startswith(("http://", "https://")):
        with LlmJudge(config.judge, config.judge_model, seed=config.seed) as judge:
            yield judge
    else:
        raise InputError(
            f"preferences.judge must be rules or the base URL of an OpenAI-compatible server, got {config.judge!r}"
        )


def judge_chunk(
    config: PreferencesConfig, holes: Sequence[Mapping[str, Any]], generator: Generator, judge: Judge
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return the pairs of some holes as rows of SCHEMA, and counts of samples, defects and unusable holes."""
    candidates = sample(generator, holes, config)
    with ThreadPoolExecutor(1 if config.judge == "rules" else JUDGE_REQUESTS) as pool:
        verdicts = list(pool.map(judge, holes, candidates))
    rows: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for hole, mine, judged in zip(holes, candidates, verdicts, strict=True):
        counts["samples"] += len(mine)
        if judged is None:
            counts["holes without a usable verdict"] += 1
            continue
        counts.update(f"defect: {defect}" for verdict in judged for defect in verdict.defects if judge is rules)
        paired = pairs(hole, mine, judged, config.min_margin)
        counts["holes without a pair"] += not paired
        rows += [_row(hole, pair, config.judge) for pair in paired]
    return rows, counts


def _row(hole: Mapping[str, Any], pair: Pair, judge: str) -> dict[str, Any]:
    shared = {name: hole[name] for name in ("repo", "path", "language", "prefix", "suffix", "context")}
    return {"id": f"{hole['id']}-{pair.kind}", **shared, **vars(pair), "judge": judge}


def _finish(
    config: PreferencesConfig,
    holes: Sequence[Mapping[str, Any]],
    folders: Sequence[str],
    feedback: users.FeedbackPairs,
    output: str,
) -> dict[str, float]:
    """Join the chunks and the users' pairs, write the report and return the stage's metrics."""
    counts: Counter[str] = Counter()
    for folder in folders:
        counts.update(storage.read_json(storage.join(folder, COUNTS)))
    pairs_of_users = [_row(hole, pair, users.JUDGE) for hole, pair in feedback.pairs]
    table = pa.concat_tables([*map(read_pairs, folders), pa.Table.from_pylist(pairs_of_users, SCHEMA)])
    if not table.num_rows:  # the model wrote every middle correctly; it can only learn to stop there
        table = pa.Table.from_pylist([_row(hole, echo(hole), "none") for hole in holes], SCHEMA)
    write_pairs(output, table)
    kinds = Counter(str(kind) for kind in table["kind"].to_pylist())
    report = {
        "holes": len(holes),
        "pairs": table.num_rows,
        "kinds": kinds,
        "judge": config.judge,
        "engine": ENGINE,
        "counts": counts,
        **({"feedback": feedback.counts} if config.feedback else {}),
    }
    manifest.write_report(output, report)
    return {
        "holes": float(len(holes)),
        "pairs": float(table.num_rows),
        "samples": float(counts["samples"]),
        **{f"pairs_{kind}": float(n) for kind, n in sorted(kinds.items())},
    }
