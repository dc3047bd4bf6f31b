"""Checks of a cluster before a run: operators, rights, free quota, and whether it would accept our jobs.

They only ask the API server; nothing is created.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from infill.cluster import quota
from infill.cluster.answers import OPERATORS, is_about_rights
from infill.cluster.api import Api, ClusterRefusedError, Manifest
from infill.cluster.failure import IMAGE_WAITS, waiting
from infill.cluster.stage_job import ROLE_LABEL, StageJob, build
from infill.errors import ServiceError

T = TypeVar("T")

log = logging.getLogger(__name__)

RIGHTS: Final = (
    *(("rayjobs", verb) for verb in ("create", "get", "list", "watch", "patch", "delete")),
    *(("pods", verb) for verb in ("get", "list")),
    ("pods/log", "get"),
    ("events", "list"),
)
"""Rights that infill.cluster needs; the role infill-launcher of charts/infill-platform."""
DEPLOY_RIGHTS: Final = (
    *(("inferenceservices", verb) for verb in ("create", "get", "list", "watch", "patch", "delete")),
    *(("services", verb) for verb in ("get", "patch")),
    ("configmaps", "get"),
    ("pods", "list"),
    ("pods/log", "get"),
    ("events", "list"),
)
"""Rights that infill.release needs; the roles infill-deployer and infill-launcher."""
DOUBT_S: Final = 1.0
"""Seconds for which a refusal is retried once the server is known to have its roles."""
LOOKED_UP: Final = (
    ("pods", "create"),
    ("resourcequotas", "list"),
    ("secrets", "get"),
    ("configmaps", "get"),
    ("serviceaccounts", "get"),
    ("persistentvolumeclaims", "get"),
)
"""Rights that preflight itself uses; it skips the checks for which it lacks them."""
REFERENCES: Final = {
    "secrets": "Secret",
    "configmaps": "ConfigMap",
    "serviceaccounts": "ServiceAccount",
    "persistentvolumeclaims": "PersistentVolumeClaim",
}
"""Objects that the kubelet looks up only when a pod starts; admission checks priority and runtime classes."""


def problems(api: Api, jobs: Sequence[StageJob] = (), *, deploys: bool = True) -> list[str]:
    """Return a sentence for each known reason why a run with these jobs would fail later.

    Images are checked only by pods that wait for one of ours. Checks for which we lack the rights are logged as
    skipped.
    """
    shapes = {(job.head, job.workers, job.driver_gpus): job for job in reversed(jobs)}
    bodies = [build(job) for job in reversed(shapes.values())]  # jobs of one shape fail alike
    try:
        api.reachable()
        api = replace(api, grace=DOUBT_S)
        reasons = [*_missing(api, deploys), *_rights(api, deploys), *_quota(api, bodies), *_images(api, bodies)]
        reasons += _unresolved(api, bodies)
        return reasons or list(_refused(api, bodies))
    except ServiceError as error:
        return [str(error)]


def _missing(api: Api, deploys: bool) -> Iterator[str]:
    for resource in ("rayjobs", "inferenceservices") if deploys else ("rayjobs",):
        try:
            api.list(resource)
        except ClusterRefusedError as error:
            if error.status == 404:
                yield f"the cluster has no resource {resource}: install {OPERATORS[resource]}"
            elif error.status != 403:  # missing rights are reported below
                raise


def _rights(api: Api, deploys: bool) -> Iterator[str]:
    rights = dict.fromkeys((*RIGHTS, *(DEPLOY_RIGHTS if deploys else ())))
    denied = denials(api, rights)
    if denied:
        yield (
            f"our account is not allowed to {', '.join(denied)} in namespace {api.namespace}: install "
            "charts/infill-platform there, with our account in pipeline.serviceAccounts"
        )


def denials(api: Api, rights: Iterable[tuple[str, str]]) -> list[str]:
    """Return those of `rights` (resource, verb) that our account lacks, as text ("verb resource").

    Denied rights are asked for twice, since a restarting server may not know its roles for a moment.
    """
    denied = [right for right in rights if not api.review(right[1], right[0])]
    if denied:
        time.sleep(1.0)
    return [f"{verb} {resource}" for resource, verb in denied if not api.review(verb, resource)]


def _quota(api: Api, bodies: Sequence[Manifest]) -> Iterator[str]:
    """Yield a sentence for each quota without room for the largest job that it counts."""
    for each in _readable(api, "resourcequotas"):
        yield from quota.shortages(each, bodies)


def _readable(api: Api, resource: str) -> list[Manifest]:
    return _permitted(lambda: list(api.list(resource)["items"]), [], f"{resource} of namespace {api.namespace}")


def _permitted(ask: Callable[[], T], otherwise: T, what: str) -> T:
    """Return the answer of `ask`, or `otherwise`, with a log message, if our account lacks the right to ask."""
    try:
        return ask()
    except ClusterRefusedError as error:
        if not is_about_rights(error.status, error.message):
            raise
        log.warning("preflight skips %s: our account lacks the right (%s)", what, error.message or error.status)
        return otherwise


def _unresolved(api: Api, bodies: Sequence[Manifest]) -> Iterator[str]:
    """Yield a sentence for each Secret, ConfigMap, account or claim of the jobs' pods that does not exist."""
    required = {reference for body in bodies for _, pod in quota.pods(body) for reference in references(pod["spec"])}
    for resource, name in sorted(required):
        if not _permitted(partial(api.exists, resource, name), True, f"{resource} {name}"):
            yield (
                f"namespace {api.namespace} has no {REFERENCES[resource]} {name}, which the jobs' pods need: create "
                "it, or correct its name in the values of charts/infill-platform"
            )


def references(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the resource and name of every object without which a pod does not start."""
    yield "serviceaccounts", spec.get("serviceAccountName") or "default"
    for each in spec.get("imagePullSecrets") or ():
        yield "secrets", each["name"]
    for volume in spec.get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            yield "persistentvolumeclaims", volume["persistentVolumeClaim"]["claimName"]
    for container in spec["containers"]:
        for source in container.get("envFrom") or ():
            for key, resource in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
                if key in source and not source[key].get("optional"):
                    yield resource, source[key]["name"]


def _images(api: Api, bodies: Sequence[Manifest]) -> Iterator[str]:
    """Yield a sentence for each of our images that a pod of the namespace fails to pull."""
    ours = {
        body["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] for body in bodies
    }
    stuck = [each for each in waiting(_readable(api, "pods")) if each[1] in IMAGE_WAITS]
    for image in sorted(ours):
        if pod := next((name for name, _, message in stuck if image in message), None):
            yield f"image {image} cannot be pulled (pod {pod} waits for it): check its digest and the pull secret"


def _refused(api: Api, bodies: Sequence[Manifest]) -> Iterator[str]:
    """Yield a sentence for each job or pod that the server rejects in a dry run: schema, admission, limits, quotas."""
    messages: set[str] = set()
    for resource, what, body in _trials(bodies):
        error = _trial(api, resource, body)
        if error is None or error.message in messages:
            continue
        messages.add(error.message)
        if resource == "pods" and is_about_rights(error.status, error.message):
            log.warning("preflight skips the jobs' pods: our account lacks the right (%s)", error.message)
            continue
        yield f"the cluster would reject {what}: {error}"
        if error.status >= 500:  # the server or a webhook is broken: the next trial would wait for it, too
            return


def _trials(bodies: Sequence[Manifest]) -> Iterator[tuple[str, str, Manifest]]:
    """Yield the resource, description and body of each trial. All pods have one name, so that refusals can be equal."""
    for body in bodies:
        job = body["metadata"]["name"]
        yield "rayjobs", f"RayJob {job}", body
        for _, pod in quota.pods(body):
            metadata = {**pod["metadata"], "name": "infill-preflight"}
            what = f"the {metadata['labels'][ROLE_LABEL]} pod of RayJob {job}"
            yield "pods", what, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]}


def _trial(api: Api, resource: str, body: Manifest) -> ClusterRefusedError | None:
    """Return the server's refusal of `body`; None if it accepts it, or already has an object of that name."""
    try:
        api.create(resource, body, dry_run=True)
    except ClusterRefusedError as error:
        return None if error.status == 409 else error
    return None
