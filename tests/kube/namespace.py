"""What a test needs of a namespace, made through the API: the same on a real API server and on the tests' own."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import yaml

from infill.cluster.api import MERGE, Api, ClusterRefusedError, connect

DEFAULT_CONFIG: Final = Path("~/.kube/config")


@contextmanager
def fresh(folder: Path) -> Iterator[Path]:
    """Make a namespace on the cluster that KUBECONFIG names; yield a kubeconfig, written to `folder`, that names it."""
    name = f"infill-test-{uuid.uuid4().hex[:8]}"
    content = yaml.safe_load(Path(os.environ.get("KUBECONFIG") or DEFAULT_CONFIG.expanduser()).read_text("utf-8"))
    context = next(each for each in content["contexts"] if each["name"] == content["current-context"])
    context["context"]["namespace"] = name
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    api = connect(name)
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    api._request("POST", "/api/v1/namespaces", body=body)
    try:
        _account(api)
        yield file
    finally:
        api._request("DELETE", f"/api/v1/namespaces/{name}")


def _account(api: Api) -> None:
    """Create the account of pods, unless the cluster's controllers have done so already."""
    try:
        api.create("serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})
    except ClusterRefusedError as error:
        if error.status != 409:
            raise


def limit(api: Api, hard: dict[str, str], used: dict[str, str]) -> None:
    """Create a ResourceQuota with the status that the cluster's controllers give it."""
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}, "spec": {"hard": hard}}
    api.create("resourcequotas", body)
    path = f"/api/v1/namespaces/{api.namespace}/resourcequotas/team/status"
    api._request("PATCH", path, body={"status": {"hard": hard, "used": used}}, content=MERGE)
