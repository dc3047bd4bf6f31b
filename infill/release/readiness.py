"""Waiting until an InferenceService is ready, and why it is not.

`obstacle` is a pure function of dicts that the API server gave; `wait` asks for them.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

from infill.cluster import failure
from infill.cluster.api import Api
from infill.cluster.failure import short
from infill.cluster.logs import last_lines
from infill.cluster.watch import follow
from infill.errors import ServiceError

Manifest = Mapping[str, Any]

POD_LABEL: Final = "serving.kserve.io/inferenceservice"
STORAGE: Final = "storage-initializer"
"""KServe's init container that fetches `storageUri`."""
ASKED_PODS: Final = 4
"""Pods whose events are read at each look."""

SENTENCES: Final[Mapping[str, str]] = {
    "image": "an image cannot be pulled ({detail}): check its name and digest, and the pull secret",
    "quota": "the namespace's quota is full ({detail}): two InferenceServices run during a deployment; raise the quota"
    " or make them smaller",
    "storage": "the model cannot be fetched ({detail}): check its URI, the object store's Secret and the network"
    " policies",
    "memory": "a container is out of memory ({detail}): raise the resources of the predictor or the transformer in the"
    " release's values",
    "missing": "its pods need something that does not exist ({detail}): create it, or correct its name in the values of"
    " charts/infill-serving",
    "refused": "the cluster does not admit its pods ({detail}): change the policy, limit range or webhook that says so",
    "crash": "a container ends again and again ({detail})",
    "invalid": "KServe refuses it ({detail}): check the version of KServe, and upgrade charts/infill-serving",
    "gone": "it was deleted by someone else",
    "unschedulable": "no node takes it ({detail}): check free nodes, GPUs, node selector and tolerations",
    "deadline": "it is not ready after {seconds} s ({detail}): raise deploy.readySeconds, or see `kubectl describe`",
}
"""Kind of obstacle -> what was wrong and what to do; `detail` is the cluster's own words."""
WAITED_FOR: Final = ("unschedulable",)
"""Kinds that may go away by waiting (a cluster that grows): they end the deployment only at its deadline."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds."""

    tick: int = 5
    """Between two looks at the pods when nothing changes."""
    grace: float = 40.0
    """For an obstacle to go away by itself."""
    outage: float = 600.0
    """For the API server to come back."""


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    kind: str
    detail: str = ""
    pod: str = ""
    """Whose container's last lines help."""
    container: str = ""


class NotReadyError(ServiceError):
    """An InferenceService that did not become ready; `kind` is one of SENTENCES."""

    def __init__(self, name: str, kind: str, sentence: str) -> None:
        super().__init__(f"InferenceService {name}: {sentence}")
        self.kind = kind


def ready(service: Manifest) -> bool:
    """Whether KServe says so of the object as it is now, not as it was before the last change."""
    status = service.get("status") or {}
    seen = status.get("observedGeneration", 0)
    current = not seen or seen >= service["metadata"].get("generation", 0)
    return current and any(
        each.get("type") == "Ready" and each.get("status") == "True" for each in status.get("conditions") or ()
    )


def wait(
    api: Api,
    name: str,
    *,
    seconds: float,
    patience: Patience | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Return when the InferenceService is ready. Raises NotReadyError, saying why, when it is not or will not be.

    What it waits for goes to `say`, each time that this changes.
    """
    waits = patience or Patience()
    api = replace(api, outage=waits.outage)
    began, since, last = time.monotonic(), 0.0, Obstacle(kind="deadline")
    for service in follow(api, "inferenceservices", name, tick=waits.tick, outage=waits.outage):
        if service is None:
            raise _error(api, name, Obstacle(kind="gone"), seconds)
        if ready(service):
            return
        pods = _pods(api, name)
        found = obstacle(service, pods, _events(api, name, pods))
        now = time.monotonic()
        since = (since or now) if found and found.kind not in WAITED_FOR else 0.0
        before, last = last, found or Obstacle(kind="deadline", detail=_conditions(service))
        if last != before:
            say(f"InferenceService {name} is not ready yet: {last.detail}")
        if (since and now - since >= waits.grace) or now - began >= seconds:
            raise _error(api, name, last, seconds)
    raise AssertionError("the watch does not end by itself")


def obstacle(service: Manifest, pods: Iterable[Manifest], events: Iterable[Manifest]) -> Obstacle | None:
    """What keeps an InferenceService from becoming ready, the cause before its effects; None when nothing is known."""
    pods = list(pods)
    model = (service.get("status") or {}).get("modelStatus") or {}
    if model.get("transitionStatus") == "InvalidSpec":
        told = model.get("lastFailureInfo") or {}
        return Obstacle(kind="invalid", detail=short(f"{told.get('reason', '')} {told.get('message', '')}"))
    blocked = failure.obstacle(service, pods, events)
    if blocked is not None:
        kind = "storage" if blocked.container == STORAGE and blocked.kind == "crash" else blocked.kind
        return Obstacle(kind=kind, detail=blocked.detail, pod=blocked.pod, container=blocked.container)
    message = next(failure.unschedulable(pods), None)
    return None if message is None else Obstacle(kind="unschedulable", detail=short(message))


def _conditions(service: Manifest) -> str:
    """What KServe says is not yet so."""
    conditions = (service.get("status") or {}).get("conditions") or ()
    waiting = [
        f"{each.get('type')}: {each.get('message') or each.get('reason') or each.get('status')}"
        for each in conditions
        if each.get("status") != "True"
    ]
    return short("; ".join(waiting)) or "KServe says nothing about it: is its controller running?"


def _pods(api: Api, name: str) -> list[Manifest]:
    return list(api.list("pods", labels=f"{POD_LABEL}={name}")["items"])


def _events(api: Api, name: str, pods: list[Manifest]) -> list[Manifest]:
    """Return what is said of pods that were refused (their ReplicaSet's name begins with ours) or do not start."""
    refused = api.list("events", fields="reason=FailedCreate")["items"]
    of_pods = [
        api.list("events", fields=f"involvedObject.name={pod}")["items"] for pod in failure.unstarted(pods)[:ASKED_PODS]
    ]
    mine = [event for event in refused if str(event.get("involvedObject", {}).get("name", "")).startswith(f"{name}-")]
    return [*mine, *chain.from_iterable(of_pods)]


def _error(api: Api, name: str, found: Obstacle, seconds: float) -> NotReadyError:
    sentence = SENTENCES[found.kind].format(detail=found.detail, seconds=f"{seconds:g}")
    lines = last_lines(api, found.pod, found.container) if found.pod else []
    return NotReadyError(name, found.kind, "\n".join([sentence, *(f"  | {line}" for line in lines)]))
