"""The preferences stage: sample completions, judge them, and pair the better with the worse.

Holes are processed in chunks; each chunk is written below `scratch/`, so a killed run continues with the next one. A
judge's answers are kept next to the stage's outputs.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow as pa

from infill import manifest, storage
from infill.artifacts.examples import COUNTS, places, read_holes
from infill.artifacts.preferences import SCHEMA, VERDICTS, read_pairs, read_verdicts, write_pairs, write_verdicts
from infill.config import PreferencesConfig
from infill.errors import InputError, ServiceError
from infill.evaluate.generation import ENGINE, Generator
from infill.preferences import feedback as users
from infill.preferences import pair_report, rated
from infill.preferences.answer_store import FOLDER, AnswerStore, JudgeBudget
from infill.preferences.candidates import Candidate, sample
from infill.preferences.hard_negatives import hard_negatives
from infill.preferences.judges import RULES, Judge, Verdict, rules
from infill.preferences.llm import KEY, RUBRIC, LlmJudge
from infill.preferences.pairs import Pair, echo, pairs, written_over_sampled
from infill.stages.contract import Call

log = logging.getLogger(__name__)

VERSION: Final = 4

CHUNK_HOLES: Final = 32
"""Holes per chunk; a killed run continues with the next chunk."""
JUDGE_REQUESTS: Final = 8
"""Maximum number of concurrent requests to a judge's server."""
Hole = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class HoleSource:
    """Holes that are sampled, judged and paired alike."""

    folder: str
    """Folder of the chunks."""
    holes: Sequence[Hole]
    config: PreferencesConfig
    pair: Callable[[Hole, Sequence[Candidate], Sequence[Verdict], float], list[Pair]]

    @property
    def chunks(self) -> dict[int, str]:
        """The folder of each chunk by the number of its first hole."""
        return {start: storage.join(self.folder, f"{start:08d}") for start in range(0, len(self.holes), CHUNK_HOLES)}

    @property
    def missing(self) -> list[int]:
        """The numbers of the first holes of the chunks that are not written yet."""
        return [start for start, folder in self.chunks.items() if not storage.exists(storage.join(folder, COUNTS))]


def outside(config: PreferencesConfig, _digests: Mapping[str, str]) -> dict[str, str]:
    """Return the digests of what the stage reads besides its inputs: feedback, ratings, history."""
    history = {"history": manifest.digest_of(config.history)} if config.history else {}
    return {**users.digests(config.feedback), **rated.digests(config.ratings), **history}


def body(call: Call[PreferencesConfig]) -> Mapping[str, float]:
    """Write pairs, verdicts and `report.json`; return the numbers of holes, samples, and pairs by kind.

    Raises InputError when there are no train holes, ServiceError when an LLM judge is unreachable or its answers are
    unusable.
    """
    config, examples = call.settings, call.inputs["examples"]
    holes = read_holes(examples, "train", config.holes).to_pylist()
    if config.holes and not holes:
        raise InputError(f"{examples} has no train holes to sample for; run the examples stage on a larger corpus")
    feedback, people = users.read(config.feedback), rated.read(config.ratings)
    counts: Counter[str] = Counter()
    sources = [
        HoleSource(folder=call.scratch, holes=holes + feedback.holes, config=config, pair=pairs),
        _of_history(config, examples, storage.join(call.scratch, "history"), counts),
    ]
    answers = AnswerStore(storage.join(storage.parent(call.output), FOLDER), call.key)
    if not (config.holes or feedback.pairs or feedback.holes or people.pairs):
        raise InputError("neither feedback nor ratings give a pair yet; collect more, or set preferences.holes")
    if any(source.missing for source in sources):
        generator = Generator(storage.fetch(call.inputs["model"]))
        with open_judge(config, answers) as judge:
            for source in sources:
                _write_chunks(source, generator, judge)
    folders = [folder for source in sources for folder in source.chunks.values()]
    for folder in folders:
        counts.update(storage.read_json(storage.join(folder, COUNTS)))
    of_people = [*((users.JUDGE, *each) for each in feedback.pairs), *((rated.JUDGE, *each) for each in people.pairs)]
    write_verdicts(call.output, pa.concat_tables([VERDICTS.empty_table(), *map(read_verdicts, folders)]))
    table = _pairs_of(folders, [_row(hole, pair, judge) for judge, hole, pair in of_people], people, sources[0].holes)
    write_pairs(call.output, table)
    return _finish(call, table, counts, answers, feedback, people, sum(len(source.holes) for source in sources))


def _of_history(config: PreferencesConfig, examples: str, folder: str, counts: Counter[str]) -> HoleSource:
    """Return the holes of `config.history`, sampled once at the lowest temperature and judged by the rules.

    Holes of repositories or files that the examples hold out are left out and counted. Raises InputError if the folder
    has holes to evaluate on.
    """
    greedy = replace(config, judge=RULES, temperatures=(min(config.temperatures),), samples=1)
    holes: list[dict[str, Any]] = []
    if config.history:
        artifact = manifest.load(config.history)
        if artifact.stage != "benchmark" or not artifact.config.get("train"):
            raise InputError(
                f"{config.history} holds no holes to learn from; make some with infill benchmark build --train"
            )
        holes = read_holes(artifact.uri, "train", config.holes).to_pylist()
        out = places(examples, "validation") | places(examples, "test")
        repos_out = {repo for repo, _ in out} - {repo for repo, _ in places(examples, "train")}
        usable = [hole for hole in holes if hole["repo"] not in repos_out and (hole["repo"], hole["path"]) not in out]
        counts["history holes of held-out repositories or files"] = len(holes) - len(usable)
        holes = usable
    return HoleSource(folder=folder, holes=holes, config=greedy, pair=written_over_sampled)


def _write_chunks(source: HoleSource, generator: Generator, judge: Judge) -> None:
    """Write the missing chunks of a source."""
    for start in source.missing:
        chunk = source.holes[start : start + CHUNK_HOLES]
        mine = judge if source.config.judge != RULES else rules
        rows, verdicts, counts = judge_chunk(source, chunk, generator, mine)
        if counts["holes without a usable verdict"] == min(CHUNK_HOLES, len(source.holes)):
            raise ServiceError(
                f"the judge at {source.config.judge} answered {len(chunk)} times in a row without the requested "
                "JSON; choose a more capable preferences.judge_model"
            )
        folder = source.chunks[start]
        write_pairs(folder, pa.Table.from_pylist(rows, SCHEMA))
        write_verdicts(folder, pa.Table.from_pylist(verdicts, VERDICTS))
        storage.write_json(storage.join(folder, COUNTS), counts)
        log.info("preferences: judged %d of %d holes", start + len(chunk), len(source.holes))


@contextmanager
def open_judge(config: PreferencesConfig, answers: AnswerStore) -> Iterator[Judge]:
    """Yield the judge that `config.judge` names; it keeps answers in `answers`, and respects the budget.

    Raises InputError when it is neither `rules` nor a URL, or contains a password, which would be in every artifact.
    """
    if config.judge == RULES:
        yield rules
    elif urlsplit(config.judge).username is not None:
        raise InputError(f"preferences.judge must not contain a user name or password; put the key in {KEY}")
    elif config.judge.startswith(("http://", "https://")):
        budget = _budget(config)
        for usage in answers.paid() if budget.is_limited else ():  # by this run, before it was killed
            budget.spend(usage)
        with LlmJudge(config.judge, config.judge_model, seed=config.seed, answers=answers, budget=budget) as judge:
            yield judge
    else:
        raise InputError(
            f"preferences.judge must be rules or the base URL of an OpenAI-compatible server, got {config.judge!r}"
        )


def _budget(config: PreferencesConfig) -> JudgeBudget:
    return JudgeBudget(tokens=config.judge_tokens, cost=config.judge_cost, prices=config.judge_prices)


def judge_chunk(
    source: HoleSource, holes: Sequence[Hole], generator: Generator, judge: Judge
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Counter[str]]:
    """Return pairs as rows of SCHEMA, verdicts as rows of VERDICTS, and counts of samples, defects, unusable holes."""
    config = source.config
    candidates = sample(generator, holes, config)
    with ThreadPoolExecutor(1 if judge is rules else JUDGE_REQUESTS) as pool:
        judged = list(pool.map(judge, holes, candidates))
    rows: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for hole, mine, usable in zip(holes, candidates, judged, strict=True):
        counts["samples"] += len(mine)
        negatives = [_row(hole, pair, "none") for pair in hard_negatives(hole, config.hard_negatives)]
        rows += negatives
        if usable is None:
            counts["holes without a usable verdict"] += 1
            continue
        if _is_beyond_budget(usable, judge):
            counts["holes judged by the rules, since the budget was used up"] += 1
        counts.update(f"defect: {defect}" for each in usable for defect in each.defects if each.judge == RULES)
        paired = source.pair(hole, mine, usable, config.min_margin)
        counts["holes without a pair"] += not paired
        rows += [_row(hole, pair, usable[0].judge) for pair in paired]
        verdicts += _verdict_rows(hole, mine, usable)
    return rows, verdicts, counts


def _is_beyond_budget(verdicts: Sequence[Verdict], judge: Judge) -> bool:
    return judge is not rules and bool(verdicts) and verdicts[0].judge == RULES


def _verdict_rows(hole: Hole, candidates: Sequence[Candidate], verdicts: Sequence[Verdict]) -> Iterator[dict[str, Any]]:
    """Yield the verdicts on a hole's candidates as rows of VERDICTS, with the scores of the rules."""
    by_rules = verdicts if verdicts[0].judge == RULES else rules(hole, candidates)
    for candidate, verdict, rule in zip(candidates, verdicts, by_rules, strict=True):
        yield {
            "hole": hole["id"],
            **{name: getattr(candidate, name) for name in ("text", "finished", "temperature")},
            "judge": verdict.judge,
            "defects": ", ".join(verdict.defects),
            "score": verdict.score,
            "rules": rule.score,
            "orders": list(verdict.scores),
        }


def _row(hole: Hole, pair: Pair, judge: str) -> dict[str, Any]:
    shared = {name: hole[name] for name in ("repo", "path", "language", "prefix", "suffix", "context")}
    return {"id": f"{hole['id']}-{pair.kind}", **shared, **vars(pair), "judge": judge}


def _pairs_of(
    folders: Sequence[str], of_people: list[dict[str, Any]], people: rated.RatedPairs, holes: Iterable[Hole]
) -> pa.Table:
    """Return the pairs of the chunks that people do not refuse, and those of people."""
    judged = pa.concat_tables([SCHEMA.empty_table(), *map(read_pairs, folders)])
    if people.refused:
        judged = judged.filter(pa.array([people.allow(row) for row in judged.to_pylist()], pa.bool_()))
    table = pa.concat_tables([judged, pa.Table.from_pylist(of_people, SCHEMA)])
    if table.num_rows:
        return table
    # The model wrote every middle correctly; it can only learn to stop there.
    return pa.Table.from_pylist([_row(hole, echo(hole), "none") for hole in holes], SCHEMA)


def _finish(
    call: Call[PreferencesConfig],
    table: pa.Table,
    counts: Counter[str],
    answers: AnswerStore,
    feedback: users.FeedbackPairs,
    people: rated.RatedPairs,
    holes: int,
) -> dict[str, float]:
    """Write the report and return the stage's metrics."""
    config = call.settings
    kinds = Counter(str(kind) for kind in table["kind"].to_pylist())
    report = {
        "holes": holes,
        "pairs": table.num_rows,
        "kinds": kinds,
        **pair_report.of_pairs(table),
        "judge": config.judge,
        **(_of_judge(call, answers) if config.judge != RULES else {}),
        "engine": ENGINE,
        "counts": counts,
        **({"feedback": feedback.counts} if config.feedback else {}),
        **({"ratings": people.counts} if config.ratings else {}),
    }
    manifest.write_report(call.output, report)
    return {
        "holes": float(holes),
        "pairs": float(table.num_rows),
        "samples": float(counts["samples"]),
        **{f"pairs_{kind}": float(n) for kind, n in sorted(kinds.items())},
    }


def _of_judge(call: Call[PreferencesConfig], answers: AnswerStore) -> dict[str, Any]:
    """Return the model and rubric of the judge, how its verdicts agree with others, and what this run paid."""
    spent, paid = _budget(call.settings), answers.paid()
    for usage in paid:
        spent.spend(usage)
    usage = spent.usage
    return {
        "judge_model": call.settings.judge_model,
        "rubric": RUBRIC,
        "judge_agreement": pair_report.of_verdicts(read_verdicts(call.output)),
        "judge_spent": {
            "requests": spent.requests,
            "request_tokens": usage.prompt,
            "answer_tokens": usage.completion,
            "cost": spent.cost,
        },
    }
