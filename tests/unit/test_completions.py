"""Completions of a benchmark that is killed are not computed again, and those of other questions are not taken."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import completions
from infill.evaluate.generation import SampledCompletion

PROMPTS = [[1, 2], [3], [4, 5, 6], [1, 2]]


class Counting:
    """Answers each prompt with its sum, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def complete(self, prompts: Sequence[Sequence[int]], **settings: Any) -> list[SampledCompletion]:
        self.asked += [list(prompt) for prompt in prompts]
        references = settings["references"] or [""] * len(prompts)
        return [
            SampledCompletion(text="x", tokens=sum(prompt), finished=True, reference_bits=float(len(reference)))
            for prompt, reference in zip(prompts, references, strict=True)
        ]


def _complete(keep: Path | None, generator: Counting, **settings: Any) -> list[int]:
    asked = {"model": "digest", "max_new_tokens": 4} | settings
    answers = completions.complete(generator, PROMPTS, keep=keep, **asked)  # type: ignore[arg-type]
    return [answer.tokens for answer in answers]


def test_what_is_kept_is_not_asked_again_even_after_a_line_that_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "CHUNK", 2)
    keep = tmp_path / "new folder" / "kept.jsonl"
    assert _complete(keep, Counting()) == [3, 3, 15, 3]
    lines = keep.read_bytes().split(b"\n")
    keep.write_bytes(b"\n".join(lines[:-1]) + b"\n" + lines[-1][:20])
    again = Counting()
    assert _complete(keep, again) == [3, 3, 15, 3]
    assert again.asked == [PROMPTS[2]]  # the longest comes last
    last = Counting()
    assert _complete(keep, last) == [3, 3, 15, 3]
    assert not last.asked


@pytest.mark.parametrize(
    "other",
    [{"model": "another"}, {"max_new_tokens": 5}, {"references": ["7", "8", "9", "7"]}, {"ends": False}],
    ids=str,
)
def test_what_was_asked_otherwise_is_asked_again(tmp_path: Path, other: dict[str, Any]) -> None:
    _complete(tmp_path / "kept", Counting())
    generator = Counting()
    _complete(tmp_path / "kept", generator, **other)
    assert len(generator.asked) >= 3
