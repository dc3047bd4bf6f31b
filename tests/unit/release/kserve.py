"""What KServe and Kubernetes do to an InferenceService, written through the API as they do it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from infill.cluster.answers import ClusterApiError, ClusterRefusedError
from infill.cluster.api import MERGE, Api
from tests.unit.cluster.kuberay import KubeRay

Behaviour = Callable[["KServe", str], None]

PAUSE_S: Final = 0.1


class KServe:
    """Treats each new InferenceService as `behaviour` says; `running` makes it do so by itself."""

    def __init__(self, api: Api, behaviour: Behaviour) -> None:
        self.api = replace(api, outage=30.0, grace=30.0)
        self.behaviour = behaviour
        self.seen: list[str] = []
        """Names in the order in which they came."""

    @contextmanager
    def running(self) -> Iterator["KServe"]:
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,))
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(PAUSE_S):
            for name in sorted(self._names() - set(self.seen)):
                self.seen.append(name)
                self.behaviour(self, name)

    def _names(self) -> set[str]:
        """What there is; nothing while the API server does not say."""
        fields = f"metadata.namespace={self.api.namespace}"  # all; a test's fault can tell this request from others
        try:
            services = replace(self.api, outage=0.0, grace=0.0).list("inferenceservices", fields=fields)["items"]
        except ClusterApiError:
            return set()
        return {each["metadata"]["name"] for each in services}

    def status(self, name: str, **status: Any) -> None:
        path = f"/apis/serving.kserve.io/v1beta1/namespaces/{self.api.namespace}/inferenceservices/{name}/status"
        try:
            self.api._request("PATCH", path, body={"status": status}, content=MERGE)
        except ClusterRefusedError as error:
            if error.status != 404:  # else it was deleted in the meantime, as it may be under the real operator
                raise

    def pod(self, name: str, **status: Any) -> str:
        """A pod of the predictor of the InferenceService `name`, in that state; returns its own name."""
        pod = f"{name}-predictor-1"
        labels = {"serving.kserve.io/inferenceservice": name}
        init, main = ({"name": each, "image": "example/none"} for each in ("storage-initializer", "kserve-container"))
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "labels": labels},
            "spec": {"initContainers": [init], "containers": [main]},
        }
        self.api.create("pods", body)
        KubeRay(self.api).pod_status(pod, **status)
        return pod

    def event(self, name: str, message: str) -> None:
        """A pod of `name` could not be created."""
        KubeRay(self.api).event(f"{name}-predictor-5f", "ReplicaSet", "FailedCreate", message)


READY: Final = ("PredictorReady", "TransformerReady", "IngressReady", "Ready")


def conditions(*true: str) -> list[dict[str, str]]:
    """KServe's conditions with those that are true; it always adds that the service is not stopped."""
    types = [{"type": kind, "status": "True" if kind in true else "False"} for kind in READY]
    return [*types, {"type": "Stopped", "status": "False"}]


def becomes_ready(kserve: KServe, name: str) -> None:
    """Like KServe's own, the generation is that of a Deployment, and does not count changes of the InferenceService."""
    kserve.status(name, conditions=conditions(*READY), address=address(kserve, name), observedGeneration=1)


def address(kserve: KServe, name: str, port: str = "") -> dict[str, str]:
    """The address in the status: with a port only if KServe's Services are headless."""
    return {"url": f"http://{name}-transformer.{kserve.api.namespace}.svc.cluster.local{port}"}


def has_headless_services(kserve: KServe, name: str) -> None:
    ready = conditions("PredictorReady", "IngressReady", "Ready")
    kserve.status(name, conditions=ready, address=address(kserve, name, ":8080"))


def leaves_the_transformer_out(kserve: KServe, name: str) -> None:
    """`Ready` is true although the transformer is not: KServe derives it from predictor and Ingress."""
    kserve.status(name, conditions=conditions("PredictorReady", "IngressReady", "Ready"))


def cannot_name_it(kserve: KServe, name: str) -> None:
    message = f'failed creating host name: invalid domain name "{name}-predictor-a-long-namespace.example.com"'
    failed = {"type": "PredictorReady", "status": "False", "reason": "ReconcileFailed", "message": message}
    kserve.status(name, conditions=[failed])


def says_nothing(_kserve: KServe, _name: str) -> None:
    pass


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    """The status of a container that waits."""
    return {
        "name": "kserve-container",
        "image": "example/none",
        "restartCount": 0,
        "state": {"waiting": {"reason": reason, "message": message}},
        **more,
    }


def cannot_pull(kserve: KServe, name: str) -> None:
    kserve.pod(name, phase="Pending", containerStatuses=[waiting("ImagePullBackOff", "not found")])


def crashes(kserve: KServe, name: str) -> None:
    ended = {"terminated": {"reason": "Error", "exitCode": 2}}
    kserve.pod(name, containerStatuses=[waiting("CrashLoopBackOff", restartCount=4, lastState=ended)])


def lacks_memory(kserve: KServe, name: str) -> None:
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    kserve.pod(name, containerStatuses=[waiting("CrashLoopBackOff", restartCount=4, lastState=ended)])


def lacks_a_secret(kserve: KServe, name: str) -> None:
    kserve.pod(name, containerStatuses=[waiting("CreateContainerConfigError", 'secret "s3" not found')])


def is_not_admitted(kserve: KServe, name: str) -> None:
    kserve.event(name, 'Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot')


def cannot_fetch(kserve: KServe, name: str) -> None:
    ended = {"terminated": {"reason": "Error", "exitCode": 1, "message": "403 Forbidden: bucket infill"}}
    one = waiting("CrashLoopBackOff", restartCount=3, lastState=ended, name="storage-initializer")
    kserve.pod(name, initContainerStatuses=[one], containerStatuses=[waiting("PodInitializing")])


def finds_no_node(kserve: KServe, name: str) -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    kserve.pod(
        name,
        phase="Pending",
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}],
    )


def exceeds_quota(kserve: KServe, name: str) -> None:
    kserve.event(name, 'pods "x" is forbidden: exceeded quota: infill, requested: requests.cpu=2')


def is_refused(kserve: KServe, name: str) -> None:
    by_name = {"reason": "RuntimeNotRecognized", "message": "no ServingRuntime infill-embedded"}
    kserve.status(name, modelStatus={"transitionStatus": "InvalidSpec", "lastFailureInfo": by_name})


def is_deleted(kserve: KServe, name: str) -> None:
    kserve.api.delete("inferenceservices", name)


def goes_on_loading(kserve: KServe, name: str) -> None:
    condition = {"type": "PredictorReady", "status": "False", "message": "Deployment is not available"}
    kserve.status(name, conditions=[condition])
