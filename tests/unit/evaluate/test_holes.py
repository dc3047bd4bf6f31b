from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infill import manifest, metrics, storage
from infill.artifacts.examples import SCHEMA, read_holes
from infill.config import EvaluateConfig, ExamplesConfig
from infill.errors import InputError
from infill.evaluate import completed
from infill.evaluate import holes as stage
from infill.evaluate.results import column
from tests import builders
from tests.builders import run_stage

CONFIG = EvaluateConfig(holes=8, max_new_tokens=12, max_prompt_tokens=160, bootstrap=100)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    corpus = builders.write_documents(folder / "corpus", builders.tiny_repositories(count=3))
    model = builders.tiny_model(folder / "model")
    config = ExamplesConfig(holes=12, validation_holes=0, test_holes=12)
    run_stage("examples", config, corpus, model, output=str(folder / "examples"))
    return str(folder / "examples"), model


@pytest.fixture(scope="module")
def evaluated(inputs: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("evaluation")
    run_stage("evaluate", CONFIG, *inputs, output=str(output))
    return output


def test_the_record_says_what_was_measured_on_what(evaluated: Path, inputs: tuple[str, str]) -> None:
    record = storage.read_json(str(evaluated / "record.json"))
    assert record["model_digest"] == manifest.digest_of(inputs[1])
    assert (record["holes"], record["engine"]) == (8, "transformers")
    assert tuple(record["metrics"]) == tuple(sorted(metrics.METRICS))
    for figures in record["metrics"].values():
        assert 0 <= figures["low"] <= figures["value"] <= figures["high"] <= 1
    assert sum(group["holes"] for group in record["by_kind"].values()) == 8
    assert list(record["by_language"]) == ["python"]


def test_the_results_are_those_of_the_first_holes_by_id(evaluated: Path, inputs: tuple[str, str]) -> None:
    results = storage.read_table(str(evaluated / "results.parquet"))
    holes = read_holes(inputs[0], "test", 8)
    assert results["id"].to_pylist() == holes["id"].to_pylist()
    assert results["middle"].to_pylist() == holes["middle"].to_pylist()
    assert all(n <= CONFIG.max_prompt_tokens for n in column(results, "prompt_tokens"))
    value = storage.read_json(str(evaluated / "record.json"))["metrics"]["kk"]["value"]
    assert sum(column(results, "kk")) / 8 == pytest.approx(value)


def test_the_plots_are_pictures(evaluated: Path) -> None:
    images = sorted(evaluated.glob("*.png"))
    assert len(images) == 3
    assert all(image.read_bytes().startswith(b"\x89PNG") for image in images)


def test_the_same_model_and_holes_give_the_same_artifact(
    evaluated: Path, inputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completed, "beside", lambda *_: {})  # compute all again
    run_stage("evaluate", CONFIG, *inputs, output=str(tmp_path))
    assert manifest.digest_of(str(tmp_path)) == manifest.digest_of(str(evaluated))


def test_the_time_of_single_completions_is_measured_if_wanted(inputs: tuple[str, str], tmp_path: Path) -> None:
    run_stage("evaluate", replace(CONFIG, latency_holes=3), *inputs, output=str(tmp_path))
    latency = storage.read_json(str(tmp_path / "record.json"))["latency"]
    assert 0 < latency["p50_ms"] <= latency["p90_ms"]
    assert (latency["completions"], latency["engine"]) == (3, "transformers")
    assert latency["machine"].endswith(" threads")


def test_the_benchmark_digest_covers_holes_and_budget(inputs: tuple[str, str]) -> None:
    holes = read_holes(inputs[0], "test", 8)
    digest = stage.benchmark_digest(CONFIG, holes)
    assert stage.benchmark_digest(CONFIG, holes) == digest
    assert stage.benchmark_digest(CONFIG, holes.slice(1)) != digest
    assert stage.benchmark_digest(EvaluateConfig(max_prompt_tokens=64), holes) != digest


def test_no_test_hole_is_an_error_that_says_what_to_do(inputs: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=r"raise corpus\.test_share"):
        stage.evaluate_model(CONFIG, SCHEMA.empty_table(), inputs[1])


def test_a_killed_evaluation_continues_and_ends_the_same(
    inputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "CHUNK_HOLES", 3)
    run_stage("evaluate", CONFIG, *inputs, output=str(tmp_path / "whole" / "x"))
    honest, done = stage.complete, []

    def complete(*arguments: Any) -> list[dict[str, Any]]:
        done.append(len(arguments[2]))
        if len(done) == 2:
            raise KeyboardInterrupt
        return honest(*arguments)

    monkeypatch.setattr(stage, "complete", complete)
    with pytest.raises(KeyboardInterrupt):
        run_stage("evaluate", CONFIG, *inputs, output=str(tmp_path / "killed" / "x"))
    run_stage("evaluate", CONFIG, *inputs, output=str(tmp_path / "killed" / "x"))
    assert done == [3, 3, 3, 2]
    assert manifest.digest_of(str(tmp_path / "killed" / "x")) == manifest.digest_of(str(tmp_path / "whole" / "x"))


def test_holes_that_are_added_are_the_only_ones_to_be_completed(
    inputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("evaluate", CONFIG, *inputs, output=str(tmp_path / "alone" / "all"))
    honest, ids = stage.complete, list[Any]()

    def complete(*arguments: Any) -> list[dict[str, Any]]:
        ids.extend(hole["id"] for hole in arguments[2])
        return honest(*arguments)

    monkeypatch.setattr(stage, "complete", complete)
    run_stage("evaluate", replace(CONFIG, holes=5), *inputs, output=str(tmp_path / "store" / "few"))
    few = list(ids)
    run_stage("evaluate", CONFIG, *inputs, output=str(tmp_path / "store" / "all"))
    assert ids == read_holes(inputs[0], "test", 8)["id"].to_pylist()
    assert len(few) == 5
    whole, added = (manifest.digest_of(str(tmp_path / name / "all")) for name in ("alone", "store"))
    assert added == whole


def test_another_model_or_another_budget_completes_all_holes(
    inputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage("evaluate", CONFIG, *inputs, output=str(tmp_path / "first"))
    honest, ids = stage.complete, list[Any]()

    def complete(*arguments: Any) -> list[dict[str, Any]]:
        ids.append(len(arguments[2]))
        return honest(*arguments)

    monkeypatch.setattr(stage, "complete", complete)
    other = builders.tiny_model(tmp_path / "model", seed=1)
    run_stage("evaluate", CONFIG, inputs[0], other, output=str(tmp_path / "second"))
    run_stage("evaluate", replace(CONFIG, max_new_tokens=11), *inputs, output=str(tmp_path / "third"))
    run_stage("evaluate", replace(CONFIG, bootstrap=90), *inputs, output=str(tmp_path / "fourth"))
    assert ids == [8, 8]


def test_an_earlier_evaluation_that_is_damaged_is_computed_again(inputs: tuple[str, str], tmp_path: Path) -> None:
    run_stage("evaluate", CONFIG, *inputs, output=str(tmp_path / "first"))
    (tmp_path / "first" / "results.parquet").write_bytes(b"not a table")
    assert completed.beside(str(tmp_path / "second"), manifest.digest_of(inputs[1])) == {}
    (tmp_path / "first" / "record.json").write_bytes(b"{")
    run_stage("evaluate", CONFIG, *inputs, output=str(tmp_path / "second"))
    assert storage.read_table(str(tmp_path / "second" / "results.parquet")).num_rows == 8
