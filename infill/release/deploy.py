"""The deploy stage: the deployment record, which names the immutable model that is served.

`infill serve` reads the record, which is the stage's artifact and is written once. On a cluster, KServe is updated to
match it each time the stage runs (`rollout`).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from infill import manifest, prompt, storage
from infill.artifacts import decision as decisions
from infill.artifacts import deployment
from infill.artifacts import evaluation as evaluations
from infill.cluster import job_settings
from infill.config import DeployConfig
from infill.errors import InputError
from infill.release import registry, signature
from infill.release.registry import Version
from infill.stages.contract import Call

if TYPE_CHECKING:
    from infill.release import rollout

VERSION: Final = 2

DEFAULT_RELEASE: Final = "completions"


def body(call: Call[DeployConfig]) -> Mapping[str, float]:
    """Write deployment.json for the model that the decision released.

    Every file of the model is compared with its manifest, and the manifest with the evaluation. Raises InputError when
    the gate refused, the model is not the evaluated one, or (on a cluster) it is neither the champion nor on trial.
    """
    _check_version(call)
    deployment.write(call.output, _record_of_decision(call))
    return {"deployed": 1.0}


def apply(call: Call[DeployConfig]) -> Mapping[str, float]:
    """Update the cluster, if there is one, to serve the record. Raises the errors of `body` and `rollout.deploy`."""
    chosen = _check_version(call)
    if chosen is None:
        return {}
    from infill.cluster.api import connect  # with the kubernetes client
    from infill.release import rollout

    return rollout.deploy(connect(), release_of(call.settings), _target(call, *chosen))


def plan(call: Call[DeployConfig]) -> str:
    """Return as text what the stage would do; change nothing. Raises the errors of the stage."""
    chosen, record = _check_version(call), _record_of_decision(call)
    if chosen is None:
        return (
            f"{deployment.file(call.output)} would name {record['model_uri']} (digest {record['model_digest']});"
            " no cluster is configured"
        )
    from infill.cluster.api import connect
    from infill.release import rollout

    return rollout.plan(connect(), release_of(call.settings), _target(call, *chosen))


def decision_of_champion(name: str) -> str:
    """Return the folder of the decision by which the champion of the registered model `name` was registered.

    Raises InputError when there is no champion, or it is not the evaluated one, or its decision was changed.
    """
    version = registry.champion(name)
    if version is None:
        raise InputError(f"the registered model {name!r} has no champion; run the pipeline first")
    _check_evaluation(version)
    folder = version.tags.get(registry.DECISION_URI, "")
    if not folder or decisions.digest(folder) != version.tags.get(registry.DECISION):
        raise InputError(
            f"{name} version {version.version} was not registered by the decision at {folder or 'any known place'};"
            " register the model again"
        )
    return folder


def release_of(config: DeployConfig) -> str:
    """Return the release of charts/infill-serving to deploy to; empty if there is no cluster."""
    return config.release or (DEFAULT_RELEASE if job_settings.read() else "")


def rollback(config: DeployConfig, name: str, *, output: str) -> dict[str, Any]:
    """Make the previous version of the registered model `name` the champion, write and return its deployment record.

    Raises InputError, and changes nothing, when there is no previous version, or its model is missing or damaged;
    ServiceError when MLflow is unreachable.
    """
    back = registry.previous(name)
    if back is None:
        raise InputError(f"the registered model {name!r} has no previous version to go back to")
    _check_signed(back)
    record = _record_of(config, back, output)
    registry.rollback(name)
    deployment.write(output, record)
    return record


def promote(config: DeployConfig, version: Version, *, output: str = "") -> None:
    """Make `version` the champion, and write its deployment record into the folder `output`, if there is one.

    Raises InputError, and changes nothing, when its model is damaged, not the evaluated one, or not signed as required.
    """
    _check_evaluation(version)
    _check_signed(version)
    record = _record_of(config, version, output) if output else {}
    registry.promote(version)
    if output:
        deployment.write(output, record)


def _check_signed(version: Version) -> None:
    """Raise InputError if a signature is required and no signed decision released the model of `version`."""
    if not signature.is_required():
        return
    decision = _read(version.tags.get(registry.DECISION_URI, ""))
    if decision["model_digest"] != version.model_digest:
        raise InputError(
            f"the signed decision of {version.name} version {version.version} is about another model"
            f" ({decision['model_digest'][:12]} instead of {version.model_digest[:12]}); register the model again"
        )


def _read(decision: str) -> dict[str, Any]:
    """Return the gate's decision. Raises InputError when the gate refused, or a required signature is missing."""
    signature.check(decision)
    value = decisions.read(decision)
    if value["passed"] is not True:
        raise InputError(f"the gate refused {value['winner']}, so it is not deployed: {value['reason']}")
    return value


def _check_version(call: Call[DeployConfig]) -> tuple[Version, bool] | None:
    """Return the version to deploy to the cluster, and whether as a canary; None if there is no cluster.

    Raises InputError when the gate refused; on a cluster, also unless the decision is about the champion or about the
    candidate that it nominated, and the version's evaluation about its model.
    """
    decision = _read(call.inputs["decision"])
    if not release_of(call.settings):
        return None
    name, digest = decision["name"], decision["model_digest"]
    champion = registry.champion(name)
    candidate = registry.candidate(name) if decisions.on_trial(decision) else None
    if champion is not None and champion.model_digest == digest:
        chosen = champion
    elif candidate is not None and candidate.model_digest == digest:
        chosen = candidate
    else:
        who = "has no champion" if champion is None else f"has version {champion.version} as its champion"
        raise InputError(
            f"the decision is about the model {digest[:12]} of {name}, which now {who}: deploy the champion, or run"
            " again"
        )
    _check_evaluation(chosen)
    return chosen, chosen is candidate


def _check_evaluation(version: Version) -> None:
    """Raise InputError if the version was rolled back, or its evaluation is not of its model."""
    named, tags = f"{version.name} version {version.version}", version.tags
    if registry.ROLLED_BACK in tags:
        raise InputError(
            f"{named} was rolled back on {tags[registry.ROLLED_BACK]}, so it is not deployed; delete its tag"
            f" {registry.ROLLED_BACK} in MLflow to allow it again"
        )
    if not tags.get(registry.EVALUATION_URI):
        raise InputError(f"{named} has no evaluation, so it is not deployed; evaluate and register it again")
    evaluation = manifest.load(tags[registry.EVALUATION_URI])
    evaluated = evaluations.read_record(evaluation.uri)["model_digest"]
    model = manifest.digest_of(version.model_uri)
    same = {"its registration": version.model_digest, "its evaluation": evaluated}
    for where, digest in same.items():
        if digest != model:
            raise InputError(
                f"{named}: the model at {version.model_uri} has digest {model[:12]}, {where} says {digest[:12]};"
                " evaluate and register it again"
            )
    if evaluation.digest != tags.get(registry.EVALUATION_DIGEST):
        raise InputError(
            f"{named}: the evaluation at {evaluation.uri} has digest {evaluation.digest[:12]}, its registration says"
            f" {tags.get(registry.EVALUATION_DIGEST, '')[:12]}; evaluate and register it again"
        )


def _target(call: Call[DeployConfig], version: Version, canary: bool) -> "rollout.RolloutTarget":
    from infill.release import rollout  # with the kubernetes client

    return rollout.RolloutTarget(version=version, record=deployment.file(call.output), canary=canary)


def _record_of_decision(call: Call[DeployConfig]) -> dict[str, Any]:
    folder = call.inputs["decision"]
    decision = _read(folder)
    return _record(
        call.settings,
        manifest.follow(decision, "model", folder),
        decision["model_digest"],
        decision["prompt_format_hash"],
        decisions.digest(folder),
        call.output,
    )


def _record_of(config: DeployConfig, version: Version, output: str) -> dict[str, Any]:
    tags = version.tags
    return _record(
        config,
        version.model_uri,
        version.model_digest,
        tags.get(registry.PROMPT_FORMAT, ""),
        tags.get(registry.DECISION, ""),
        output,
    )


def _record(
    config: DeployConfig, model_uri: str, model_digest: str, prompt_format_hash: str, decision_digest: str, output: str
) -> dict[str, Any]:
    """Return the deployment record of a model, for the folder `output`.

    Raises InputError when the model's files or prompt format are not those that were evaluated.
    """
    model = manifest.load(model_uri)
    if model.digest != model_digest:
        raise InputError(
            f"the model at {model_uri} has digest {model.digest[:12]}, but {model_digest[:12]} was evaluated;"
            " evaluate and register it again"
        )
    manifest.verify(model)
    with storage.some_files(model_uri, prompt.FILES) as folder:
        format_hash = prompt.load_format(folder).hash
    if format_hash != prompt_format_hash:
        raise InputError(
            f"the prompt format of {model_uri} has hash {format_hash[:12]}, but {prompt_format_hash[:12]} was"
            " evaluated; evaluate and register it again"
        )
    return {
        **manifest.pointer("model", model.uri, output),
        "model_digest": model_digest,
        "prompt_format_hash": prompt_format_hash,
        "max_prompt_tokens": config.max_prompt_tokens,
        "max_new_tokens": config.max_new_tokens,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "decision_digest": decision_digest,
    }
