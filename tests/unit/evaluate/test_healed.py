"""All that samples a model heals half-typed words, by the one function of serving."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import benchmarks
import infill
from benchmarks import completions, judge
from infill.artifacts.examples import request_of
from infill.config import EvaluateConfig, PreferencesConfig
from infill.evaluate import holes
from infill.evaluate.generation import Generation, Generator
from infill.evaluate.humaneval import HumanEvalTask
from infill.preferences.candidates import sample
from tests import builders

PREFIX, WORD = "def area(width):\n    x = [retu", "retu"
HOLE = {"path": "a.py", "prefix": PREFIX, "suffix": "\n", "middle": "rn width", "language": "python", "context": []}
ROW = HOLE | {"id": "1", "unit": "line", "kind_start": "token_middle", "kind_end": "line_end"}
TASK = HumanEvalTask(
    task_id="x", entry_point="area", prompt=PREFIX, suffix="\n", canonical_solution="rn width", test="def check(f): 0"
)
RAW = {"infill/evaluate/generation.py", "benchmarks/evaluation.py", "benchmarks/fresh_context.py"}
"""Files that call `Generator.generate`: it is there, and the others measure the speed of given tokens."""
OTHER_ENGINES = {"benchmarks/keystrokes/draft_gain.py"}
"""Files that call a `generate` of something else, with a whole prompt of a server."""


class Recording(Generator):
    """Remembers the prompts and beginnings that the model was given, and writes the beginnings alone."""

    given: list[tuple[list[int], str]]

    def generate(self, prompts: Any, *, beginnings: Any = None, references: Any = None, **_: Any) -> list[Generation]:
        self.given = [(list(prompt), word) for prompt, word in zip(prompts, beginnings, strict=True)]
        bits = None if references is None else 1.0
        return [
            Generation(ids=self.encoder.encode(f"{word}x"), finished=True, reference_bits=bits) for word in beginnings
        ]


@pytest.fixture
def generator(tmp_path: Path) -> Recording:
    return Recording(Path(builders.tiny_model(tmp_path / "model")))


def _judged(generator: Generator) -> list[str]:
    return [candidate.text for candidate in judge.complete(generator, [TASK])[0].candidates]


def _benchmark(generator: Generator) -> list[str]:
    prompt = generator.prompt(request_of(HOLE), 160)
    kept = completions.complete(generator, [prompt], model="m", max_new_tokens=4, references=["rn"])
    assert kept[0].bits_per_byte("rn") == 1 / len("return")
    return [each.text for each in kept]


def _evaluated(generator: Generator) -> list[str]:
    config = EvaluateConfig(max_prompt_tokens=160, max_new_tokens=8)
    return [row["output"] for row in holes.complete(config, generator, [ROW], bits=True)]


def _preferred(generator: Generator) -> list[str]:
    config = PreferencesConfig(max_prompt_tokens=160, max_new_tokens=8, temperatures=(0.5, 1.0), samples=1)
    return [candidate.text for candidate in sample(generator, [HOLE], config)[0]]


PLACES: dict[str, Callable[[Generator], list[str]]] = {
    "evaluation": _evaluated,
    "preferences": _preferred,
    "the benchmark of judges": _judged,
    "benchmarks": _benchmark,
}


@pytest.mark.parametrize("place", PLACES)
def test_a_half_typed_word_is_taken_from_the_prompt_and_from_the_answer(
    generator: Recording, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "_passed", lambda _, texts: [False] * len(texts))
    assert set(PLACES[place](generator)) == {"x"}
    whole = generator.encoder.encode(PREFIX)
    assert generator.given
    for prompt, word in generator.given:
        assert word == WORD
        assert whole[-1] not in prompt[-3:], "the tokens of the word are still in the prompt"


def _calls(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "generate":
                yield file.relative_to(folder.parent).as_posix()


def test_only_measurements_of_speed_sample_without_healing() -> None:
    folders = [Path(str(package.__file__)).parent for package in (infill, benchmarks)]
    assert {file for folder in folders for file in _calls(folder)} == RAW | OTHER_ENGINES
