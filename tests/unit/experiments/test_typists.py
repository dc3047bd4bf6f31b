"""Typists at real servers with the tiny model: the figures are those of their requests, and every round begins cold."""

import json
from pathlib import Path

import pytest

from infill import cli, manifest
from infill.artifacts import experiment as artifact
from infill.errors import InputError, ServiceError
from infill.experiments.experiment import CELL
from infill.experiments.typed_sessions import CHARS, STEPS, sessions
from infill.experiments.typists import TypistsConfig, Waits, _figures, run
from tests import builders
from tests.unit.experiments import chained


@pytest.mark.slow
def test_each_cell_has_its_typists_requests_and_no_round_knows_the_last_ones_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = builders.tiny_model(tmp_path / "model", context_length=1024)
    sizes = ["--typists", "1,3", "--rounds", "2", "--moments", "4", "--pause-s", "0.01", "--max-prompt-tokens", "800"]
    output = str(tmp_path / "x")
    capsys.readouterr()
    arguments = ["--repo", str(chained.write(tmp_path / "repo")), "--model", model, *sizes, "--output", output]
    assert cli.main(["experiment", "typists", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["cells"] == ["1", "3"]
    for row in artifact.read_measurements(output):
        requests = 4 * int(row[CELL])
        assert len(row["first_ms"]) == len(row["whole_ms"]) == requests
        assert all(0 < first <= whole for first, whole in zip(row["first_ms"], row["whole_ms"], strict=True))
        assert 500 < row["prompt_tokens"] <= 800, "the project fills the prompt"
        assert row["refused"] == 0
        assert 0 < row["known_tokens"] < 1
        assert 0 <= row["cached"] <= 3 / 4, "the first request of a typist is not answered from a cache"
    page = artifact.read_page(manifest.load(output))
    assert "whole answer, p99 (ms)" in page
    assert result["conclusion"] in page


def test_sessions_type_the_hidden_lines_with_slips() -> None:
    typed = sessions(chained.chained_files(), 5, "a")
    assert len(typed) == 5
    for session in typed:
        right = [moment for moment in session.moments if moment.rest]
        assert len(right) >= STEPS
        assert all((moment.typed + moment.rest).startswith(session.hole.middle[: STEPS * CHARS]) for moment in right)
        assert session.body(session.moments[0])["prompt"].startswith(session.hole.query.prefix)


def test_a_round_without_an_answer_and_a_project_without_sessions_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="refused all 3 requests"):
        _figures([Waits(refused=1), Waits(refused=2)], 1.0)
    some = Waits([10.0], [30.0], [100], [40], [False], refused=1)
    assert _figures([some, Waits()], 2.0) == {
        "first_ms": [10.0],
        "whole_ms": [30.0],
        "per_s": 0.5,
        "cached": 0.0,
        "known_tokens": 0.4,
        "prompt_tokens": 100.0,
        "refused": 0.5,
    }
    (tmp_path / "repo").mkdir()
    with pytest.raises(InputError, match="lines for only 0 of 8 typists"):
        run(
            TypistsConfig(),
            repository=tmp_path / "repo",
            model=builders.tiny_model(tmp_path / "model"),
            output=str(tmp_path / "x"),
            serve=lambda *_: pytest.fail("no server is needed"),
        )
