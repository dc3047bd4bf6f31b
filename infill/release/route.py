"""The route of a deployment: one Service, whose selector names the InferenceService that clients reach.

Its annotations record what served before, so that route and history change in one request, and a kill never leaves one
without the other.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from infill.cluster.api import Api, ClusterRefusedError, Manifest
from infill.errors import InputError, ServiceError

ACTIVE: Final = "serving.kserve.io/inferenceservice"
"""Label that KServe gives to the pods of an InferenceService."""
COMPONENT: Final = {"infill.dev/component": "transformer"}
PREVIOUS: Final = "infill.dev/previous"
LEFT: Final = "infill.dev/rolled-back-from"
STABLE: Final = "infill.dev/canary-of"
SMOKE: Final = "infill.dev/smoke"


@dataclass(frozen=True, kw_only=True)
class Route:
    active: str = ""
    """The InferenceService that clients reach; empty before the first deployment."""
    previous: str = ""
    """The InferenceService to which `infill rollback` returns; empty if there is none."""
    left: str = ""
    """The InferenceService that the last rollback left; empty after a deployment."""
    stable: str = ""
    """The champion's InferenceService while the active one tries a candidate next to it; empty without a canary."""
    smoke: Mapping[str, float] = field(default_factory=dict)
    """Figures of the smoke test of the active InferenceService."""

    @property
    def champion(self) -> str:
        """The InferenceService of the champion: the active one, or during a canary the one next to it."""
        return self.stable or self.active

    @property
    def kept(self) -> tuple[str, ...]:
        """The InferenceServices that serve or stand by."""
        return self.active, self.previous, self.stable


def read(api: Api, service: str) -> tuple[Route, Manifest]:
    """Return the route and the Service in its current state. Raises InputError when there is no such Service."""
    current = api.get("services", service)
    if current is None:
        raise InputError(
            f"namespace {api.namespace} has no Service {service}: upgrade that release of charts/infill-serving"
        )
    notes = current["metadata"].get("annotations") or {}
    selector = current["spec"].get("selector") or {}
    return Route(
        active=selector.get(ACTIVE, ""),
        previous=notes.get(PREVIOUS, ""),
        left=notes.get(LEFT, ""),
        stable=notes.get(STABLE, ""),
        smoke=json.loads(notes.get(SMOKE, "{}")),
    ), current


def change(route: Route) -> Manifest:
    """Return the merge patch that gives a Service this route."""
    notes = {PREVIOUS: route.previous, LEFT: route.left, STABLE: route.stable}
    notes |= {SMOKE: json.dumps(route.smoke, sort_keys=True)}
    return {
        "metadata": {"annotations": {name: value or None for name, value in notes.items()}},
        "spec": {"selector": {**COMPONENT, ACTIVE: route.active}},
    }


def shift(api: Api, service: str, seen: Route, wanted: Route) -> None:
    """Change the route of the Service from `seen` to `wanted`, in one request.

    Other changes of the Service in the meantime do not matter. Raises ServiceError when its route has changed.
    """
    for _ in range(5):
        now, current = read(api, service)
        if now == wanted:
            return
        if now != seen:
            raise ServiceError(
                f"Service {service} was pointed to {now.active or 'nothing'} by someone else in the meantime: run again"
            )
        patch = change(wanted)
        patch["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        try:
            api.merge("services", service, patch)
            return
        except ClusterRefusedError as error:
            if error.status != 409:
                raise
    raise ServiceError(f"Service {service} is being changed by others repeatedly: run again")
