"""Before anything expensive: is there a cluster with what we need, may we, is there room, would it take our jobs?

All of it is asked of the API server; nothing is made.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from infill.cluster import quota
from infill.cluster.answers import OPERATORS, is_about_rights
from infill.cluster.api import Api, Manifest, RefusedError
from infill.cluster.failure import IMAGE_WAITS, waiting
from infill.cluster.job import ROLE_LABEL, StageJob, build
from infill.errors import ServiceError

T = TypeVar("T")

log = logging.getLogger(__name__)

RIGHTS: Final = (
    *(("rayjobs", verb) for verb in ("create", "get", "list", "watch", "patch", "delete")),
    *(("pods", verb) for verb in ("get", "list")),
    ("pods/log", "get"),
    ("events", "list"),
)
"""What infill.cluster does; the role infill-launcher of charts/infill-platform."""
DEPLOY_RIGHTS: Final = (
    *(("inferenceservices", verb) for verb in ("create", "get", "list", "watch", "patch", "delete")),
    *(("services", verb) for verb in ("get", "patch")),
    ("configmaps", "get"),
    ("pods", "list"),
    ("pods/log", "get"),
    ("events", "list"),
)
"""What infill.release does; the roles infill-deployer and infill-launcher."""
DOUBT_S: Final = 1.0
"""Seconds for which a refusal is doubted once the server is known to have its roles."""
LOOKED_UP: Final = (
    ("pods", "create"),
    ("resourcequotas", "list"),
    ("secrets", "get"),
    ("configmaps", "get"),
    ("serviceaccounts", "get"),
    ("persistentvolumeclaims", "get"),
)
"""What preflight itself does besides, and goes without where it may not."""
REFERENCES: Final = {
    "secrets": "Secret",
    "configmaps": "ConfigMap",
    "serviceaccounts": "ServiceAccount",
    "persistentvolumeclaims": "PersistentVolumeClaim",
}
"""What pods name and the kubelet looks for only when they start; priority and runtime classes are admission's."""


def problems(api: Api, jobs: Sequence[StageJob] = (), *, deploys: bool = True) -> list[str]:
    """One sentence for each thing that would make a run with these jobs fail later; empty when nothing is known to.

    Images are judged by what the API server shows: pods that wait for one of ours. What we have no right to look at is
    logged as not checked.
    """
    shapes = {(job.head, job.workers, job.driver_gpus): job for job in reversed(jobs)}
    bodies = [build(job) for job in reversed(shapes.values())]  # jobs of one shape share their fate
    try:
        api.reachable()
        api = replace(api, grace=DOUBT_S)
        found = [*_missing(api, deploys), *_rights(api, deploys), *_quota(api, bodies), *_images(api, bodies)]
        found += _unresolved(api, bodies)
        return found or list(_refused(api, bodies))
    except ServiceError as error:
        return [str(error)]


def _missing(api: Api, deploys: bool) -> Iterator[str]:
    for resource in ("rayjobs", "inferenceservices") if deploys else ("rayjobs",):
        try:
            api.list(resource)
        except RefusedError as error:
            if error.status == 404:
                yield f"the cluster knows no {resource}: install {OPERATORS[resource]}"
            elif error.status != 403:  # rights are told below
                raise


def _rights(api: Api, deploys: bool) -> Iterator[str]:
    wanted = dict.fromkeys((*RIGHTS, *(DEPLOY_RIGHTS if deploys else ())))
    denied = denials(api, wanted)
    if denied:
        yield (
            f"our account may not {', '.join(denied)} in namespace {api.namespace}: install charts/infill-platform "
            "there, with our account in pipeline.serviceAccounts"
        )


def denials(api: Api, rights: Iterable[tuple[str, str]]) -> list[str]:
    """Return which of these rights (resource, verb) our account lacks, as words.

    A denial is asked for twice: while a server restarts, it may know of no roles for a moment.
    """
    denied = [right for right in rights if not api.review(right[1], right[0])]
    if denied:
        time.sleep(1.0)
    return [f"{verb} {resource}" for resource, verb in denied if not api.review(verb, resource)]


def _quota(api: Api, bodies: Sequence[Manifest]) -> Iterator[str]:
    """What the largest job asks for must be free in every quota that counts it."""
    for each in _readable(api, "resourcequotas"):
        yield from quota.shortages(each, bodies)


def _readable(api: Api, resource: str) -> list[Manifest]:
    return _permitted(lambda: list(api.list(resource)["items"]), [], f"{resource} of namespace {api.namespace}")


def _permitted(ask: Callable[[], T], otherwise: T, what: str) -> T:
    """The answer, or `otherwise` with a note in the log where our account may not ask."""
    try:
        return ask()
    except RefusedError as error:
        if not is_about_rights(error.status, error.message):
            raise
        log.warning("preflight does not check %s: our account may not (%s)", what, error.message or error.status)
        return otherwise


def _unresolved(api: Api, bodies: Sequence[Manifest]) -> Iterator[str]:
    """Secrets, ConfigMaps, accounts and claims that the jobs' pods name and the namespace does not have."""
    named = {reference for body in bodies for _, pod in quota.pods(body) for reference in references(pod["spec"])}
    for resource, name in sorted(named):
        if not _permitted(partial(api.exists, resource, name), True, f"{resource} {name}"):
            yield (
                f"namespace {api.namespace} has no {REFERENCES[resource]} {name}, which the jobs' pods need: create "
                "it, or correct its name in the values of charts/infill-platform"
            )


def references(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield resource and name of everything that a pod names and does not start without."""
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
    """Images of ours that some pod of the namespace waits for in vain."""
    ours = {
        body["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] for body in bodies
    }
    stuck = [each for each in waiting(_readable(api, "pods")) if each[1] in IMAGE_WAITS]
    for image in sorted(ours):
        if pod := next((name for name, _, message in stuck if image in message), None):
            yield f"image {image} cannot be pulled (pod {pod} waits for it): check its digest and the pull secret"


def _refused(api: Api, bodies: Sequence[Manifest]) -> Iterator[str]:
    """The server's own word on each job and its pods, from a dry run: schema, admission, limits, quotas, classes."""
    said: set[str] = set()
    for resource, what, body in _trials(bodies):
        error = _trial(api, resource, body)
        if error is None or error.message in said:
            continue
        said.add(error.message)
        if resource == "pods" and is_about_rights(error.status, error.message):
            log.warning("preflight does not try the jobs' pods: our account may not (%s)", error.message)
            continue
        yield f"the cluster would refuse {what}: {error}"
        if error.status >= 500:  # the server or a webhook is out of order: the next trial would wait for it, too
            return


def _trials(bodies: Sequence[Manifest]) -> Iterator[tuple[str, str, Manifest]]:
    """Resource, description and body of what is tried. Pods have one name, so that equal refusals are equal words."""
    for body in bodies:
        job = body["metadata"]["name"]
        yield "rayjobs", f"RayJob {job}", body
        for _, pod in quota.pods(body):
            metadata = {**pod["metadata"], "name": "infill-preflight"}
            what = f"the {metadata['labels'][ROLE_LABEL]} pod of RayJob {job}"
            yield "pods", what, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]}


def _trial(api: Api, resource: str, body: Manifest) -> RefusedError | None:
    """Why the server would not take it; None when it would, or has one of that name."""
    try:
        api.create(resource, body, dry_run=True)
    except RefusedError as error:
        return None if error.status == 409 else error
    return None
