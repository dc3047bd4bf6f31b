"""The route of a deployment: one Service, whose selector names the InferenceService that clients reach.

Its annotations say what served before, so that route and history change in one request: there is no moment at which a
kill leaves one without the other.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from infill.cluster.api import Api, Manifest, RefusedError
from infill.errors import InputError, ServiceError

ACTIVE: Final = "serving.kserve.io/inferenceservice"
"""Label that KServe gives to the pods of an InferenceService."""
COMPONENT: Final = {"infill.dev/component": "transformer"}
PREVIOUS: Final = "infill.dev/previous"
LEFT: Final = "infill.dev/rolled-back-from"
SMOKE: Final = "infill.dev/smoke"


@dataclass(frozen=True, kw_only=True)
class Route:
    active: str = ""
    """The InferenceService that clients reach; empty before the first deployment."""
    previous: str = ""
    """The one that `infill rollback` goes back to; empty when there is none."""
    left: str = ""
    """The one that the last rollback left; empty after a deployment."""
    smoke: Mapping[str, float] = field(default_factory=dict)
    """What the smoke test of the active one measured."""


def read(api: Api, service: str) -> tuple[Route, Manifest]:
    """The route and the Service as it is. Raises InputError when there is no such Service."""
    found = api.get("services", service)
    if found is None:
        raise InputError(
            f"namespace {api.namespace} has no Service {service}: upgrade that release of charts/infill-serving"
        )
    notes = found["metadata"].get("annotations") or {}
    selector = found["spec"].get("selector") or {}
    return Route(
        active=selector.get(ACTIVE, ""),
        previous=notes.get(PREVIOUS, ""),
        left=notes.get(LEFT, ""),
        smoke=json.loads(notes.get(SMOKE, "{}")),
    ), found


def change(route: Route) -> Manifest:
    """The merge patch that makes a Service this route."""
    notes = {PREVIOUS: route.previous, LEFT: route.left, SMOKE: json.dumps(route.smoke, sort_keys=True)}
    return {
        "metadata": {"annotations": {name: value or None for name, value in notes.items()}},
        "spec": {"selector": {**COMPONENT, ACTIVE: route.active}},
    }


def shift(api: Api, service: str, seen: Route, wanted: Route) -> None:
    """Point the Service from what was `seen` to what is `wanted`, all in one request.

    Another change of the Service in between is no obstacle; raises ServiceError when the route itself has moved.
    """
    for _ in range(5):
        now, found = read(api, service)
        if now == wanted:
            return
        if now != seen:
            raise ServiceError(
                f"Service {service} was pointed to {now.active or 'nothing'} by someone else meanwhile: run again"
            )
        patch = change(wanted)
        patch["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
        try:
            api.merge("services", service, patch)
            return
        except RefusedError as error:
            if error.status != 409:
                raise
    raise ServiceError(f"Service {service} is changed by others all the time: run again")
