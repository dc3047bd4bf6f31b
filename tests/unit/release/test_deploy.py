"""Tests of the deployment record."""

from pathlib import Path

import pytest

from infill import manifest, prompt, storage
from infill.config import DeployConfig
from infill.errors import InputError
from infill.release import deploy, registry
from tests.builders import run_stage
from tests.unit.release.test_register import CONFIG, Run

DEPLOY = DeployConfig(max_prompt_tokens=100, max_new_tokens=10)


def test_the_record_names_the_evaluated_model(mlflow_store: Path) -> None:
    run = Run(mlflow_store, "one", (0.1, 0.3, 0.2))
    run.register()
    run_stage("deploy", DEPLOY, run.output, output=str(mlflow_store / "deployment"))
    record = storage.read_json(str(mlflow_store / "deployment" / "deployment.json"))
    assert record["model_uri"] == run.models["sft"]
    assert record["model_digest"] == manifest.digest_of(run.models["sft"])
    assert record["prompt_format_hash"] == prompt.infill_format().hash
    assert (record["max_prompt_tokens"], record["max_new_tokens"]) == (100, 10)
    assert record["decision_digest"] == storage.sha256(f"{run.output}/decision.json")


def test_what_the_gate_refused_is_not_deployed(mlflow_store: Path) -> None:
    run = Run(mlflow_store, "one", (0.1, 0.3, 0.2))
    run.register(type(CONFIG)(floors=(("kk", 0.9),)))
    with pytest.raises(InputError, match=r"the gate refused sft, so it is not deployed: .*The floor of kk is 0.9"):
        run_stage("deploy", DEPLOY, run.output, output=str(mlflow_store / "deployment"))
    assert not (mlflow_store / "deployment").exists()


@pytest.mark.parametrize("change", ["bytes", "model"])
def test_a_model_that_was_changed_after_its_evaluation_is_not_deployed(mlflow_store: Path, change: str) -> None:
    run = Run(mlflow_store, "one", (0.1, 0.3, 0.2))
    run.register()
    model = Path(run.models["sft"])
    if change == "bytes":
        (model / "tokenizer.json").write_text("{}")
    else:
        other = Run(mlflow_store, "two", (0.1, 0.3, 0.2)).models["sft"]
        (model / "manifest.json").write_bytes((Path(other) / "manifest.json").read_bytes())
    with pytest.raises(InputError, match=r"is not the file that|was evaluated; evaluate and register it again"):
        run_stage("deploy", DEPLOY, run.output, output=str(mlflow_store / "deployment"))


def test_rollback_deploys_the_previous_champion(mlflow_store: Path) -> None:
    output = str(mlflow_store / "rollback")
    with pytest.raises(InputError, match="no previous version"):
        deploy.rollback(DEPLOY, "infill", output=output)
    first, second = Run(mlflow_store, "one", (0.1, 0.3, 0.2)), Run(mlflow_store, "two", (0.1, 0.3, 0.9))
    first.register()
    second.register()
    record = deploy.rollback(DEPLOY, "infill", output=output)
    assert record["model_uri"] == first.models["sft"]
    assert storage.read_json(f"{output}/deployment.json") == record
    assert record["decision_digest"] == storage.sha256(f"{first.output}/decision.json")


def test_rollback_to_a_damaged_model_changes_nothing(mlflow_store: Path) -> None:
    first, second = Run(mlflow_store, "one", (0.1, 0.3, 0.2)), Run(mlflow_store, "two", (0.1, 0.3, 0.9))
    first.register()
    second.register()
    storage.remove(first.models["sft"])
    with pytest.raises(InputError, match="is not a finished artifact"):
        deploy.rollback(DEPLOY, "infill", output=str(mlflow_store / "rollback"))
    champion = registry.champion("infill")
    assert champion is not None
    assert champion.version == "2"
