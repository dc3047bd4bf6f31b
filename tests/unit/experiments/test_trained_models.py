"""The experiments that train, on tiny models; the finished run is a folder of tiny artifacts."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pytest

from infill import cli, config, manifest
from infill.artifacts import experiment as artifact
from infill.artifacts import rating
from infill.artifacts.examples import read_holes
from infill.artifacts.preferences import SCHEMA, read_pairs, write_pairs
from infill.errors import InputError
from infill.experiments import dpo_models, pair_choice, pair_sources
from infill.experiments.dpo_models import DpoModelsConfig
from infill.experiments.experiment import CELL
from infill.experiments.pair_choice import PairChoice
from infill.experiments.trained_models import FinishedRun
from infill.feedback import feedback_row
from infill.preferences.feedback import REPO
from tests import builders
from tests.unit.preferences import server
from tests.unit.preferences.test_feedback import ROW
from tests.unit.rating import rating_sets

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


def command(
    name: str,
    run: Path,
    output: Path,
    capsys: pytest.CaptureFixture[str],
    more: Mapping[str, Any] = MappingProxyType({}),
    *options: str,
) -> dict[str, Any]:
    settings = [part for key, value in {**SETTINGS, **more}.items() for part in ("--set", f"{key}={value}")]
    arguments = ["--run", str(run), "--preset", "debug", *settings, *options, "--output", str(output)]
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


def feedback(folder: Path, rows: int) -> Path:
    """Feedback of users who wrote something else."""
    (folder / "_").mkdir(parents=True)
    lines = [{**ROW, "id": str(n), "outcome": "rejected", "final": f"width * {n}"} for n in range(rows)]
    (folder / "_" / "1.jsonl").write_bytes(b"".join(map(feedback_row.line, lines)))
    return folder


def ratings(folder: Path, rated: int) -> Path:
    """A rating set of which two raters found the first completion better in some items."""
    folder = rating_sets.build(folder)
    for rater in ("ada", "bob"):
        for item in rating.read_items(str(folder))[:rated]:
            rating.RatingsFile(folder, rater).add({"item": item["id"], "left": "first", "choice": "first"})
    return folder


def test_each_source_that_the_settings_name_gives_as_many_pairs_of_its_own(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = [{"score": 0.4, "reason": "poor"}, {"score": 0.1, "reason": "bad"}]
    before = results(run, pair_choice.FOLDER)
    with server.serve(server.completion(json.dumps({"verdicts": verdicts}))) as judge:
        more = {
            "preferences.samples": 1,
            "preferences.hard_negatives": 0,
            "preferences.judge": judge.url,
            "preferences.feedback": feedback(tmp_path / "feedback", 5),
            "preferences.ratings": ratings(tmp_path, 4),
        }
        result = command("preference-sources", run, tmp_path / "x", capsys, more, "--pairs", "2")
    assert result["cells"] == ["SFT", "raters", "feedback", "rules", "judge"]
    pairs = [read_pairs(folder).to_pylist() for folder in set(results(run, pair_choice.FOLDER)) - {*before}]
    assert [len(each) for each in pairs] == [2] * 4
    sources = [{pair_choice.source_of(pair) for pair in each} for each in pairs]
    assert Counter(name for each in sources for name in each) == Counter(result["cells"][1:])
    assert result["second"]["against"] == "rules"
    page = artifact.read_page(manifest.load(str(tmp_path / "x")))
    assert "compared with rules: " in page
    assert page.splitlines()[-1].startswith("Bold: beyond chance")
    for line in (
        "| raters | 4 | rated ",
        "2 raters agree with each other in 1.00 [",
        "orders two candidates as the rules",
    ):
        assert line in page
    assert "Feedback: rows 5, typed 5." in page


def test_variants_of_the_objective_make_different_models_of_the_same_pairs(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(run, "dpo"), results(run, pair_choice.FOLDER)
    result = command("dpo-objectives", run, tmp_path / "x", capsys)
    assert result["cells"] == ["SFT", "DPO", "DPO and likelihood", "DPO per token"]
    models = [manifest.load(folder).digest for folder in set(results(run, "dpo")) - {*before[0]}]
    assert len(set(models)) == 3
    assert len(set(results(run, pair_choice.FOLDER)) - {*before[1]}) == 1


def test_a_poor_source_is_refused_before_the_next_one_is_built(run: Path, tmp_path: Path) -> None:
    preferences = replace(config.resolve("debug", SETTINGS).preferences, feedback=str(feedback(tmp_path / "f", 3)))
    built = []

    def build(settings: Any) -> str:
        built.append(settings)
        parts = (FinishedRun(run).artifact("examples"), FinishedRun(run).artifact("sft"))
        builders.run_stage("preferences", settings, *parts, output=str(tmp_path / f"p{len(built)}"))
        return str(tmp_path / f"p{len(built)}")

    with pytest.raises(InputError, match=r"feedback gives 3 pairs, but 4 are needed; .*preferences\.feedback"):
        pair_sources.collect(preferences, build, 4)
    with pytest.raises(InputError, match="neither feedback nor ratings give a pair yet"):
        pair_sources.collect(replace(preferences, feedback=str(tmp_path / "none")), build, 4)
    assert [(each.holes, each.hard_negatives) for each in built] == [(0, 0), (0, 0)]
    with pytest.raises(InputError, match="name one source of pairs, the rules"):
        pair_sources.collect(replace(preferences, feedback="", hard_negatives=0), build, 4)


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
    kept = pair(36, repo=REPO)  # a sample where a user kept a suggestion
    pairs = [
        pair(n, kind=kinds[n % 6], language=("go", "rust")[n % 2], judge=("rules", "m")[n % 3 == 0]) for n in range(36)
    ]
    pairs.append(kept)
    folder = str(tmp_path / "preferences")

    def body() -> dict[str, float]:
        write_pairs(folder, pa.Table.from_pylist(pairs, schema=SCHEMA))
        return {}

    builders.once(stage="preferences", output=folder, body=body)
    assert pair_choice.count_by(folder, "language") == {"go": 19, "rust": 18}
    sources = {"judge": 6, "rules": 6, "feedback": 7, "raters": 6, "history": 6, "hard negatives": 6}
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
    assert {row["kind"] for row in drawn(count=99, source="feedback")} == {"edited", "sample"}
    with pytest.raises(InputError, match="no pair"):
        drawn(count=7, language="c")
