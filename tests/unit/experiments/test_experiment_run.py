import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infill import cli, manifest, storage
from infill.artifacts import experiment as artifact
from infill.artifacts.examples import split_file, write_rows
from infill.config import ExamplesConfig
from infill.errors import InputError
from infill.experiments import context_budget, experiment_run
from infill.experiments.context_budget import ContextBudgetConfig
from infill.experiments.experiment import CELL, HOLE, Experiment, Measure, Row
from tests import builders


@dataclass(frozen=True, kw_only=True)
class Settings:
    level: float = 0.5


@dataclass
class Machine:
    """Measures holes, and is killed at the hole `stop`."""

    stop: int = 99
    measured: list[tuple[int, str]] = field(default_factory=list)

    def measure(self, cell: str, place: int) -> Row:
        if place == self.stop:
            raise KeyboardInterrupt
        self.measured.append((place, cell))
        return {"kk": place / 10 + (cell == "b")}

    def experiment(self) -> Experiment:
        return Experiment(
            name="x",
            question="?",
            factor="f",
            cells=("a", "b"),
            baseline="a",
            measures=[Measure(name="kk", label="KK")],
            holes=[f"hole {place}" for place in range(6)],
            measure=self.measure,
        )


def test_a_killed_experiment_continues_with_the_block_that_is_missing(tmp_path: Path) -> None:
    output, killed = str(tmp_path / "x"), Machine(stop=5)
    with pytest.raises(KeyboardInterrupt):
        experiment_run.run(killed.experiment, config=Settings(), inputs={}, output=output)
    assert manifest.find(output) is None
    again = Machine()
    done = experiment_run.run(again.experiment, config=Settings(), inputs={}, output=output)
    assert [place for place, _ in killed.measured] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert again.measured == [(4, "a"), (4, "b"), (5, "b"), (5, "a")], "the cells take turns"
    rows = artifact.read_measurements(output)
    assert [row["kk"] for row in rows if row[CELL] == "a"] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert [row[HOLE] for row in rows if row[CELL] == "b"] == [f"hole {place}" for place in range(6)]
    assert sorted(done.files) == ["figure.png", "figure.svg", "measurements.parquet", "report.json", "report.md"]
    finished = Machine()
    assert experiment_run.run(finished.experiment, config=Settings(), inputs={}, output=output).digest == done.digest
    assert finished.measured == []


def test_holes_of_other_settings_are_measured_again(tmp_path: Path) -> None:
    output, killed, other = str(tmp_path / "x"), Machine(stop=5), Machine()
    with pytest.raises(KeyboardInterrupt):
        experiment_run.run(killed.experiment, config=Settings(), inputs={}, output=output)
    experiment_run.run(other.experiment, config=Settings(level=0.6), inputs={}, output=output)
    assert len(other.measured) == 12
    with pytest.raises(InputError, match="already has another"):
        experiment_run.run(other.experiment, config=Settings(), inputs={}, output=output)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    corpus = builders.write_documents(folder / "corpus", builders.tiny_repositories(count=3))
    model = builders.tiny_model(folder / "model", context_length=512)
    config = ExamplesConfig(holes=12, validation_holes=0, test_holes=12)
    builders.run_stage("examples", config, corpus, model, output=str(folder / "examples"))
    return str(folder / "examples"), model


def test_a_budget_of_context_is_kept_and_the_text_around_the_caret_stays(
    inputs: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command, with a budget beyond the model's context."""
    examples, model = inputs
    sizes = ["--budgets", "0,200,9999", "--holes", "4", "--caret-tokens", "96", "--max-new-tokens", "8"]
    output = str(tmp_path / "x")
    arguments = ["--examples", examples, "--model", model, *sizes, "--output", output]
    assert cli.main(["experiment", "context-budget", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["cells"] == ["0", "200", "408"]
    by_cell: dict[str, list[Row]] = {}
    for row in artifact.read_measurements(output):
        by_cell.setdefault(row[CELL], []).append(row)
    for cell, rows in by_cell.items():
        around = [row["prompt_tokens"] - row["context_tokens"] for row in rows]
        assert around == [row["prompt_tokens"] for row in by_cell["0"]]
        assert max(around) <= 96
        assert 0 < max(row["context_tokens"] for row in rows) <= int(cell) or cell == "0"
    assert max(row["context_tokens"] for row in by_cell["0"]) == 0
    assert max(row["context_tokens"] for row in by_cell["408"]) > 200
    page = artifact.read_page(manifest.load(output))
    assert result["conclusion"] in page
    assert "4 holes (python)" in page


def test_impossible_experiments_are_refused_in_a_sentence(inputs: tuple[str, str], tmp_path: Path) -> None:
    examples, model = inputs
    with pytest.raises(InputError, match="lower --caret-tokens"):
        context_budget.run(ContextBudgetConfig(), examples=examples, model=model, output=str(tmp_path / "a"))
    write_rows(split_file(str(tmp_path / "empty"), "test"), [])
    with pytest.raises(InputError, match="no test holes"):
        context_budget.run(
            ContextBudgetConfig(), examples=str(tmp_path / "empty"), model=model, output=str(tmp_path / "b")
        )
    assert not storage.exists(str(tmp_path / "b"))
