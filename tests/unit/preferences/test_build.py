import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from infill import storage
from infill.artifacts.examples import read_holes, write_rows
from infill.artifacts.preferences import read_verdicts
from infill.config import ExamplesConfig, PreferencesConfig
from infill.errors import InputError, ServiceError
from infill.preferences import llm, preferences_stage
from infill.preferences.answer_store import AnswerStore
from infill.preferences.candidates import Candidate
from tests import builders
from tests.builders import run_stage
from tests.unit.preferences.server import completion, serve

CONFIG = PreferencesConfig(
    holes=10, temperatures=(0.5, 1.0), samples=1, max_new_tokens=12, min_margin=0.01, max_prompt_tokens=160
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    corpus = builders.write_documents(folder / "corpus", builders.tiny_repositories(count=3))
    model = builders.tiny_model(folder / "model")
    config = ExamplesConfig(holes=12, validation_holes=0, test_holes=0)
    run_stage("examples", config, corpus, model, output=str(folder / "examples"))
    return str(folder / "examples"), model


@pytest.fixture(scope="module")
def built(inputs: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("preferences")
    metrics = run_stage("preferences", CONFIG, *inputs, output=str(output))
    assert metrics["holes"] == 10
    return output


def _sha(folder: Path) -> str:
    return hashlib.sha256((folder / "pairs.parquet").read_bytes()).hexdigest()


def test_a_hopeless_model_still_gives_pairs_with_the_true_middle_chosen(built: Path, inputs: tuple[str, str]) -> None:
    holes = {row["id"]: row for row in read_holes(inputs[0], "train", 10).to_pylist()}
    rows = storage.read_table(str(built / "pairs.parquet")).to_pylist()
    truths = [row for row in rows if row["kind"] == "truth"]
    assert len(truths) == 10
    for row in truths:
        hole = holes[row["id"].removesuffix("-truth")]
        assert row["chosen"] == hole["middle"] != row["rejected"]
        assert row["context"] == hole["context"]
        assert "true middle" in row["reason"]
        assert row["score_chosen"] - row["score_rejected"] >= CONFIG.min_margin


def test_the_report_counts_the_pairs_by_kind(built: Path) -> None:
    report = storage.read_json(str(built / "report.json"))
    assert report["engine"] == "transformers"
    assert sum(report["kinds"].values()) == report["pairs"]
    assert report["counts"]["samples"] == 20


def test_a_killed_run_continues_with_the_next_chunk_and_ends_the_same(
    inputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preferences_stage, "CHUNK_HOLES", 4)
    run_stage("preferences", CONFIG, *inputs, output=str(tmp_path / "whole"))
    done: list[int] = []
    honest = preferences_stage.judge_chunk

    def judge_chunk(*arguments: object) -> object:
        done.append(len(done))
        if len(done) == 2:
            raise KeyboardInterrupt
        return honest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(preferences_stage, "judge_chunk", judge_chunk)
    with pytest.raises(KeyboardInterrupt):
        run_stage("preferences", CONFIG, *inputs, output=str(tmp_path / "killed"))
    run_stage("preferences", CONFIG, *inputs, output=str(tmp_path / "killed"))
    assert len(done) == 4
    assert _sha(tmp_path / "killed") == _sha(tmp_path / "whole")
    assert not (tmp_path / "killed" / "scratch").exists()


def test_no_train_hole_is_refused(inputs: tuple[str, str], tmp_path: Path) -> None:
    corpus = builders.write_documents(tmp_path / "corpus", builders.tiny_repositories(count=1), {"repo_0": "train"})
    folder = tmp_path / "examples"
    run_stage("examples", ExamplesConfig(holes=1), corpus, inputs[1], output=str(folder))
    (folder / "manifest.json").unlink()
    write_rows(str(folder / "examples" / "train.parquet"), [])
    builders.once(stage="examples", output=str(folder), body=dict)
    with pytest.raises(InputError, match="no train holes"):
        run_stage("preferences", CONFIG, str(folder), inputs[1], output=str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("judge", "problem"),
    [
        ("nobody", "must be rules or the base URL"),
        ("https://me:secret@host/v1", "must not contain a user name or password"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused(judge: str, problem: str, tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=problem) as error,
        preferences_stage.open_judge(PreferencesConfig(judge=judge), AnswerStore(str(tmp_path), "run")),
    ):
        pass
    assert "secret" not in str(error.value)


def test_a_judges_nonsense_costs_its_hole(
    inputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preferences_stage, "JUDGE_REQUESTS", 1)
    better, worse = (
        json.dumps({"verdicts": [{"score": score} for score in scores]}) for scores in ((0.9, 0.2), (0.3, 0.8))
    )
    answers = [completion(each) for each in [better, worse] * 4]
    with serve(completion("no idea"), completion("none"), *answers) as server:
        config = replace(CONFIG, holes=5, judge=server.url, judge_model="critic")
        run_stage("preferences", config, *inputs, output=str(tmp_path))
    report = storage.read_json(str(tmp_path / "report.json"))
    assert report["counts"]["holes without a usable verdict"] == 1
    rows = storage.read_table(str(tmp_path / "pairs.parquet")).to_pylist()
    assert {row["judge"] for row in rows} == {config.judge}
    assert {row["kind"] for row in rows} == {"sample"}
    agreement = report["judge_agreement"]
    assert (agreement["holes"], agreement["holes_in_one_order_only"]) == (4, 0)
    assert agreement["agreement_of_orders"]["value"] == 1.0
    assert agreement["difference_of_orders"]["mean"] == pytest.approx(0.1)
    assert agreement["agreement_with_rules"]["pairs"] <= 4
    assert report["judge_spent"]["requests"] == len(server.requests) == 10
    assert report["rubric"] == llm.RUBRIC
    verdicts = read_verdicts(str(tmp_path)).to_pylist()
    assert [row["orders"] for row in verdicts] == [[0.9, 0.8], [0.2, 0.3]] * 4


def test_a_judge_that_only_talks_nonsense_ends_the_run(inputs: tuple[str, str], tmp_path: Path) -> None:
    with serve(completion("no idea")) as server, pytest.raises(ServiceError, match="more capable"):
        run_stage("preferences", replace(CONFIG, judge=server.url), *inputs, output=str(tmp_path))
    assert not (tmp_path / "pairs.parquet").exists()


def test_a_model_without_fault_still_gives_pairs(
    inputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def perfect(generator: object, holes: list[dict[str, str]], config: object) -> list[list[Candidate]]:
        return [[Candidate(text=hole["middle"], finished=True, temperature=0.5)] for hole in holes]

    monkeypatch.setattr(preferences_stage, "sample", perfect)
    metrics = run_stage("preferences", CONFIG, *inputs, output=str(tmp_path))
    assert metrics["pairs"] == metrics["pairs_echo"] == 10
    for row in storage.read_table(str(tmp_path / "pairs.parquet")).to_pylist():
        assert row["rejected"].startswith(row["chosen"])
        assert row["rejected"] != row["chosen"]
