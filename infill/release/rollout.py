"""Rollout of a model to KServe: a second InferenceService is started and tested, then the route is moved; and rollback.

One field, the selector of a Service, decides what serves, so clients never see an intermediate state. Every step may be
repeated after a kill: the InferenceService's name is a function of its content, the route records what served before,
and existing results are kept. Manual changes are reverted, as a dry run shows.
"""

import difflib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from infill import storage
from infill.cluster.admission import DEPLOY_RIGHTS, denials
from infill.cluster.api import Api, ClusterRefusedError, Manifest
from infill.errors import InfillError, InputError, ServiceError
from infill.release import frame as frames
from infill.release import readiness, registry, smoke
from infill.release import route as routes
from infill.release.frame import Frame
from infill.release.readiness import RolloutPatience
from infill.release.registry import Version
from infill.release.route import Route
from infill.text import split_lines

ROLLBACK_S: Final = 30.0
"""Maximum seconds for the previous InferenceService, which is already running, to be reported as ready."""
QUIET: Final = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "namespace")
"""Metadata that the API server adds and that is left out of differences."""


Say = Callable[[str], None]


def _stderr(line: str) -> None:
    sys.stderr.write(f"[infill] {line}\n")
    sys.stderr.flush()


class DeployError(ServiceError):
    """A model that was not deployed; the previous one continues to serve."""


@dataclass(frozen=True, kw_only=True)
class RolloutTarget:
    """The model to serve."""

    version: Version
    record: str
    """URI of the deployment record, which the servers read."""
    canary: bool = False
    """Whether the model is tried on some users, next to the one that serves."""


def deploy(
    api: Api, release: str, target: RolloutTarget, *, patience: RolloutPatience | None = None, say: Say = _stderr
) -> dict[str, float]:
    """Serve `target` from the release of charts/infill-serving; return the figures of its smoke test.

    Afterwards the Service points to an InferenceService of this model, the previous one stands by for `rollback`, older
    ones are removed, and the model's version in MLflow records this. Raises DeployError when the new one is not ready
    in time or fails its smoke test: it is removed, and nothing changes for clients. Raises InputError for a namespace
    without the chart, RefusedError for one without KServe or without permissions. `patience` limits the wait for an API
    server that restarts.

    A canary's InferenceService has the candidate's predictor, and a transformer that serves the champion by the
    predictor of the champion's own InferenceService. `end_canary` points the Service back to that.
    """
    patience = patience or readiness.RolloutPatience()
    api = _patient(api, patience)
    frame, seen, service = _look(api, release)
    body = _body(api, frame, seen, service, target)
    name = body["metadata"]["name"]
    try:
        wanted = _serve(api, frame, seen, body, target, patience, say)
    except InfillError as error:
        raise _give_up(api, frame, name, target, error) from error
    removed = _sweep(api, frame, wanted)
    if removed:
        say(f"removed {', '.join(removed)}")
    _record(api, target.version, wanted)
    return {**wanted.smoke, "removed": float(len(removed))}


def rollback(api: Api, release: str, name: str, *, patience: RolloutPatience | None = None) -> dict[str, Any]:
    """Point the Service to the previous InferenceService, and make its model the champion of `name` again.

    During a canary that is the champion's, which ends the canary. Returns `active` (the InferenceService), `model_uri`,
    `model_digest`, `left` and `version` (of `name` in MLflow, empty if that model was never registered). The
    InferenceService that was `left` remains for inspection until the next deployment. Raises InputError when there is
    no previous one, NotReadyError when it is not ready; then nothing changes. The next call completes one that was
    killed between route and registry.
    """
    patience = patience or readiness.RolloutPatience()
    api = _patient(api, patience)
    frame, seen, _ = _look(api, release)
    wanted = _without_canary(seen) if seen.stable else Route(active=seen.previous, left=seen.active)
    if not wanted.active:
        if not seen.left or not _unfinished(api, seen, name):
            raise InputError(f"Service {frame.service} has no previous InferenceService to return to")
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
        _record(api, back, wanted)
    return {
        "active": wanted.active,
        "model_uri": notes[frames.URI],
        "model_digest": notes[frames.DIGEST],
        "left": wanted.left,
        "version": "" if back is None else back.version,
    }


def promote(
    api: Api, release: str, version: Version, *, patience: RolloutPatience | None = None, say: Say = _stderr
) -> dict[str, float]:
    """Serve the candidate that the release's canary has tried, which is the champion by now, to all clients.

    Returns and raises as `deploy`. Raises InputError if the release tries another model.
    """
    _, seen, service = _look(_patient(api, patience or readiness.RolloutPatience()), release)
    tried = api.get("inferenceservices", seen.active)
    notes = {} if tried is None else tried["metadata"]["annotations"]
    if notes.get(frames.DIGEST) != version.model_digest:
        raise InputError(
            f"Service {service['metadata']['name']} does not serve the model of {version.name} version"
            f" {version.version}: deploy it with infill deploy --champion {version.name}"
        )
    target = RolloutTarget(version=version, record=notes[frames.DEPLOYMENT])
    return deploy(api, release, target, patience=patience, say=say)


def end_canary(api: Api, release: str, version: Version, *, patience: RolloutPatience | None = None) -> list[str]:
    """Point the Service back to the champion, which is still running, and remove the InferenceServices of `version`.

    Returns their names. Raises NotReadyError when the champion's is not ready; then nothing changes.
    """
    patience = patience or readiness.RolloutPatience()
    api = _patient(api, patience)
    frame, seen, _ = _look(api, release)
    if seen.stable:
        readiness.wait(api, seen.stable, seconds=ROLLBACK_S, patience=patience)
        wanted = replace(_without_canary(seen), left="")
        routes.shift(api, frame.service, seen, wanted)
        seen = wanted
    tried = [
        str(each["metadata"]["name"])
        for each in _ours(api, frame)
        if each["metadata"]["annotations"].get(frames.DIGEST) == version.model_digest
    ]
    return [name for name in tried if name not in seen.kept and api.delete("inferenceservices", name)]


def plan(api: Api, release: str, target: RolloutTarget) -> str:
    """Return what `deploy` would do, as text: the manifests, their differences from the live ones, and removals.

    The API server checks the manifests in a dry run; nothing is changed.
    """
    import yaml

    frame, seen, service = _look(api, release)
    body = _body(api, frame, seen, service, target)
    name = body["metadata"]["name"]
    wanted = seen if seen.active == name else _route(seen, name, target)
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
    """Return the lines of a unified diff of two objects, without fields of the API server; `old` may be empty."""
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


def _patient(api: Api, patience: RolloutPatience) -> Api:
    """Return the API client with the waiting times of `patience`."""
    return replace(api, outage=patience.outage, grace=patience.grace)


def _look(api: Api, release: str) -> tuple[Frame, Route, Manifest]:
    """Return the frame, the route and its Service, before anything is changed.

    Raises InputError or RefusedError when something necessary is missing or not allowed.
    """
    api.list("inferenceservices")  # fails if KServe or the permission is missing
    denied = denials(api, DEPLOY_RIGHTS)
    if denied:
        raise InputError(
            f"this account is not allowed to {', '.join(denied)} in namespace {api.namespace}: install"
            " charts/infill-platform there, with this account in pipeline.serviceAccounts"
        )
    frame = frames.read(api, release)
    return frame, *routes.read(api, frame.service)


def _route(seen: Route, name: str, target: RolloutTarget, smoke: Mapping[str, float] | None = None) -> Route:
    """Return the route after the InferenceService `name` of a target has taken over from `seen`."""
    if target.canary:
        return Route(active=name, previous=seen.previous, stable=seen.champion, smoke=smoke or {})
    previous = seen.previous if name in (seen.active, seen.stable) else seen.champion
    return Route(active=name, previous=previous, smoke=smoke or {})


def _without_canary(seen: Route) -> Route:
    """Return the route after the canary in `seen`: the champion serves, and a rollback leads to where it did before."""
    return Route(active=seen.stable, previous=seen.previous, left=seen.active)


def _stable(api: Api, frame: Frame, seen: Route) -> Manifest:
    """Return the champion's InferenceService. Raises InputError if none serves."""
    stable = api.get("inferenceservices", seen.champion) if seen.champion else None
    if stable is None:
        raise InputError(
            f"Service {frame.service} points to no champion next to which a candidate could be tried: deploy it first,"
            " with infill deploy --champion"
        )
    return stable


def _body(api: Api, frame: Frame, seen: Route, service: Manifest, target: RolloutTarget) -> Manifest:
    """Return the InferenceService of a target, owned by the release's Service: `helm uninstall` removes both."""
    version = target.version
    if storage.is_local(version.model_uri):
        raise InputError(
            f"the model is at {version.model_uri}, which no pod of the cluster can read: run the pipeline with an"
            " object store as store"
        )
    body = frames.inference_service(
        frame,
        model_uri=version.model_uri,
        model_digest=version.model_digest,
        deployment=target.record,
        stable=_stable(api, frame, seen) if target.canary else None,
    )
    owner = {"apiVersion": "v1", "kind": "Service", "name": frame.service, "uid": service["metadata"]["uid"]}
    body["metadata"]["ownerReferences"] = [owner]
    return body


def _serve(
    api: Api, frame: Frame, seen: Route, body: Manifest, target: RolloutTarget, patience: RolloutPatience, say: Say
) -> Route:
    """Apply the InferenceService `body`, wait until it is ready, test it, move the route to it; return the route.

    One that already serves and has not changed is not tested again.
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
    models = [target.version.model_uri]
    if target.canary:  # the transformer serves the champion, and maybe us the candidate
        models.insert(0, _stable(api, frame, seen)["metadata"]["annotations"][frames.URI])
    figures = smoke.check(frame.address(name), *models, latency_ms=frame.smoke_latency_ms)
    if serves:
        return seen
    wanted = _route(seen, name, target, figures)
    routes.shift(api, frame.service, seen, wanted)
    say(f"Service {frame.service} points to {name}; before: {seen.active or 'nothing'}")
    return wanted


def _news(frame: Frame, name: str, *, serves: bool, differed: bool) -> str:
    """Return the effect of applying the InferenceService, as a line for the log."""
    if not serves:
        return f"InferenceService {name} is applied; it may take {frame.ready_seconds} s to become ready"
    if differed:
        return f"InferenceService {name} serves this model, but differed from release {frame.release}: corrected"
    return f"InferenceService {name} already serves this model"


def _reconcile(api: Api, body: Manifest, *, dry_run: bool = False) -> tuple[Manifest | None, Manifest]:
    """Apply an InferenceService; return its states before and after, in a dry run the state that it would have."""
    name = body["metadata"]["name"]
    before = api.get("inferenceservices", name)
    try:
        return before, api.apply("inferenceservices", name, body, manager=frames.MANAGER, dry_run=dry_run)
    except ClusterRefusedError as error:
        if "exceeded quota" in error.message:
            sentence = readiness.SENTENCES["quota"].format(detail=error.message)
            raise readiness.NotReadyError(name, "quota", sentence) from error
        raise


def _give_up(api: Api, frame: Frame, name: str, target: RolloutTarget, error: InfillError) -> DeployError:
    """Remove the new InferenceService unless it is in the route, record the failure, and return the error to raise."""
    version = target.version
    sentence = f"{error}\n{version.name} version {version.version} is not deployed: {_undo(api, frame, name)}"
    try:
        registry.set_tags(version, {registry.FAILED: sentence[:5000]})
    except ServiceError:
        sentence += "; this could not be recorded in MLflow"
    return DeployError(sentence)


def _undo(api: Api, frame: Frame, name: str) -> str:
    """Remove the InferenceService unless it is in the route; return a description of this and of what serves."""
    try:
        now, _ = routes.read(api, frame.service)
        removed = name not in now.kept and api.delete("inferenceservices", name)
    except InfillError as error:
        return (
            f"{name} could not be removed ({error}) and may hold a GPU: once the API server answers, run"
            f" `kubectl delete inferenceservice {name} --namespace {api.namespace}`, or deploy again"
        )
    serves = f"{now.active} continues to serve" if now.active else f"Service {frame.service} still points to nothing"
    return f"{name} is removed, {serves}" if removed else serves


def _old(api: Api, frame: Frame, wanted: Route) -> list[str]:
    """Return our InferenceServices that neither serve nor stand by and are older than the active one."""
    items = [each["metadata"] for each in _ours(api, frame)]
    return older({str(each["name"]): str(each["creationTimestamp"]) for each in items}, wanted)


def _ours(api: Api, frame: Frame) -> list[Manifest]:
    """Return the InferenceServices that `deploy` has created for the release."""
    labels = f"{frames.RELEASE_LABEL}={frame.release},{frames.MANAGER_LABEL}={frames.MANAGER}"
    return list(api.list("inferenceservices", labels=labels)["items"])


def older(created: Mapping[str, str], wanted: Route) -> list[str]:
    """Return the names, of those with their times of creation in `created`, that a route to `wanted` has outlived.

    The times are whole seconds. One of the same second as the active one may belong to a deployment that runs at the
    same time, so it stays until the next one.
    """
    until = created.get(wanted.active, "9")
    return sorted(name for name, time in created.items() if name not in wanted.kept and time < until)


def _sweep(api: Api, frame: Frame, wanted: Route) -> list[str]:
    return [name for name in _old(api, frame, wanted) if api.delete("inferenceservices", name)]


def _record(api: Api, version: Version, route: Route) -> None:
    """Record in the model's version where and how it is served."""
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
    """Return whether a rollback was killed after it moved the route: the champion is still the model that was left."""
    left, now = api.get("inferenceservices", seen.left), registry.champion(name)
    back = api.get("inferenceservices", seen.active)
    if left is None or back is None or now is None:
        return False
    digests = [str(each["metadata"]["annotations"][frames.DIGEST]) for each in (left, back)]
    return digests[0] == now.model_digest != digests[1]
