"""What KubeRay does to a RayJob, written through the API as the operator does: also against a real API server."""

from datetime import UTC, datetime
from typing import Any

from infill.cluster.api import MERGE, Api
from infill.cluster.stage_job import JOB_LABEL, ROLE_LABEL, RUN_LABEL, SUBMITTER


class KubeRay:
    def __init__(self, api: Api) -> None:
        self.api = api

    def status(self, name: str, deployment: str, job: str = "", **more: Any) -> None:
        """Writes the RayJob's status subresource."""
        status = {"jobDeploymentStatus": deployment, "jobStatus": job, **more}
        path = f"/apis/ray.io/v1/namespaces/{self.api.namespace}/rayjobs/{name}/status"
        self.api._request("PATCH", path, body={"status": status}, content=MERGE)

    def pod(self, job: str, name: str, role: str, phase: str = "Running", run: str = "", **status: Any) -> None:
        """A pod as KubeRay makes it from our template (labels kept), in that phase."""
        container = {"name": SUBMITTER if role == "submitter" else f"ray-{role}", "image": "example/none"}
        owner = self.api.get("rayjobs", job)
        assert owner is not None
        reference = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": job, "uid": owner["metadata"]["uid"]}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "labels": {JOB_LABEL: job, ROLE_LABEL: role, RUN_LABEL: run},
                "ownerReferences": [reference],
            },
            "spec": {"containers": [container]},
        }
        self.api.create("pods", body)
        self.pod_status(name, phase=phase, **status)

    def pod_status(self, name: str, **status: Any) -> None:
        path = f"/api/v1/namespaces/{self.api.namespace}/pods/{name}/status"
        self.api._request("PATCH", path, body={"status": status}, content=MERGE)

    def event(self, about: str, kind: str, reason: str, message: str) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{about}.{reason.lower()}"},
            "involvedObject": {"kind": kind, "name": about, "namespace": self.api.namespace},
            "reason": reason,
            "message": message,
            "type": "Warning",
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
        }
        self.api.create("events", body)
