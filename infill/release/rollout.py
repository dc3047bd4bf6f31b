"""A model to KServe: a second InferenceService beside the first, tested, then the route; and back.

What serves is decided by one field, the selector of a Service, so there is no half-way state for clients. Every step
may be repeated after a kill: the InferenceService's name is a function of what it is made of, the route says what
served before it, and what is already so is left. A change by hand is undone, as a dry run shows.
"""

import difflib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from infill import storage
from infill.cluster.api import Api, Manifest, RefusedError
from infill.cluster.preflight import DEPLOY_RIGHTS, denials
from infill.errors import InfillError, InputError, ServiceError
from infill.release import frame as frames
from infill.release import readiness, registry, smoke
from infill.release import route as routes
from infill.release.frame import Frame
from infill.release.readiness import Patience
from infill.release.registry import Version
from infill.release.route import Route
from infill.text import split_lines

ROLLBACK_S: Final = 30.0
"""The previous InferenceService is up already; so long it may take to say so."""
QUIET: Final = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "namespace")
"""Metadata that the API server adds and that says nothing about a change."""


Say = Callable[[str], None]


def _stderr(line: str) -> None:
    sys.stderr.write(f"[infill] {line}\n")
    sys.stderr.flush()


class DeployError(ServiceError):
    """A model that was not deployed; what served before serves on."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is to be served."""

    version: Version
    record: str
    """URI of the deployment record, which the servers obey."""


def deploy(
    api: Api, release: str, target: Target, *, patience: Patience | None = None, say: Say = _stderr
) -> dict[str, float]:
    """Serve `target` from the release of charts/infill-serving; return the figures of its smoke test.

    Afterwards the Service points to an InferenceService of this model, the one before it stands by for `rollback`,
    older ones are gone, and the model's version in MLflow says so. Raises DeployError when the new one is not ready in
    time or fails its smoke test: it is removed then, and nothing has changed for clients. Raises InputError for a
    namespace without the chart, RefusedError for one without KServe or without the rights. An API server that restarts
    is waited for as `patience` says.
    """
    patience = patience or readiness.Patience()
    api = _patient(api, patience)
    frame, seen, service = _look(api, release)
    body = _body(frame, service, target)
    name = body["metadata"]["name"]
    try:
        wanted = _serve(api, frame, seen, body, target, patience, say)
    except InfillError as error:
        raise _give_up(api, frame, name, target, error) from error
    removed = _sweep(api, frame, wanted)
    if removed:
        say(f"removed {', '.join(removed)}")
    _tell(api, target.version, wanted)
    return {**wanted.smoke, "removed": float(len(removed))}


def rollback(api: Api, release: str, name: str, *, patience: Patience | None = None) -> dict[str, Any]:
    """Point the Service back to the InferenceService before this one, and make its model the champion of `name` again.

    Returns `active` (the InferenceService), `model_uri`, `model_digest`, `left` and `version` (of `name` in MLflow,
    empty when that model was never registered). The one that is left stays until the next deployment, to be looked at.
    Raises InputError when there is none before it, NotReadyError when that one is not ready: nothing has changed then.
    A call that was killed between route and registry is ended by the next.
    """
    patience = patience or readiness.Patience()
    api = _patient(api, patience)
    frame, seen, _ = _look(api, release)
    wanted = Route(active=seen.previous, left=seen.active)
    if not seen.previous:
        if not seen.left or not _unfinished(api, seen, name):
            raise InputError(f"Service {frame.service} knows no InferenceService to go back to")
        wanted = seen
    service = api.get("inferenceservices", wanted.active)
    if service is None:
        raise InputError(f"InferenceService {wanted.active}, which served before, is gone: deploy its model again")
    if wanted != seen:
        readiness.wait(api, wanted.active, seconds=ROLLBACK_S, patience=patience)
        routes.shift(api, frame.service, seen, wanted)
    notes = service["metadata"]["annotations"]
    back = registry.find(name, notes[frames.DIGEST])
    if back is not None:
        now = registry.champion(name)
        if now is not None and now.version != back.version:
            registry.rollback(name, to=back.version)
        _tell(api, back, wanted)
    return {
        "active": wanted.active,
        "model_uri": notes[frames.URI],
        "model_digest": notes[frames.DIGEST],
        "left": wanted.left,
        "version": "" if back is None else back.version,
    }


def plan(api: Api, release: str, target: Target) -> str:
    """What `deploy` would do, as text: the manifests, how they differ from what is live, and what would be removed.

    The API server checks both in a dry run; nothing is changed.
    """
    import yaml

    frame, seen, service = _look(api, release)
    body = _body(frame, service, target)
    name = body["metadata"]["name"]
    wanted = seen if seen.active == name else Route(active=name, previous=seen.active)
    before, after = _reconcile(api, body, dry_run=True)
    live = before or (seen.active and api.get("inferenceservices", seen.active)) or {}
    patch = routes.change(wanted)
    shifted = api.merge("services", frame.service, patch, dry_run=True) if wanted != seen else service
    patch = {"apiVersion": "v1", "kind": "Service", **patch, "metadata": {"name": frame.service, **patch["metadata"]}}
    removed = [each for each in _old(api, frame, wanted) if each != name]
    parts = [
        "# InferenceService, and the change of the Service that clients use (smoke figures follow from the test)",
        yaml.safe_dump_all([body, patch], sort_keys=False).rstrip(),
        "# Against what is live",
        *diff(live, after),
        *diff(service, shifted),
        f"# Would be removed: {', '.join(removed) or 'nothing'}",
    ]
    return "\n".join(parts)


def diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the lines of a unified diff of two objects, `old` empty for none, without what the API server adds."""
    import yaml

    before, after = _shown(old), _shown(new)
    names = [f"{each['kind']}/{each['metadata']['name']}" if each else "nothing" for each in (before, after)]
    texts = [split_lines(yaml.safe_dump(each)) if each else [] for each in (before, after)]
    lines = list(difflib.unified_diff(texts[0], texts[1], names[0], names[1], lineterm=""))
    return lines or [f"# {names[1]}: no change"]


def _shown(thing: Mapping[str, Any]) -> dict[str, Any]:
    if not thing:
        return {}
    metadata = {key: value for key, value in thing["metadata"].items() if key not in QUIET}
    return {key: value for key, value in thing.items() if key != "status"} | {"metadata": metadata}


def _patient(api: Api, patience: Patience) -> Api:
    """Return the API server, asked again for as long as a deployment may wait for it."""
    return replace(api, outage=patience.outage, grace=patience.grace)


def _look(api: Api, release: str) -> tuple[Frame, Route, Manifest]:
    """Return the shape, the route and its Service, before anything is touched.

    Raises InputError or RefusedError when something that is needed is not there, or not allowed.
    """
    api.list("inferenceservices")  # says that KServe is missing, or that we may not
    denied = denials(api, DEPLOY_RIGHTS)
    if denied:
        raise InputError(
            f"our account may not {', '.join(denied)} in namespace {api.namespace}: install charts/infill-platform"
            " there, with our account in pipeline.serviceAccounts"
        )
    frame = frames.read(api, release)
    return frame, *routes.read(api, frame.service)


def _body(frame: Frame, service: Manifest, target: Target) -> Manifest:
    """Return the InferenceService of a target, owned by the release's Service: `helm uninstall` removes both."""
    version = target.version
    if storage.is_local(version.model_uri):
        raise InputError(
            f"the model lies at {version.model_uri}, which no pod of the cluster sees: run the pipeline with a store in"
            " an object store"
        )
    body = frames.inference_service(
        frame, model_uri=version.model_uri, model_digest=version.model_digest, deployment=target.record
    )
    owner = {"apiVersion": "v1", "kind": "Service", "name": frame.service, "uid": service["metadata"]["uid"]}
    body["metadata"]["ownerReferences"] = [owner]
    return body


def _serve(api: Api, frame: Frame, seen: Route, body: Manifest, target: Target, patience: Patience, say: Say) -> Route:
    """Return the route to the InferenceService `body`, which is as the release says, ready, and passed its smoke test.

    One that serves already and is as it should be is not tested again.
    """
    name = body["metadata"]["name"]
    before, after = _reconcile(api, body)
    serves = before is not None and seen.active == name
    differed = before is None or _shown(before) != _shown(after)
    say(_news(frame, name, serves=serves, differed=differed))
    readiness.wait(api, name, seconds=frame.ready_seconds, patience=patience, say=say)
    if serves and not differed:
        return seen
    say(f"InferenceService {name} is ready; {len(smoke.GOLDEN)} golden prompts at {frame.address(name)}")
    figures = smoke.check(frame.address(name), target.version.model_uri, latency_ms=frame.smoke_latency_ms)
    if serves:
        return seen
    wanted = Route(active=name, previous=seen.previous if seen.active == name else seen.active, smoke=figures)
    routes.shift(api, frame.service, seen, wanted)
    say(f"Service {frame.service} points to {name}; before: {wanted.previous or 'nothing'}")
    return wanted


def _news(frame: Frame, name: str, *, serves: bool, differed: bool) -> str:
    """Return what applying the InferenceService has done, as a line for the log."""
    if not serves:
        return f"InferenceService {name} is applied; it may take {frame.ready_seconds} s to become ready"
    if differed:
        return (
            f"InferenceService {name} serves this model, but differed from what release {frame.release} says: corrected"
        )
    return f"InferenceService {name} serves this model already"


def _reconcile(api: Api, body: Manifest, *, dry_run: bool = False) -> tuple[Manifest | None, Manifest]:
    """Apply an InferenceService; return it as it was and as it is, or, in a dry run, as it would be."""
    name = body["metadata"]["name"]
    before = api.get("inferenceservices", name)
    try:
        return before, api.apply("inferenceservices", name, body, manager=frames.MANAGER, dry_run=dry_run)
    except RefusedError as error:
        if "exceeded quota" in error.message:
            sentence = readiness.SENTENCES["quota"].format(detail=error.message)
            raise readiness.NotReadyError(name, "quota", sentence) from error
        raise


def _give_up(api: Api, frame: Frame, name: str, target: Target, error: InfillError) -> DeployError:
    """Remove what was begun, unless it is part of the route, and record the failure; return the error to raise."""
    version = target.version
    sentence = f"{error}\n{version.name} version {version.version} is not deployed: {_undo(api, frame, name)}"
    try:
        registry.set_tags(version, {registry.FAILED: sentence[:5000]})
    except ServiceError:
        sentence += "; MLflow could not be told"
    return DeployError(sentence)


def _undo(api: Api, frame: Frame, name: str) -> str:
    """Remove the InferenceService unless it is part of the route; return what was done and what serves, as words."""
    try:
        now, _ = routes.read(api, frame.service)
        removed = name not in (now.active, now.previous) and api.delete("inferenceservices", name)
    except InfillError as error:
        return (
            f"{name} could not be removed ({error}) and may hold a GPU: once the API server answers, run"
            f" `kubectl delete inferenceservice {name} --namespace {api.namespace}`, or deploy again"
        )
    serves = f"{now.active} serves on" if now.active else f"Service {frame.service} still points to nothing"
    return f"{name} is removed, {serves}" if removed else serves


def _old(api: Api, frame: Frame, wanted: Route) -> list[str]:
    """InferenceServices of ours that neither serve nor stand by; not those that began after the active one."""
    labels = f"{frames.RELEASE_LABEL}={frame.release},{frames.MANAGER_LABEL}={frames.MANAGER}"
    items = api.list("inferenceservices", labels=labels)["items"]
    found = {str(each["metadata"]["name"]): each["metadata"] for each in items}
    until = str(found.get(wanted.active, {}).get("creationTimestamp", "9"))
    kept = (wanted.active, wanted.previous)
    return sorted(name for name, each in found.items() if name not in kept and str(each["creationTimestamp"]) <= until)


def _sweep(api: Api, frame: Frame, wanted: Route) -> list[str]:
    return [name for name in _old(api, frame, wanted) if api.delete("inferenceservices", name)]


def _tell(api: Api, version: Version, route: Route) -> None:
    """Record on the model's version where and how it is served."""
    tags = {
        registry.DEPLOYED: f"{api.namespace}/{route.active}",
        registry.DEPLOYED_AT: datetime.now(UTC).isoformat(timespec="seconds"),
        registry.DEPLOYED_BEFORE: route.previous or "none",
        registry.FAILED: "",
    }
    tags |= {f"infill.{name}": f"{value:g}" for name, value in route.smoke.items()}
    if version.tags.get(registry.DEPLOYED) == tags[registry.DEPLOYED]:
        del tags[registry.DEPLOYED_AT]
    registry.set_tags(version, tags)


def _unfinished(api: Api, seen: Route, name: str) -> bool:
    """Whether a rollback was killed after the route had moved: the champion is still the model that was left."""
    left, now = api.get("inferenceservices", seen.left), registry.champion(name)
    back = api.get("inferenceservices", seen.active)
    if left is None or back is None or now is None:
        return False
    digests = [str(each["metadata"]["annotations"][frames.DIGEST]) for each in (left, back)]
    return digests[0] == now.model_digest != digests[1]
