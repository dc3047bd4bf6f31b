"""Before anything expensive: is there a cluster, does it have what we need, may we, and is there room?"""

import re
from collections.abc import Iterator
from typing import Final

from infill.cluster.api import OPERATORS, Api, RefusedError
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


def problems(api: Api, *, gpus: int = 0, gpu_resource: str = "nvidia.com/gpu", deploys: bool = True) -> list[str]:
    """One sentence for each thing that would make a run fail later; empty when nothing is known to.

    `gpus` is the largest number of GPUs that a stage of the run holds at once.
    """
    try:
        api.reachable()
        return [*_missing(api, deploys), *_rights(api, deploys), *_quota(api, gpus, gpu_resource)]
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


def _quota(api: Api, gpus: int, gpu_resource: str) -> Iterator[str]:
    try:
        quotas = api.list("resourcequotas")["items"]
    except RefusedError as error:
        if error.status == 403:
            return
        raise
    wanted = {f"requests.{gpu_resource}": float(gpus), "count/rayjobs.ray.io": 1.0}
    for quota in quotas:
        hard, used = quota.get("status", {}).get("hard", {}), quota.get("status", {}).get("used", {})
        for name, amount in wanted.items():
            if name in hard and quantity(hard[name]) - quantity(used.get(name, "0")) < amount:
                yield (
                    f"quota {quota['metadata']['name']} leaves no room for {amount:g} of {name} (used "
                    f"{used.get(name, '0')} of {hard[name]}): end other jobs, or raise it"
                )


def quantity(text: str) -> float:
    """A Kubernetes quantity ("500m", "64Gi") as a number. Raises ValueError for something else."""
    found = re.fullmatch(r"([0-9.]+)([mkMGT]?|[KMGT]i)", text)
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    return float(found[1]) * {**FACTORS, **BINARY}[found[2]]
