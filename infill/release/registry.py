"""The MLflow model registry: versions that point at models in the store, and three aliases.

The alias `champion` is the version that is served, `previous` the one before it, `candidate` the one in a canary.

A version has the model's URI and digests as tags; weights never pass through MLflow. Each function may be repeated
after a kill: the final state is that of one uninterrupted call.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from infill import storage, tracking
from infill.errors import InputError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION: Final = "champion"
PREVIOUS: Final = "previous"
CANDIDATE: Final = "candidate"

MODEL_URI: Final = "infill.model_uri"
MODEL_DIGEST: Final = "infill.model_digest"
MANIFEST_SHA256: Final = "infill.manifest_sha256"
PROMPT_FORMAT: Final = "infill.prompt_format_hash"
EVALUATION_URI: Final = "infill.evaluation_uri"
EVALUATION_DIGEST: Final = "infill.evaluation_digest"
RUN_ID: Final = "infill.run_id"
STAGE: Final = "infill.stage"
DECISION: Final = "infill.decision_digest"
DECISION_URI: Final = "infill.decision_uri"
"""Tag with the folder of the decision by which this version was registered."""
REPLACED: Final = "infill.replaced"
"""Tag with the number of the version that was the champion before this one; empty if there was none."""
ROLLED_BACK: Final = "infill.rolled_back"
CANARY: Final = "infill.canary"
"""Tag with the outcome of the version's canary; missing or empty until it is decided."""
CANARY_AT: Final = "infill.canary_at"
CANARY_FIGURES: Final = "infill.canary_figures"
"""Tag with the figures of both models, as the text of a JSON object."""
DEPLOYED: Final = "infill.deployment"
"""Tag with the namespace and InferenceService that serve this version, or served it last."""
DEPLOYED_AT: Final = "infill.deployed_at"
DEPLOYED_BEFORE: Final = "infill.deployment_previous"
FAILED: Final = "infill.deployment_failed"
"""Tag with the reason why the last deployment of this version failed; empty if it did not."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a registered model."""

    name: str
    version: str
    model_uri: str
    model_digest: str
    tags: Mapping[str, str]


@contextlib.contextmanager
def _registry() -> "Iterator[MlflowClient]":
    """Yield a client; errors of MLflow in the block become ServiceErrors."""
    client = tracking.client()
    from mlflow.exceptions import MlflowException

    try:
        yield client
    except MlflowException as error:
        message = tracking.mask(str(error).partition("\n")[0])
        raise ServiceError(
            f"the model registry at {tracking.mask(tracking.tracking_uri())} refused a request: {message}"
        ) from error


def _version(registered: "ModelVersion") -> Version:
    tags = dict(registered.tags)
    return Version(
        name=registered.name,
        version=str(registered.version),
        model_uri=tags.get(MODEL_URI, registered.source or ""),
        model_digest=tags.get(MODEL_DIGEST, ""),
        tags=tags,
    )


def _alias(client: "MlflowClient", name: str, alias: str) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        # A missing model is "not exist"; a missing alias is reported as an invalid parameter.
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        raise


def champion(name: str) -> Version | None:
    """Return the champion of the registered model `name`; None if there is none yet."""
    return _aliased(name, CHAMPION)


def previous(name: str) -> Version | None:
    """Return the version to which `rollback` would return; None if there is none."""
    return _aliased(name, PREVIOUS)


def candidate(name: str) -> Version | None:
    """Return the version of `name` whose canary is not over; None if there is none."""
    return _aliased(name, CANDIDATE)


def _aliased(name: str, alias: str) -> Version | None:
    with _registry() as client:
        registered = _alias(client, name, alias)
    return None if registered is None else _version(registered)


def version(name: str, number: str) -> Version | None:
    """Return the version `number` of the registered model `name` in its current state; None if it was deleted."""
    from mlflow.exceptions import MlflowException

    with _registry() as client:
        try:
            return _version(client.get_model_version(name, number))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise


def find(name: str, model_digest: str) -> Version | None:
    """Return the version of `name` for the model with this digest; None if it was never registered."""
    with _registry() as client:
        return _find(client, name, model_digest)


def _find(client: "MlflowClient", name: str, model_digest: str) -> Version | None:
    # The name comes from the configuration, which allows no quote in it; digests are hexadecimal.
    versions = client.search_model_versions(f"name = '{name}' and tags.`{MODEL_DIGEST}` = '{model_digest}'")
    return min(map(_version, versions), key=lambda version: int(version.version), default=None)


def register(name: str, *, model_uri: str, tags: Mapping[str, str], description: str = "") -> Version:
    """Return the version of `name` for the model at `model_uri`; create it unless one with its digest exists.

    `tags` must have MODEL_DIGEST. Raises ServiceError when MLflow refuses.
    """
    from mlflow.exceptions import MlflowException

    with _registry() as client:
        try:
            client.create_registered_model(name, description="Fill-in-the-middle models that passed Infill's gate.")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        existing = _find(client, name, tags[MODEL_DIGEST])
        if existing is not None:
            return existing
        created = client.create_model_version(
            name, _source(model_uri), tags={MODEL_URI: model_uri, **tags}, description=description
        )
        return _version(created)


def _source(model_uri: str) -> str:
    """Return the source to register. A server refuses paths on a client's disk, so these get their own scheme."""
    on_server = tracking.tracking_uri().startswith(("http://", "https://"))
    if on_server and storage.is_local(model_uri):
        return f"infill-local:{storage.local_path(model_uri)}"
    return model_uri


def promote(version: Version) -> None:
    """Make `version` the champion, and the old champion `previous`.

    `previous` is set first: after a kill between the two, the old champion remains and a repeated call completes the
    change.
    """
    with _registry() as client:
        now = _alias(client, version.name, CHAMPION)
        if now is not None and str(now.version) == version.version:
            return
        if now is not None:
            client.set_registered_model_alias(version.name, PREVIOUS, str(now.version))
        client.set_registered_model_alias(version.name, CHAMPION, version.version)


def nominate(version: Version) -> None:
    """Make `version` the candidate, with a canary that is not decided; the champion and the candidate do nothing."""
    with _registry() as client:
        for alias in (CHAMPION, CANDIDATE):
            now = _alias(client, version.name, alias)
            if now is not None and str(now.version) == version.version:
                return
        client.set_model_version_tag(version.name, version.version, CANARY, "")
        client.set_registered_model_alias(version.name, CANDIDATE, version.version)


def end_candidacy(version: Version) -> None:
    """Remove the alias of the candidate if it is `version`."""
    with _registry() as client:
        now = _alias(client, version.name, CANDIDATE)
        if now is not None and str(now.version) == version.version:
            client.delete_registered_model_alias(version.name, CANDIDATE)


def withdraw(version: Version) -> None:
    """Tag `version`, which never was the champion, as rolled back: the gate refuses its model from then on."""
    if ROLLED_BACK not in version.tags:
        set_tags(version, {ROLLED_BACK: datetime.now(UTC).isoformat(timespec="seconds")})


def log(version: Version, metrics: Mapping[str, float]) -> None:
    """Log metrics to the MLflow run that made `version`, if it is known."""
    run = version.tags.get(RUN_ID, "")
    with _registry() as client:
        for name, value in metrics.items() if run else ():
            client.log_metric(run, name, value)


def set_tags(version: Version, tags: Mapping[str, str]) -> None:
    """Set tags of a version."""
    with _registry() as client:
        for tag, value in tags.items():
            client.set_model_version_tag(version.name, version.version, tag, value)


def rollback(name: str, to: str = "") -> Version:
    """Make `previous`, or the version with the number `to`, the champion again and return it.

    The old champion is tagged ROLLED_BACK with the time, and the gate refuses it from then on. Afterwards there is no
    `previous`, so a second call does not restore the version that was rolled back. Raises InputError when there is no
    previous version.
    """
    with _registry() as client:
        back, now = _alias(client, name, PREVIOUS), _alias(client, name, CHAMPION)
        if to:
            back = client.get_model_version(name, to)
        if back is None or now is None:
            raise InputError(f"the registered model {name!r} has no previous version to go back to")
        if back.version != now.version:  # else a call was killed after the alias had moved
            when = datetime.now(UTC).isoformat(timespec="seconds")
            client.set_model_version_tag(name, str(now.version), ROLLED_BACK, when)
            client.set_registered_model_alias(name, CHAMPION, str(back.version))
        client.delete_registered_model_alias(name, PREVIOUS)
        return _version(back)
