"""Before anything expensive: is there a cluster with what we need, may we, is there room, would it take our jobs?

All of it is asked of the API server; nothing is made.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from infill.cluster.api import OPERATORS, Api, Manifest, RefusedError
from infill.cluster.failure import IMAGE_WAITS, waiting
from infill.cluster.job import StageJob, build
from infill.errors import ServiceError

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
FACTORS: Final = {"m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
BINARY: Final = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def problems(api: Api, jobs: Sequence[StageJob] = (), *, deploys: bool = True) -> list[str]:
    """One sentence for each thing that would make a run with these jobs fail later; empty when nothing is known to.

    Images are judged by what the API server shows: pods that wait for one of ours.
    """
    shapes = {(job.head, job.workers, job.driver_gpus): job for job in reversed(jobs)}
    bodies = [build(job) for job in reversed(shapes.values())]  # jobs of one shape share their fate
    try:
        api.reachable()
        found = [*_missing(api, deploys), *_rights(api, deploys), *_quota(api, bodies), *_images(api, bodies)]
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
    denied = [f"{verb} {name}" for name, verb in wanted if not api.review(verb, name)]
    if denied:
        yield (
            f"our account may not {', '.join(denied)} in namespace {api.namespace}: install charts/infill-platform "
            "there, with our account in pipeline.serviceAccounts"
        )


def _quota(api: Api, bodies: Sequence[Manifest]) -> Iterator[str]:
    """What the largest job asks for must be free in every quota that counts it."""
    asked = [demand(body) for body in bodies]
    wanted = {name: max(each.get(name, 0.0) for each in asked) for name in {name for each in asked for name in each}}
    for quota in _readable(api, "resourcequotas"):
        hard, used = quota.get("status", {}).get("hard", {}), quota.get("status", {}).get("used", {})
        for name, amount in sorted(wanted.items()):
            if amount and name in hard and quantity(hard[name]) - quantity(used.get(name, "0")) < amount:
                yield (
                    f"quota {quota['metadata']['name']} leaves no room for {amount:g} of {name} (used "
                    f"{used.get(name, '0')} of {hard[name]}): end other jobs, or raise it"
                )


def _readable(api: Api, resource: str) -> list[Manifest]:
    try:
        return list(api.list(resource)["items"])
    except RefusedError as error:
        if error.status == 403:
            return []
        raise


def demand(body: Manifest) -> dict[str, float]:
    """What a RayJob takes of a quota while it runs: name as in a ResourceQuota -> amount."""
    spec = body["spec"]
    cluster = spec["rayClusterSpec"]
    pods = [(1, cluster["headGroupSpec"]["template"]), (1, spec["submitterPodTemplate"])]
    pods += [(group["replicas"], group["template"]) for group in cluster["workerGroupSpecs"]]
    total: dict[str, float] = {"count/rayjobs.ray.io": 1.0, "pods": float(sum(count for count, _ in pods))}
    for count, pod in pods:
        for name, amount in _amounts(pod).items():
            total[name] = total.get(name, 0.0) + count * amount
    return total


def _amounts(pod: Mapping[str, Any]) -> dict[str, float]:
    """Of one pod, by the names of quotas: `requests.cpu`, `limits.cpu`, and `cpu`, which means the request."""
    found: dict[str, float] = {}
    for container in pod["spec"]["containers"]:
        for kind in ("requests", "limits"):
            for name, text in container["resources"][kind].items():
                names = [f"{kind}.{name}", *([name] if kind == "requests" else [])]
                found |= {each: found.get(each, 0.0) + quantity(text) for each in names}
    return found


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
    """The server's own word on each job, from a dry run: schema, admission, quotas of objects."""
    told = set()
    for body in bodies:
        try:
            api.create("rayjobs", body, dry_run=True)
        except RefusedError as error:
            if error.status != 409 and str(error) not in told:
                told.add(str(error))
                yield f"the cluster would refuse RayJob {body['metadata']['name']}: {error}"


def quantity(text: str) -> float:
    """A Kubernetes quantity ("500m", "64Gi") as a number. Raises ValueError for something else."""
    found = re.fullmatch(r"([0-9.]+)([mkMGT]?|[KMGT]i)", text)
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    return float(found[1]) * {**FACTORS, **BINARY}[found[2]]
