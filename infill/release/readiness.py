"""Waiting for an InferenceService to become ready, and the reasons why it does not.

`obstacle` is a pure function of dicts from the API server; `wait` requests them.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final
from urllib.parse import urlsplit

from infill.cluster import failure
from infill.cluster.api import Api
from infill.cluster.failure import short
from infill.cluster.logs import last_lines
from infill.cluster.object_watch import follow
from infill.errors import ServiceError

Manifest = Mapping[str, Any]

POD_LABEL: Final = "serving.kserve.io/inferenceservice"
STORAGE: Final = "storage-initializer"
"""Name of KServe's init container, which fetches `storageUri`."""
PREDICTOR: Final = "--predictor_host"
"""The transformer's argument with its predictor's host and port."""
ASKED_PODS: Final = 4
"""Maximum number of pods whose events are read at each check."""

SENTENCES: Final[Mapping[str, str]] = {
    "image": "an image cannot be pulled ({detail}): check its name and digest, and the pull secret",
    "quota": "the namespace's quota is full ({detail}): two InferenceServices run during a deployment; raise the quota"
    " or make them smaller",
    "storage": "the model cannot be fetched ({detail}): check its URI, the object store's Secret and the network"
    " policies",
    "memory": "a container is out of memory ({detail}): raise the resources of the predictor or the transformer in the"
    " release's values, or those of the storage-initializer in KServe's ClusterStorageContainer",
    "missing": "its pods need something that does not exist ({detail}): create it, or correct its name in the values of"
    " charts/infill-serving",
    "refused": "the cluster does not admit its pods ({detail}): change the policy, limit range or webhook",
    "crash": "a container exits repeatedly ({detail}): see its last lines",
    "invalid": "KServe refuses it ({detail}): check the version of KServe, and upgrade charts/infill-serving",
    "port": "its transformer cannot reach the predictor ({detail}): set kserve.port of charts/infill-serving to that"
    " port, and deploy again",
    "reconcile": "KServe cannot create its objects ({detail}): correct that, or see the log of KServe's controller",
    "gone": "it was deleted by someone else",
    "unschedulable": "no node accepts it ({detail}): check free nodes, GPUs, node selector and tolerations",
    "deadline": "it is not ready after {seconds} s ({detail}): raise deploy.readySeconds, or see `kubectl describe`",
}
"""Cause and remedy for each kind of obstacle; `detail` is the cluster's message."""
WAITED_FOR: Final = ("unschedulable",)
"""Kinds that may disappear, as when a cluster grows: they end the deployment only at its deadline."""


@dataclass(frozen=True, kw_only=True)
class RolloutPatience:
    """Waiting times in seconds."""

    tick: int = 5
    """Time between two checks of the pods if nothing changes."""
    grace: float = 40.0
    """Time for an obstacle to disappear by itself."""
    outage: float = 600.0
    """Time for the API server to return."""


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    kind: str
    detail: str = ""
    pod: str = ""
    """Pod of the container whose last log lines are shown."""
    container: str = ""


class NotReadyError(ServiceError):
    """An InferenceService that did not become ready; `kind` is one of SENTENCES."""

    def __init__(self, name: str, kind: str, sentence: str) -> None:
        super().__init__(f"InferenceService {name}: {sentence}")
        self.kind = kind


def ready(service: Manifest) -> bool:
    """Return whether KServe reports the InferenceService and its transformer, if it has one, as ready.

    KServe derives `Ready` from the predictor and the Ingress alone. Its `observedGeneration` is that of the Deployment
    which it has reconciled last, so it cannot be compared with the InferenceService's generation.
    """
    conditions = (service.get("status") or {}).get("conditions") or ()
    true = {each.get("type") for each in conditions if each.get("status") == "True"}
    return "Ready" in true and ("TransformerReady" in true or "transformer" not in service.get("spec", {}))


def wait(
    api: Api,
    name: str,
    *,
    seconds: float,
    patience: RolloutPatience | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Wait until the InferenceService is ready. Raises NotReadyError with the reason when it does not become ready.

    `say` gets what is missing, each time that this changes.
    """
    waits = patience or RolloutPatience()
    api = replace(api, outage=waits.outage)
    began, since, last = time.monotonic(), 0.0, Obstacle(kind="deadline")
    for service in follow(api, "inferenceservices", name, tick=waits.tick, outage=waits.outage):
        if service is None:
            raise _error(api, name, Obstacle(kind="gone"), seconds)
        if wrong := _wrong_port(service):
            raise _error(api, name, wrong, seconds)
        if ready(service):
            return
        pods = _pods(api, name)
        known = obstacle(service, pods, _events(api, name, pods))
        now = time.monotonic()
        since = (since or now) if known and known.kind not in WAITED_FOR else 0.0
        before, last = last, known or Obstacle(kind="deadline", detail=_conditions(service))
        if last != before:
            say(f"InferenceService {name} is not ready yet: {last.detail}")
        if (since and now - since >= waits.grace) or now - began >= seconds:
            raise _error(api, name, last, seconds)
    raise AssertionError("the watch does not end by itself")


def obstacle(service: Manifest, pods: Iterable[Manifest], events: Iterable[Manifest]) -> Obstacle | None:
    """Return what keeps an InferenceService from becoming ready, a cause before its effects; None if unknown."""
    pods = list(pods)
    model = (service.get("status") or {}).get("modelStatus") or {}
    if model.get("transitionStatus") == "InvalidSpec":
        failed = model.get("lastFailureInfo") or {}
        return Obstacle(kind="invalid", detail=short(f"{failed.get('reason', '')} {failed.get('message', '')}"))
    reconciled = next((each for each in _untrue(service) if each.get("reason") == "ReconcileFailed"), None)
    if reconciled is not None:
        what = str(reconciled.get("message", ""))
        return Obstacle(kind=failure.cause(what) or "reconcile", detail=short(what))
    blocked = failure.obstacle(service, pods, events)
    if blocked is not None:
        kind = "storage" if blocked.container == STORAGE and blocked.kind == "crash" else blocked.kind
        return Obstacle(kind=kind, detail=blocked.detail, pod=blocked.pod, container=blocked.container)
    message = next(failure.unschedulable(pods), None)
    return None if message is None else Obstacle(kind="unschedulable", detail=short(message))


def _wrong_port(service: Manifest) -> Obstacle | None:
    """Return an obstacle if the transformer calls its predictor on a port that KServe's Services do not have.

    KServe reports the port in `status.address`: none, that is 80, or the containers' port for headless Services.
    """
    address = ((service.get("status") or {}).get("address") or {}).get("url")
    containers = (service.get("spec", {}).get("transformer") or {}).get("containers") or ()
    arguments = [str(each).partition("=") for container in containers for each in container.get("args") or ()]
    host = next((value for name, _, value in arguments if name == PREDICTOR), "")
    if not address or not host:
        return None
    called, port = urlsplit(f"//{host}").port or 80, urlsplit(address).port or 80
    return (
        Obstacle(kind="port", detail=f"it calls {host}, KServe's Services have port {port}") if called != port else None
    )


def _conditions(service: Manifest) -> str:
    """Return the conditions that KServe reports as not yet true."""
    waiting = [
        f"{each.get('type')}: {each.get('message') or each.get('reason') or each.get('status')}"
        for each in _untrue(service)
    ]
    return short("; ".join(waiting)) or "KServe reports nothing: check that its controller is running"


def _untrue(service: Manifest) -> list[Manifest]:
    """Return the conditions that are not true, without `Stopped`, which is false while the InferenceService runs."""
    conditions = (service.get("status") or {}).get("conditions") or ()
    return [each for each in conditions if each.get("status") != "True" and each.get("type") != "Stopped"]


def _pods(api: Api, name: str) -> list[Manifest]:
    return list(api.list("pods", labels=f"{POD_LABEL}={name}")["items"])


def _events(api: Api, name: str, pods: list[Manifest]) -> list[Manifest]:
    """Return the events of pods that were refused (their ReplicaSet's name begins with `name`) or do not start."""
    refused = api.list("events", fields="reason=FailedCreate")["items"]
    of_pods = [
        api.list("events", fields=f"involvedObject.name={pod}")["items"] for pod in failure.unstarted(pods)[:ASKED_PODS]
    ]
    mine = [event for event in refused if str(event.get("involvedObject", {}).get("name", "")).startswith(f"{name}-")]
    return [*mine, *chain.from_iterable(of_pods)]


def _error(api: Api, name: str, cause: Obstacle, seconds: float) -> NotReadyError:
    sentence = SENTENCES[cause.kind].format(detail=cause.detail, seconds=f"{seconds:g}")
    lines = last_lines(api, cause.pod, cause.container) if cause.pod else []
    return NotReadyError(name, cause.kind, "\n".join([sentence, *(f"  | {line}" for line in lines)]))
