"""Runs that were moved or copied: an artifact is where it is found, and finds the others of its run there."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from infill import cli, manifest, report, stages, storage, tracking
from infill.config import DeployConfig, ExamplesConfig, RegisterConfig
from infill.errors import InputError
from infill.release import registry
from infill.stages import MODELS
from infill.train import history
from pipelines import local as pipeline
from serving import local
from tests.builders import run_stage, tiny_model, tiny_repositories, tiny_tokenizer, write_documents
from tests.unit.release import parts

Answer = dict[str, Any]

PLACES: Final = ("moved", "copied", "copied, original deleted", "copied, original without weights")
"""What happens to a run before it is used. In each it must work from its new place, and with files of that place."""


@dataclass(frozen=True)
class Run:
    """A finished run as its stages leave it: real artifacts, evaluations with given scores."""

    out: Path

    @property
    def model(self) -> str:
        return str(self.out / "store" / "sft" / "k2")

    @property
    def decision(self) -> str:
        return str(self.out / "store" / "register" / "k2")


def model(folder: Path, seed: int) -> str:
    """A tiny model with the history of its training."""
    written = history.History(str(folder), 0)
    row = {"step": 1, "steps": 1, "tokens": 9, "loss": 3.0, "tokens_per_s": 1.0, "skipped": 0, "lap_s": 1.0}
    written.append(row)
    return tiny_model(folder, seed=seed)


def register(store: Path, holes: str, key: str, scores: Mapping[str, float], seed: int) -> None:
    """Models, evaluations, decision and deployment record of one pass of the pipeline."""
    models = {name: model(store / name / key, seed + number) for number, name in enumerate(MODELS)}
    evaluations = [
        parts.evaluation(store / "evaluate" / f"{name}-{key}", models[name], [scores[name]] * 20) for name in MODELS
    ]
    decision = str(store / "register" / key)
    run_stage("register", RegisterConfig(bootstrap=50), holes, *models.values(), *evaluations, output=decision)
    run_stage(
        "deploy", DeployConfig(max_prompt_tokens=200, max_new_tokens=8), decision, output=str(store / "deploy" / key)
    )


@pytest.fixture(scope="module")
def original(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has been registered twice, so that there is a version to go back to."""
    out = tmp_path_factory.mktemp("original") / "my run"
    store = out / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracking.local_store(str(out)))
        shutil.copy(empty_store, out / "mlflow")
        corpus = write_documents(store / "corpus" / "k", tiny_repositories())
        tokenizer = tiny_tokenizer(store / "tokenizer" / "k")
        holes = str(store / "examples" / "k")
        run_stage(
            "examples", ExamplesConfig(holes=9, validation_holes=3, test_holes=3), corpus, tokenizer, output=holes
        )
        with tracking.stage_run("register", config={}) as tracker:
            tracker.artifact(store / "examples" / "k" / "report.json")
            register(store, holes, "k1", {"base": 0.1, "sft": 0.3, "dpo": 0.2}, seed=0)
        register(store, holes, "k2", {"base": 0.1, "sft": 0.5, "dpo": 0.2}, seed=10)
    return Run(out)


@pytest.fixture
def run(original: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Run]]:
    """Gives the run after it was moved or copied, with a working directory that is neither."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", tracking.PARENT_RUN):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    kept = tmp_path / "kept"
    shutil.copytree(original.out, kept)
    target = tmp_path / "elsewhere" / "run"
    target.parent.mkdir()

    def place(how: str) -> Run:
        if how == "moved":
            shutil.move(original.out, target)
            return Run(target)
        shutil.copytree(original.out, target, copy_function=shutil.copy)  # as cp -r: the files' times are new
        if how == "copied, original deleted":
            shutil.rmtree(original.out)
        if how == "copied, original without weights":
            for file in original.out.rglob("model.safetensors"):
                file.unlink()
        return Run(target)

    yield place
    shutil.rmtree(original.out, ignore_errors=True)
    shutil.move(kept, original.out)


def answer_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Answer:
    """What a command prints last."""
    capsys.readouterr()
    assert cli.main(arguments) == 0, capsys.readouterr().err
    answer: Answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    return answer


def export(run: Run, tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = answer_of(["export", "gguf", run.model, "--to", str(tmp / "model.gguf")], capsys)
    assert answer["bytes"] == (tmp / "model.gguf").stat().st_size


def status(run: Run, tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer_of(["train", "status", run.model], capsys)["state"] == "finished"


def evaluate(run: Run, tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    holes = str(run.out / "store" / "examples" / "k")
    small = ["--preset", "debug", "--set", "evaluate.holes=1", "--set", "evaluate.max_new_tokens=2"]
    small += ["--set", "evaluate.max_prompt_tokens=64"]
    answer = answer_of(["evaluate", *small, "--examples", holes, "--model", run.model, "--output", "eval"], capsys)
    assert answer["uri"] == str(Path.cwd() / "eval")
    record = storage.read_json("eval/record.json")
    assert record["model_digest"] == manifest.digest_of(run.model)
    assert record["model_uri"] == run.model


def serve(run: Run, tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = local.resolve(pipeline.deployment_of(run.out))
    assert (target.model, manifest.fetch(target.model)) == (run.model, Path(run.model))
    assert Path(target.deployment).is_relative_to(run.out)
    assert Path(pipeline.examples_of(run.out)).is_relative_to(run.out)


def deploy_again(run: Run, tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = answer_of(["deploy", "--decision", run.decision, "--output", str(run.out / "store/deploy/new")], capsys)
    assert storage.read_json(f"{answer['uri']}/deployment.json")["model_uri"] == run.model


def rollback(run: Run, tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    back = answer_of(["rollback", "--out", str(run.out)], capsys)
    assert back["model_uri"] == str(run.out / "store" / "sft" / "k1")
    assert local.resolve(pipeline.deployment_of(run.out)).model == back["model_uri"]


def registered(run: Run, tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracking.local_store(str(run.out)))
        champion = registry.champion("infill")
        assert champion is not None
        assert champion.model_uri == run.model
        assert Path(champion.tags[registry.EVALUATION_URI]).is_relative_to(run.out)
        client = tracking.client()
        experiment = client.get_experiment_by_name("infill")
        assert experiment is not None
        assert experiment.artifact_location == (run.out / "mlflow" / "artifacts").as_uri()
        logged = [run.info.run_id for run in client.search_runs([experiment.experiment_id])]
        assert "report.json" in [file.path for each in logged for file in client.list_artifacts(each)]


def repeat(run: Run, tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The register stage is run again at its address and finds its work done."""
    store, before = run.out / "store", manifest.load(run.decision)
    models = [str(store / name / "k2") for name in MODELS]
    evaluations = [str(store / "evaluate" / f"{name}-k2") for name in MODELS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracking.local_store(str(run.out)))
        config = RegisterConfig(bootstrap=50)
        run_stage("register", config, str(store / "examples" / "k"), *models, *evaluations, output=run.decision)
    assert manifest.load(run.decision) == before


COMMANDS: Final = (export, status, evaluate, serve, deploy_again, rollback, registered, repeat)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_run_works_where_it_is(
    run: Callable[[str], Run],
    place: str,
    command: Callable[[Run, Path, pytest.CaptureFixture[str]], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command(run(place), tmp_path, capsys)


@pytest.mark.parametrize("loss", ["deleted", "cut off"])
def test_a_copy_without_its_weights_says_so(
    run: Callable[[str], Run], loss: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = run("copied")
    weights = Path(copy.model) / "model.safetensors"
    if loss == "deleted":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:100])
    store, here = copy.out / "store", ["--output", str(tmp_path / "x")]
    holes, corpus, tokenizer = (str(store / name / "k") for name in ("examples", "corpus", "tokenizer"))
    based = ["--preset", "debug", "--base-model", copy.model, "--corpus", corpus, "--tokenizer", tokenizer]
    for command in (
        ["export", "gguf", copy.model, "--to", "x.gguf"],
        ["evaluate", "--examples", holes, "--model", copy.model, *here],
        ["train", "sft", "--examples", holes, "--model", copy.model, *here],
        ["train", "pretrain", *based, *here],
        ["serve", "--out", str(copy.out)],
        ["serve", "--model", copy.model],
        ["smoke", "--out", str(copy.out)],
    ):
        assert cli.main(command) == 2, command
        output = capsys.readouterr().err
        assert f"{copy.model} is incomplete: model.safetensors" in output, command
        assert output.count("\n") == 1
    assert cli.main(["deploy", "--decision", copy.decision, *here]) == 2
    assert str(weights) in capsys.readouterr().err


def test_a_copy_without_its_model_says_that_it_takes_the_original(
    run: Callable[[str], Run], original: Run, caplog: pytest.LogCaptureFixture
) -> None:
    copy = run("copied")
    shutil.rmtree(copy.model)
    assert local.resolve(pipeline.deployment_of(copy.out)).model == original.model
    assert f"there is no model at {copy.model}" in caplog.text
    shutil.rmtree(original.model)
    with pytest.raises(InputError, match="is gone: there is nothing at"):
        local.resolve(pipeline.deployment_of(copy.out))


def test_another_model_next_to_the_record_is_not_taken_for_its_own(
    run: Callable[[str], Run], original: Run, caplog: pytest.LogCaptureFixture
) -> None:
    copy = run("copied")
    shutil.rmtree(copy.model)
    tiny_model(Path(copy.model), seed=77)
    assert local.resolve(pipeline.deployment_of(copy.out)).model == original.model
    assert "is not the one that the record names" in caplog.text


def test_of_two_records_of_one_second_the_later_file_is_the_newest(tmp_path: Path) -> None:
    for number, (key, created) in enumerate([("a", "2025-01-02"), ("b", "2025-01-02"), ("c", "2025-01-01")]):
        storage.write_json(str(tmp_path / "deploy" / key / "deployment.json"), {"created": created})
        os.utime(tmp_path / "deploy" / key / "deployment.json", (number, number))
    assert manifest.newest(tmp_path, "deploy", "deployment.json") == str(tmp_path / "deploy" / "b" / "deployment.json")
    assert manifest.newest(tmp_path, "examples") is None


def test_moving_back_finds_everything_again(run: Callable[[str], Run], original: Run) -> None:
    moved = run("moved")
    tracking.local_store(str(moved.out))
    shutil.move(moved.out, original.out)
    tracking.local_store(str(original.out))
    with closing(sqlite3.connect(original.out / "mlflow" / "mlflow.db")) as database:
        text = "\n".join(database.iterdump())
    assert str(moved.out) not in text
    assert (original.out / "mlflow" / "artifacts").as_uri() in text


def test_no_artifact_holds_its_own_absolute_path(original: Run) -> None:
    """Within an artifact's folder nothing but the pointers to other artifacts, which also say the way from it."""
    for file in (original.out / "store").rglob("*.json"):
        value, own = file.read_text(), storage.parent(str(file))
        assert own not in value, file
        if file.name == manifest.FILE_NAME:
            assert json.loads(value)["uri"] == manifest.HERE


def test_a_relative_output_is_usable_from_another_folder(
    original: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    corpus = str(original.out / "store" / "corpus" / "k")
    small = ["--preset", "debug", "--set", "tokenizer.vocab_size=400"]
    assert answer_of(["tokenizer", "train", *small, "--corpus", corpus, "--output", "tok"], capsys)["uri"] == str(
        tmp_path / "tok"
    )
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    holes = ["--set", "examples.holes=3", "--set", "examples.validation_holes=1", "--set", "examples.test_holes=1"]
    inputs = ["--corpus", corpus, "--tokenizer", "../tok"]
    answer_of(["examples", "build", "--preset", "debug", *holes, *inputs, "--output", "ex"], capsys)
    assert manifest.load("ex").uri == str(tmp_path / "other" / "ex")
    assert stages.execute("tokenizer", _tokenizer(), {"corpus": corpus}, "", output="../tok").uri == str(
        tmp_path / "tok"
    )


def _tokenizer() -> Any:
    from infill import config

    return config.resolve("debug", {"tokenizer.vocab_size": 400}).tokenizer


@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
def test_pointers_follow_a_moved_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """On every kind of store: a record finds what is next to it, else the original."""
    root = {"local": str(tmp_path), "memory": f"memory://{tmp_path}"}.get(kind) or request.getfixturevalue("s3")
    old, new = storage.join(root, "old", "store"), storage.join(root, "new", "store")
    tiny_tokenizer(tmp_path / "artifact", vocab_size=300)
    digest = manifest.digest_of(str(tmp_path / "artifact"))
    storage.upload(tmp_path / "artifact", storage.join(old, "sft", "k"))
    fields = manifest.pointer("model", storage.join(old, "sft", "k"), storage.join(old, "deploy", "k"))
    assert fields["model_path"] == "../../sft/k"
    record = {**fields, "model_digest": digest}
    assert manifest.follow(record, "model", storage.join(old, "deploy", "k")) == storage.join(old, "sft", "k")
    assert manifest.follow(record, "model", storage.join(new, "deploy", "k")) == storage.join(old, "sft", "k")
    storage.upload(tmp_path / "artifact", storage.join(new, "sft", "k"))
    assert manifest.follow(record, "model", storage.join(new, "deploy", "k")) == storage.join(new, "sft", "k")
    assert manifest.load(storage.join(new, "sft", "k")).uri == storage.join(new, "sft", "k")
    manifest.check(manifest.load(storage.join(new, "sft", "k")))
    storage.remove(storage.join(new, "sft", "k", "tokenizer.json"))
    with pytest.raises(InputError, match=r"is incomplete: tokenizer.json is missing"):
        manifest.fetch(storage.join(new, "sft", "k"))


def test_places_without_a_common_folder_are_named_by_uri_alone(tmp_path: Path) -> None:
    for uri in ("s3://bucket/model", "/nowhere/model"):
        assert manifest.pointer("model", uri, str(tmp_path)) == {"model_uri": uri, "model_path": ""}
        assert manifest.follow({"model_uri": uri, "model_path": ""}, "model", str(tmp_path)) == uri


def test_a_manifest_that_travels_points_to_its_artifact(tmp_path: Path) -> None:
    artifact = tiny_tokenizer(tmp_path / "store" / "tokenizer" / "k", vocab_size=300)
    travelling = str(tmp_path / "kfp" / "tokenizer")
    storage.write_json(travelling, vars(manifest.load(artifact)))
    assert manifest.load(travelling).uri == artifact
    assert manifest.fetch(travelling) == Path(artifact)


def test_a_moved_report_names_what_is_next_to_it(tmp_path: Path) -> None:
    folder = str(tmp_path / "new" / "report" / "k")
    storage.write_json(f"{folder}/summary.json", {"model": "../../sft/k", "report": "report.html", "winner": "sft"})
    assert report.read_summary(folder) == {
        "model": str(tmp_path / "new" / "sft" / "k"),
        "report": f"{folder}/report.html",
        "winner": "sft",
    }
    storage.write_json(f"{folder}/summary.json", {"model": "s3://bucket/sft/k", "report": "report.html"})
    assert report.read_summary(folder)["model"] == "s3://bucket/sft/k"


@pytest.mark.slow
def test_a_moved_run_answers(run: Callable[[str], Run], capsys: pytest.CaptureFixture[str]) -> None:
    moved = run("moved")
    answer = answer_of(["smoke", "--out", str(moved.out), "--n", "1"], capsys)
    assert len(answer["completions"]) == 1
