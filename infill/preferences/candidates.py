"""Candidates: completions of a hole by the model, at several temperatures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infill.artifacts.examples import request_of
from infill.config import PreferencesConfig
from infill.evaluate.generation import Generator


@dataclass(frozen=True, kw_only=True)
class Candidate:
    text: str
    finished: bool
    """Whether it ended with a stop token rather than at the limit of new tokens."""
    temperature: float
    """The lowest temperature at which it was sampled."""


def sample(
    generator: Generator, holes: Sequence[Mapping[str, Any]], config: PreferencesConfig
) -> list[list[Candidate]]:
    """Return the distinct completions of each hole, from the lowest temperature to the highest.

    `config.samples` completions are drawn per temperature; equal texts count once.
    """
    temperatures = [heat for heat in sorted(config.temperatures) for _ in range(config.samples)]
    prompts = [generator.prompt(request_of(hole), config.max_prompt_tokens) for hole in holes]
    completions = generator.complete(
        [prompt for prompt in prompts for _ in temperatures],
        max_new_tokens=config.max_new_tokens,
        temperature=temperatures * len(prompts),
        seed=config.seed,
    )
    candidates = []
    for number in range(len(prompts)):
        distinct: dict[str, Candidate] = {}
        mine = completions[number * len(temperatures) : (number + 1) * len(temperatures)]
        for heat, each in zip(temperatures, mine, strict=True):
            distinct.setdefault(each.text, Candidate(text=each.text, finished=each.finished, temperature=heat))
        candidates.append(list(distinct.values()))
    return candidates
