"""The experiments that train, on tiny models; the finished run is a folder of tiny artifacts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infill import cli, config, manifest
from infill.artifacts import experiment as artifact
from infill.artifacts.examples import read_holes
from infill.artifacts.preferences import SCHEMA, read_pairs, write_pairs
from infill.errors import InputError
from infill.experiments import dpo_models, pair_choice
from infill.experiments.dpo_models import DpoModelsConfig
from infill.experiments.experiment import CELL
from infill.experiments.pair_choice import PairChoice
from infill.experiments.trained_models import FinishedRun
from tests import builders

SETTINGS = {
    **{
        f"{stage}.train.{name}": value
        for stage in ("sft", "dpo")
        for name, value in (("launcher", "local"), ("steps", 2))
    },
    "examples.holes": 24,
    "evaluate.holes": 4,
    "preferences.hard_negatives": 2,
    "preferences.holes": 8,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose base is also its SFT model."""
    out = tmp_path_factory.mktemp("a run")
    store, preset = out / "store", config.resolve("debug", SETTINGS)
    corpus = builders.write_documents(store / "corpus" / "x", builders.tiny_repositories())
    tokenizer = builders.tiny_tokenizer(store / "tokenizer" / "x")
    model = builders.tiny_model(store / "pretrain" / "x")
    builders.run_stage("examples", preset.examples, corpus, tokenizer, output=str(store / "examples" / "x"))
    builders.run_stage("sft", preset.sft, str(store / "examples" / "x"), model, output=str(store / "sft" / "x"))
    return out


def command(name: str, run: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    arguments = ["--run", str(run), "--preset", "debug", *settings, "--output", str(output)]
    assert cli.main(["experiment", name, *arguments]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def results(run: Path, stage: str) -> list[str]:
    """The folders of a stage's results in the store of the experiments."""
    return sorted(str(file.parent) for file in Path(FinishedRun(run).cells, stage).glob("*/manifest.json"))


def test_two_models_learn_from_holes_of_two_kinds(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = command("fim-split", run, tmp_path / "x", capsys)
    assert result["cells"] == ["syntactic", "random"]
    rows = artifact.read_measurements(str(tmp_path / "x"))
    assert Counter(row[CELL] for row in rows) == {"syntactic": 4, "random": 4}
    assert all(row["output_chars"] == len(row["output"]) for row in rows)
    assert "2 steps of 1,024 positions" in artifact.read_page(manifest.load(str(tmp_path / "x")))
    kinds = [
        {row["kind_start"] for row in read_holes(folder, "train", 99).to_pylist()}
        for folder in results(run, "examples")
    ]
    assert {"random"} in kinds
    trained = [manifest.load(folder).digest for folder in results(run, "sft")]
    assert len(trained) == 2
    again = command("fim-split", run, tmp_path / "y", capsys)
    assert [manifest.load(folder).digest for folder in results(run, "sft")] == trained
    assert again["measures"] == result["measures"]
    for stage in ("examples", "sft"):  # otherwise the next experiment would start from a cell of this one
        assert Path(FinishedRun(run).artifact(stage)).name == "x"


def test_each_source_gives_as_many_pairs(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = command("preference-sources", run, tmp_path / "x", capsys)
    assert sorted(result["cells"]) == ["SFT", "hard negatives", "rules"]
    pairs = [read_pairs(folder).to_pylist() for folder in results(run, pair_choice.FOLDER)]
    assert len(pairs[0]) == len(pairs[1]) > 0
    assert [len({pair_choice.source_of(pair) for pair in each}) for each in pairs] == [1, 1]


def test_variants_of_the_objective_make_different_models_of_the_same_pairs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(run, "dpo"), results(run, pair_choice.FOLDER)
    result = command("dpo-objectives", run, tmp_path / "x", capsys)
    assert result["cells"] == ["SFT", "DPO", "DPO and likelihood", "DPO per token"]
    models = [manifest.load(folder).digest for folder in set(results(run, "dpo")) - {*before[0]}]
    assert len(set(models)) == 3
    assert len(set(results(run, pair_choice.FOLDER)) - {*before[1]}) == 1


def test_one_language_alone_is_refused_in_a_sentence(run: Path, tmp_path: Path) -> None:
    preset = config.resolve("debug", SETTINGS)
    parts = {"preferences": preset.preferences, "dpo": preset.dpo, "evaluate": preset.evaluate}
    settings = DpoModelsConfig(name="dpo-languages", **parts)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"pairs in python and in others, they have: python \d+"):
        dpo_models.run(settings, FinishedRun(run), output=str(tmp_path / "x"))


def test_a_folder_that_is_not_a_run_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no finished stage sft"):
        FinishedRun(tmp_path).artifact("sft")


def pair(number: int, **fields: Any) -> dict[str, Any]:
    shared = dict.fromkeys(("repo", "path", "prefix", "suffix", "reason"), "")
    usual = {"id": str(number), "language": "go", "kind": "sample", "judge": "rules", "chosen": "a", "rejected": "b"}
    scores = {"rejected_finished": True, "score_chosen": 1.0, "score_rejected": 0.0}
    return {**shared, "context": [], **usual, **scores, **fields}


def test_pairs_are_drawn_by_source_and_language(tmp_path: Path) -> None:
    kinds = ["sample", "truth", "edited", "rated", "history", "stub"]
    pairs = [
        pair(n, kind=kinds[n % 6], language=("go", "rust")[n % 2], judge=("rules", "m")[n % 3 == 0]) for n in range(36)
    ]
    folder = str(tmp_path / "preferences")

    def body() -> dict[str, float]:
        write_pairs(folder, pa.Table.from_pylist(pairs, schema=SCHEMA))
        return {}

    builders.once(stage="preferences", output=folder, body=body)
    assert pair_choice.count_by(folder, "language") == {"go": 18, "rust": 18}
    sources = {"judge": 6, "rules": 6, "feedback": 6, "raters": 6, "history": 6, "hard negatives": 6}
    assert pair_choice.count_by(folder, "source") == sources

    def drawn(**choice: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_pairs(
            pair_choice.chosen(folder, PairChoice(**choice), str(tmp_path / "store"))
        ).to_pylist()
        return rows

    go = drawn(count=7, language="go")
    assert len(go) == 7
    assert {row["language"] for row in go} == {"go"}
    assert drawn(count=7, language="go") == go != drawn(count=7, language="go", seed=1)
    assert {row["kind"] for row in drawn(count=99, source="feedback")} == {"edited"}
    with pytest.raises(InputError, match="no pair"):
        drawn(count=7, language="c")
