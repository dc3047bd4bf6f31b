"""The deploy stage: the deployment record, which names the immutable model that is served.

`infill serve` reads the record, which is the stage's artifact and is written once. On a cluster, KServe is updated to
match it each time the stage runs (`rollout`).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from infill import manifest, prompt, storage
from infill.cluster import settings as cluster_settings
from infill.config import DeployConfig
from infill.errors import InputError
from infill.release import registry
from infill.release.registry import Version
from infill.release.stage import DECISION_FILE

STAGE: Final = "deploy"
VERSION: Final = 1

RECORD_FILE: Final = "deployment.json"
DEFAULT_RELEASE: Final = "completions"


def run(config: DeployConfig, decision: str, *, output: str) -> dict[str, float]:
    """Write deployment.json for the model that `decision` released, and deploy it if there is a cluster.

    Every file of the model is compared with its manifest, and the manifest with the evaluation. Raises InputError when
    the gate refused, the model is not the evaluated one, or (on a cluster) another version is now the champion; and the
    errors of `rollout.deploy`.
    """
    release = release_of(config)
    decided = _read(decision)
    version = _champion_of(decided) if release else None

    def body() -> Mapping[str, float]:
        sha256 = storage.sha256(storage.join(decision, DECISION_FILE))
        model = manifest.follow(decided, "model", decision)
        record = _record(config, model, decided["model_digest"], decided["prompt_format_hash"], sha256, output)
        storage.write_json(storage.join(output, RECORD_FILE), record)
        return {"deployed": 1.0}

    inputs = {"decision": manifest.digest_of(decision)}
    metrics = manifest.once(stage=STAGE, version=VERSION, config=config, inputs=inputs, output=output, body=body)
    return metrics if version is None else metrics | _roll_out(release, version, output)


def champion(config: DeployConfig, name: str, *, output: str = "", store: str = "") -> dict[str, Any]:
    """Deploy the champion of the registered model `name`; return its record, with the record's own URI as `uri`.

    The record is written to the folder `output`, by default its address in the store. Raises InputError when there is
    no champion or its model is not the evaluated one, and the errors of `rollout.deploy`.
    """
    version = registry.champion(name)
    if version is None:
        raise InputError(f"the registered model {name!r} has no champion; run the pipeline first")
    _check_evaluation(version)
    output = output or address(config, version, store)
    record = _record_of(config, version, output)
    storage.write_json(storage.join(output, RECORD_FILE), record)
    release = release_of(config)
    figures = _roll_out(release, version, output) if release else {}
    return {"uri": storage.join(output, RECORD_FILE), **record, **figures}


def plan(config: DeployConfig, decision: str, name: str, *, output: str = "", store: str = "") -> str:
    """Return as text what `run` (with a decision) or `champion` (with a name) would do; change nothing."""
    decided = _read(decision) if decision else None
    version = _champion_of(decided) if decided else registry.champion(name)
    if version is None:
        raise InputError(f"the registered model {name!r} has no champion; run the pipeline first")
    _check_evaluation(version)
    target = storage.join(output or address(config, version, store), RECORD_FILE)
    _record_of(config, version, storage.parent(target))
    release = release_of(config)
    if not release:
        return f"{target} would name {version.model_uri} (digest {version.model_digest}); no cluster is configured"
    from infill.cluster.api import connect
    from infill.release import rollout

    return rollout.plan(connect(), release, rollout.Target(version=version, record=target))


def address(config: DeployConfig, version: Version, store: str) -> str:
    """Return the URI of the record of a registered version, which depends on the record's content."""
    inputs = {"model": version.model_digest, "decision": version.tags.get(registry.DECISION, "")}
    return storage.join(store, STAGE, manifest.key(STAGE, VERSION, config, inputs))


def release_of(config: DeployConfig) -> str:
    """Return the release of charts/infill-serving to deploy to; empty if there is no cluster."""
    return config.release or (DEFAULT_RELEASE if cluster_settings.read() else "")


def rollback(config: DeployConfig, name: str, *, output: str) -> dict[str, Any]:
    """Make the previous version of the registered model `name` the champion, write and return its deployment record.

    Raises InputError, and changes nothing, when there is no previous version, or its model is missing or damaged;
    ServiceError when MLflow is unreachable.
    """
    back = registry.previous(name)
    if back is None:
        raise InputError(f"the registered model {name!r} has no previous version to go back to")
    record = _record_of(config, back, output)
    registry.rollback(name)
    storage.write_json(storage.join(output, RECORD_FILE), record)
    return record


def _read(decision: str) -> dict[str, Any]:
    """Return the gate's decision. Raises InputError when the gate refused."""
    decided: dict[str, Any] = storage.read_json(storage.join(decision, DECISION_FILE))
    if decided["passed"] is not True:
        raise InputError(f"the gate refused {decided['winner']}, so it is not deployed: {decided['reason']}")
    return decided


def _champion_of(decided: Mapping[str, Any]) -> Version:
    """Return the champion. Raises InputError unless the decision registered it and its evaluation is of its model."""
    name, number = decided["registered"]["name"], decided["registered"]["version"]
    now = registry.champion(name)
    if now is None or now.version != number:
        who = "has no champion" if now is None else f"has version {now.version} as its champion"
        raise InputError(
            f"the decision is about version {number} of {name}, which now {who}: deploy the champion, or run again"
        )
    _check_evaluation(now)
    return now


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
    evaluated = storage.read_json(storage.join(evaluation.uri, "record.json"))["model_digest"]
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


def _roll_out(release: str, version: Version, output: str) -> dict[str, float]:
    """Update the cluster to serve the record in `output`."""
    from infill.cluster.api import connect  # with the kubernetes client
    from infill.release import rollout

    target = rollout.Target(version=version, record=storage.join(output, RECORD_FILE))
    return rollout.deploy(connect(), release, target)


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
