"""A RayJob's use of a namespace's ResourceQuotas, and the quotas that it exceeds.

Pure functions of dicts that follow the API server's quota admission: scopes choose pods, amounts are decimal.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from infill.cluster.api import quantity

Manifest = Mapping[str, Any]

OBJECTS: Final[Mapping[str, int]] = {
    "count/rayjobs.ray.io": 1,
    "count/rayclusters.ray.io": 1,
    "count/jobs.batch": 1,
    "count/services": 1,
    "services": 1,
}
"""Objects other than pods that KubeRay creates for a RayJob: its cluster, the submitter's Job, the head's Service."""


def pods(body: Manifest) -> list[tuple[int, Manifest]]:
    """Return the count and template of each group of a RayJob's pods."""
    cluster = body["spec"]["rayClusterSpec"]
    single = [cluster["headGroupSpec"]["template"], body["spec"]["submitterPodTemplate"]]
    groups = [(int(group["replicas"]), group["template"]) for group in cluster["workerGroupSpecs"]]
    return [*((1, template) for template in single), *groups]


def demand(body: Manifest, quota: Manifest | None = None) -> dict[str, Decimal]:
    """Return the amount of each resource that a running RayJob uses of a quota (by default one without scopes)."""
    rules = _rules(quota or {})
    chosen = [(count, pod) for count, pod in pods(body) if all(_applies(rule, pod) for rule in rules)]
    number = Decimal(sum(count for count, _ in chosen))
    total = {"pods": number, "count/pods": number}
    if not rules:  # a quota with scopes counts only pods
        total |= {name: Decimal(count) for name, count in OBJECTS.items()}
    for count, pod in chosen:
        for name, amount in _amounts(pod).items():
            total[name] = total.get(name, Decimal(0)) + count * amount
    return total


def shortages(quota: Manifest, bodies: Sequence[Manifest]) -> Iterator[str]:
    """Yield a sentence for each resource of which a quota has too little left for the largest of the jobs."""
    status, name = quota.get("status") or {}, quota["metadata"]["name"]
    hard = status.get("hard") or (quota.get("spec") or {}).get("hard") or {}
    used = status.get("used") or {}
    demands = [demand(body, quota) for body in bodies]
    for resource, limit in sorted(hard.items()):
        amount = max((each.get(resource, Decimal(0)) for each in demands), default=Decimal(0))
        taken = used.get(resource, "0")
        if amount and quantity(limit) - quantity(taken) < amount:
            yield (
                f"quota {name} has no room for {float(amount):g} of {resource} (used {taken} of {limit}): end other "
                "jobs, or raise it"
            )


def _rules(quota: Manifest) -> list[Manifest]:
    """Return the scopes of a quota, all of which a pod must match."""
    spec = quota.get("spec") or {}
    expressions = (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return [*({"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()), *expressions]


def _applies(rule: Manifest, pod: Manifest) -> bool:
    """Return whether a pod is in a scope."""
    spec, scope, operator = pod["spec"], rule["scopeName"], rule.get("operator", "Exists")
    if scope == "PriorityClass":
        value, values = spec.get("priorityClassName", ""), rule.get("values") or ()
        return {
            "Exists": bool(value),
            "DoesNotExist": not value,
            "In": value in values,
            "NotIn": value not in values,
        }[operator]
    matches = {
        "Terminating": spec.get("activeDeadlineSeconds") is not None,
        "NotTerminating": spec.get("activeDeadlineSeconds") is None,
        "BestEffort": not _amounts(pod),
        "NotBestEffort": bool(_amounts(pod)),
        "CrossNamespacePodAffinity": _crosses_namespaces(spec),
    }
    return matches.get(scope, False)


def _crosses_namespaces(spec: Manifest) -> bool:
    affinity = spec.get("affinity") or {}
    terms: list[Manifest] = []
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        terms += rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        weighted = rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [each["podAffinityTerm"] for each in weighted]
    return any("namespaceSelector" in term or term.get("namespaces") for term in terms)


def _amounts(pod: Manifest) -> dict[str, Decimal]:
    """Return a pod's amounts by their names in quotas: `requests.cpu`, `limits.cpu`, and `cpu` for the request."""
    total: dict[str, Decimal] = {}
    for container in pod["spec"]["containers"]:
        for kind in ("requests", "limits"):
            for name, text in ((container.get("resources") or {}).get(kind) or {}).items():
                for each in (f"{kind}.{name}", *([name] if kind == "requests" else [])):
                    total[each] = total.get(each, Decimal(0)) + quantity(text)
    return total
