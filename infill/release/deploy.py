"""The deployment record: which immutable model is served. `infill serve` and the cluster's launcher obey it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from infill import manifest, prompt, storage
from infill.config import DeployConfig
from infill.errors import InputError
from infill.release import registry
from infill.release.stage import DECISION_FILE

STAGE: Final = "deploy"
VERSION: Final = 1

RECORD_FILE: Final = "deployment.json"


def run(config: DeployConfig, decision: str, *, output: str) -> dict[str, float]:
    """Write deployment.json for the model that `decision` let through.

    Every file of the model is compared with its manifest, and that with what was evaluated. Raises InputError when the
    gate refused, or the model is not the evaluated one.
    """

    def body() -> Mapping[str, float]:
        file = storage.join(decision, DECISION_FILE)
        decided = storage.read_json(file)
        if decided["passed"] is not True:
            raise InputError(f"the gate refused {decided['winner']}, so it is not deployed: {decided['reason']}")
        record = _record(
            config, decided["model_uri"], decided["model_digest"], decided["prompt_format_hash"], storage.sha256(file)
        )
        storage.write_json(storage.join(output, RECORD_FILE), record)
        return {"deployed": 1.0}

    inputs = {"decision": manifest.digest_of(decision)}
    return manifest.once(stage=STAGE, version=VERSION, config=config, inputs=inputs, output=output, body=body)


def rollback(config: DeployConfig, name: str, *, output: str) -> dict[str, Any]:
    """Make the previous version of the registered model `name` the champion, write and return its deployment record.

    Nothing changes when that version's model is gone or damaged. Raises InputError then, and when there is no previous
    version; ServiceError when MLflow is gone.
    """
    back = registry.previous(name)
    if back is None:
        raise InputError(f"the registered model {name!r} has no previous version to go back to")
    record = _record(
        config,
        back.model_uri,
        back.model_digest,
        back.tags.get(registry.PROMPT_FORMAT, ""),
        back.tags.get(registry.DECISION, ""),
    )
    registry.rollback(name)
    storage.write_json(storage.join(output, RECORD_FILE), record)
    return record


def _record(
    config: DeployConfig, model_uri: str, model_digest: str, prompt_format_hash: str, decision_digest: str
) -> dict[str, Any]:
    """The deployment record of a model whose files are what was evaluated. Raises InputError when they are not."""
    model = manifest.load(model_uri)
    if model.digest != model_digest:
        raise InputError(
            f"the model at {model_uri} has digest {model.digest[:12]}, but {model_digest[:12]} was evaluated;"
            " evaluate and register it again"
        )
    manifest.verify(model)
    found = prompt.load_format(storage.fetch(model_uri)).hash
    if found != prompt_format_hash:
        raise InputError(
            f"the prompt format of {model_uri} has hash {found[:12]}, but {prompt_format_hash[:12]} was evaluated;"
            " evaluate and register it again"
        )
    return {
        "model_uri": model_uri,
        "model_digest": model_digest,
        "prompt_format_hash": prompt_format_hash,
        "max_prompt_tokens": config.max_prompt_tokens,
        "max_new_tokens": config.max_new_tokens,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "decision_digest": decision_digest,
    }
