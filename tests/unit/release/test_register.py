"""Tests of the register stage on a real registry."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infill import manifest, storage, tracking
from infill.artifacts import decision as decisions
from infill.config import EvaluateConfig, ExamplesConfig, RegisterConfig
from infill.errors import InputError, ServiceError
from infill.release import registry
from infill.stages import MODELS, STAGES, execute
from infill.train import card
from tests.builders import run_stage, tiny_model, tiny_repositories, tiny_tokenizer, write_documents
from tests.unit.release import parts

CONFIG = RegisterConfig(bootstrap=100)


class Run:
    """A pipeline run's models and evaluations; the models' names make their digests."""

    def __init__(self, folder: Path, label: str, scores: Sequence[float], benchmark: str = "holes") -> None:
        self.examples = parts.model(folder / "examples")
        self.models = {name: parts.model(folder / f"{label}-{name}") for name in MODELS}
        self.evaluations = {
            name: parts.evaluation(folder / f"{label}-eval-{name}", self.models[name], [value] * 20, benchmark)
            for name, value in zip(MODELS, scores, strict=True)
        }
        self.store, self.output = str(folder / f"{label}-store"), ""

    def register(self, config: RegisterConfig = CONFIG) -> dict[str, Any]:
        """Run the stage at its address, which depends on the champion."""
        places = (self.examples, *self.models.values(), *self.evaluations.values())
        inputs = dict(zip(STAGES["register"].inputs, places, strict=True))
        self.output = execute("register", config, inputs, self.store).uri
        return decisions.read(self.output)


def _champion() -> str:
    champion = registry.champion("infill")
    return "" if champion is None else champion.version


def _versions() -> int:
    return len(tracking.client().search_model_versions("name = 'infill'"))


def test_without_mlflow_there_is_no_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI is not set"):
        Run(tmp_path, "one", (0.1, 0.3, 0.2)).register()


def test_a_metric_that_does_not_exist_is_refused(mlflow_store: Path) -> None:
    with pytest.raises(InputError, match="unknown metric bleu; choose from exact_match"):
        Run(mlflow_store, "one", (0.1, 0.3, 0.2)).register(replace(CONFIG, floors=(("bleu", 0.1),)))


def test_the_first_winner_becomes_the_champion_and_a_repeated_run_does_nothing(mlflow_store: Path) -> None:
    run = Run(mlflow_store, "one", (0.1, 0.3, 0.2))
    decision = run.register()
    assert (decision["winner"], decision["passed"], decision["champion_before"]) == ("sft", True, None)
    assert decision["model_digest"] == manifest.digest_of(run.models["sft"])
    champion = registry.champion("infill")
    assert champion is not None
    assert (champion.version, champion.model_uri) == ("1", run.models["sft"])
    assert champion.tags[registry.PROMPT_FORMAT] == decision["prompt_format_hash"]
    assert champion.tags[registry.DECISION] == storage.sha256(f"{run.output}/decision.json")
    assert decision["reason"] in (Path(run.output) / card.RELEASED_FILE).read_text()
    before = manifest.load(run.output)
    assert run.register() == decision
    assert manifest.load(run.output) == before


@pytest.mark.parametrize("step", ["promote", "set_tags"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_killed_and_repeated_it_ends_as_if_undisturbed(
    mlflow_store: Path, monkeypatch: pytest.MonkeyPatch, step: str, done: bool
) -> None:
    Run(mlflow_store, "old", (0.1, 0.2, 0.3)).register()
    run = Run(mlflow_store, "new", (0.1, 0.4, 0.3))
    real = getattr(registry, step)

    def killed(*arguments: object) -> None:
        if done:
            real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry, step, killed)
        with pytest.raises(KeyboardInterrupt):
            run.register()
    decision = run.register()
    assert (decision["passed"], decision["champion_before"]["version"]) == (True, "1")
    assert _champion() == "2"
    assert decision["comparison"]["holes"] == 20
    assert _versions() == 2
    previous = registry.previous("infill")
    assert previous is not None
    assert previous.version == "1"


def test_a_champion_that_came_in_between_is_compared_with_too(
    mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run(mlflow_store, "old", (0.1, 0.2, 0.3)).register()
    run, other = Run(mlflow_store, "new", (0.1, 0.4, 0.3)), Run(mlflow_store, "other", (0.1, 0.9, 0.3))
    real = registry.register

    def other_is_faster(*arguments: Any, **named: Any) -> registry.Version:
        monkeypatch.setattr(registry, "register", real)
        other.register()
        return real(*arguments, **named)

    monkeypatch.setattr(registry, "register", other_is_faster)
    with pytest.raises(ServiceError, match="version 2 of infill became the champion during the comparison"):
        run.register()
    decision = run.register()
    assert (decision["passed"], decision["champion_before"]["version"]) == (False, "2")


def test_a_worse_winner_is_not_registered_and_a_changed_champion_is_judged_again(mlflow_store: Path) -> None:
    Run(mlflow_store, "first", (0.1, 0.2, 0.1)).register()
    Run(mlflow_store, "second", (0.1, 0.1, 0.9)).register()
    run = Run(mlflow_store, "third", (0.1, 0.5, 0.1))
    decision = run.register()
    assert (decision["passed"], _champion(), _versions()) == (False, "2", 2)
    assert decision["evaluation"]["champion"]["kk"]["value"] == pytest.approx(0.9)
    registry.rollback("infill")
    decision = run.register()
    assert (decision["passed"], decision["champion_before"]["version"]) == (True, "1")


def test_what_was_rolled_back_is_refused(mlflow_store: Path) -> None:
    Run(mlflow_store, "first", (0.1, 0.2, 0.1)).register()
    run = Run(mlflow_store, "second", (0.1, 0.1, 0.9))
    run.register()
    registry.rollback("infill")
    decision = run.register()
    assert not decision["passed"]
    assert "infill version 2, which was rolled back on" in decision["reason"]


def test_a_registry_that_was_lost_is_filled_again(mlflow_store: Path) -> None:
    run = Run(mlflow_store, "one", (0.1, 0.3, 0.2))
    run.register()
    tracking.client().delete_registered_model("infill")
    run.register()
    assert (_champion(), _versions()) == ("1", 1)


def test_a_changed_evaluation_file_stops_the_release(mlflow_store: Path) -> None:
    run = Run(mlflow_store, "one", (0.1, 0.3, 0.2))
    record = Path(run.evaluations["dpo"]) / "record.json"
    record.write_text(record.read_text().replace("0.2", "0.9"))
    decision = run.register()
    assert not decision["passed"]
    assert "The evaluation of dpo cannot be used" in decision["reason"]


def test_a_champion_whose_model_is_gone_stops_the_release_until_it_is_back(mlflow_store: Path) -> None:
    old = Run(mlflow_store, "old", (0.1, 0.3, 0.2))
    old.register()
    run = Run(mlflow_store, "new", (0.1, 0.4, 0.2), benchmark="other holes")
    hidden = Path(old.models["sft"]).rename(mlflow_store / "hidden")
    decision = run.register()
    assert not decision["passed"]
    assert "The champion infill version 1 is gone: there is no model at" in decision["reason"]
    hidden.rename(old.models["sft"])
    assert "cannot be evaluated" in run.register()["reason"]  # this one has no weights


def test_the_champion_is_evaluated_on_the_candidates_holes(mlflow_store: Path) -> None:
    champion = tiny_model(mlflow_store / "champion")
    old = {"base": champion, "sft": champion, "dpo": champion}
    first = {name: parts.evaluation(mlflow_store / f"old-{name}", uri, [0.5] * 3) for name, uri in old.items()}
    examples = parts.model(mlflow_store / "old-examples")
    run_stage("register", CONFIG, examples, *old.values(), *first.values(), output=str(mlflow_store / "old"))

    corpus = write_documents(mlflow_store / "corpus", tiny_repositories())
    settings = ExamplesConfig(holes=4, validation_holes=1, test_holes=3)
    new_examples = str(mlflow_store / "examples")
    run_stage("examples", settings, corpus, tiny_tokenizer(mlflow_store / "tokenizer"), new_examples)
    models = {name: tiny_model(mlflow_store / name, seed=number) for number, name in enumerate(MODELS, start=1)}
    evaluations = {name: str(mlflow_store / f"new-{name}") for name in MODELS}
    budget = EvaluateConfig(holes=3, max_new_tokens=4, max_prompt_tokens=128, bootstrap=20)
    for name in MODELS:
        run_stage("evaluate", budget, new_examples, models[name], evaluations[name])
    output = mlflow_store / "new"
    run_stage(
        "register",
        replace(CONFIG, metric="chrf"),
        new_examples,
        *models.values(),
        *evaluations.values(),
        output=str(output),
    )
    decision = storage.read_json(f"{output}/decision.json")
    assert decision["comparison"]["holes"] == 3
    assert decision["evaluation"]["champion"].keys() == decision["evaluation"]["base"].keys()
    assert not (output / manifest.SCRATCH).exists()
