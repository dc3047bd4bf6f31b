"""The Kubernetes API over the client's own connection: paths in, plain dicts out, errors as sentences.

The typed classes of the client are left out on purpose: version 37 serialises some of them wrongly (docs of ours:
facts on KServe), dicts pass unchanged through every version.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import urllib3
from kubernetes import client, config

from infill.errors import InfillError, InputError, ServiceError
from infill.text import read_text

Manifest = dict[str, Any]
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
PASSING: Final = (429, 500, 502, 503, 504)
"""HTTP statuses that a server under load answers for a while."""
NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

GROUPS: Final[Mapping[str, str]] = {
    "rayjobs": "/apis/ray.io/v1",
    "inferenceservices": "/apis/serving.kserve.io/v1beta1",
    "servingruntimes": "/apis/serving.kserve.io/v1alpha1",
    "configmaps": "/api/v1",
    "services": "/api/v1",
    "pods": "/api/v1",
    "events": "/api/v1",
    "resourcequotas": "/api/v1",
    "selfsubjectaccessreviews": "/apis/authorization.k8s.io/v1",
}
OPERATORS: Final[Mapping[str, str]] = {
    "rayjobs": "KubeRay",
    "inferenceservices": "KServe",
    "servingruntimes": "KServe",
}
"""What to install when the API server does not know the resource."""


class RefusedError(ServiceError):
    """The API server answered with an error; `status` is the HTTP status, `message` the server's own words."""

    def __init__(self, status: int, sentence: str, message: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        self.message = message


class UnreachableError(ServiceError):
    """No answer, or one that broke off: worth another attempt."""


def connect(namespace: str = "") -> "Api":
    """The API server that KUBECONFIG names, else that of the pod we run in.

    Raises InputError when there is neither, or when the file cannot be used.
    """
    settings = client.Configuration()
    settings.retries = False  # attempts are counted here, not in urllib3
    file = os.environ.get("KUBECONFIG") or None
    try:
        if file or "KUBERNETES_SERVICE_HOST" not in os.environ:
            config.load_kube_config(config_file=file, client_configuration=settings)
            context = config.list_kube_config_contexts(config_file=file)[1]["context"]
            found = str(context.get("namespace", "default"))
        else:
            config.load_incluster_config(client_configuration=settings)
            found = read_text(NAMESPACE_FILE).strip()
    except (config.ConfigException, OSError) as error:
        raise InputError(f"no cluster to talk to ({error}): set KUBECONFIG, or run inside a pod") from error
    return Api(client=client.ApiClient(settings), namespace=namespace or found)


@dataclass(frozen=True, kw_only=True)
class Api:
    """Requests to one namespace."""

    client: Any
    """kubernetes.client.ApiClient: address, certificates, tokens and their renewal."""
    namespace: str
    timeout: float = 15.0
    """Seconds to connect and to wait for each part of an answer."""
    attempts: int = 3
    """Of a request; 0.5 and 1 s between them. With the timeout: a dead server is known within a minute."""

    def get(self, resource: str, name: str) -> Manifest | None:
        """The object, or None when there is none of that name."""
        try:
            return self._json("GET", resource, name)
        except RefusedError as error:
            if error.status == 404 and self._known(error):
                return None
            raise

    def list(self, resource: str, labels: str = "", fields: str = "") -> Manifest:
        """The list with `items` and `metadata.resourceVersion`."""
        return self._json("GET", resource, query={"labelSelector": labels, "fieldSelector": fields})

    def create(self, resource: str, body: Manifest, *, dry_run: bool = False) -> Manifest:
        """The object as stored; unknown fields are refused. With `dry_run` all is checked and nothing is stored.

        Raises RefusedError with status 409 when the name is taken: also when an earlier attempt of this request had
        come through after all.
        """
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return self._json("POST", resource, body=body, query=query)

    def merge(self, resource: str, name: str, change: Manifest, *, dry_run: bool = False) -> Manifest:
        """The object after a merge patch."""
        query = {"dryRun": "All"} if dry_run else {}
        return self._json("PATCH", resource, name, body=change, query=query, content=MERGE)

    def apply(self, resource: str, name: str, body: Manifest, *, manager: str, dry_run: bool = False) -> Manifest:
        """The object after a server-side apply by that field manager (taking fields over from others)."""
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        query |= {"dryRun": "All"} if dry_run else {}
        return self._json("PATCH", resource, name, body=body, query=query, content=APPLY)

    def delete(self, resource: str, name: str) -> bool:
        """Whether there was something to delete; what it owns goes with it."""
        try:
            self._json("DELETE", resource, name, body={"propagationPolicy": "Background"})
        except RefusedError as error:
            if error.status == 404 and self._known(error):
                return False
            raise
        return True

    def watch(self, resource: str, *, version: str, fields: str, seconds: int) -> Iterator[Manifest]:
        """The events after that resource version, for at most so many seconds. Raises UnreachableError."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        query |= {"resourceVersion": version, "fieldSelector": fields}
        # The server ends the watch; the margin covers one that is slow or hangs.
        response = self._send("GET", self._path(resource), query=query, timeout=seconds + self.timeout)
        for line in lines(response):
            try:
                event = json.loads(line)
            except ValueError as error:  # a proxy ended the answer in the middle of a line
                raise UnreachableError("the watch broke off in the middle of an event") from error
            yield event

    def log(self, pod: str, *, query: Mapping[str, str], timeout: float) -> Iterator[bytes]:
        """Whole lines of the container's log, each with its line feed if it has one."""
        response = self._send("GET", f"{self._path('pods', pod)}/log", query=query, timeout=timeout)
        yield from lines(response)

    def reachable(self) -> str:
        """The server's version. Raises RefusedError or UnreachableError."""
        return str(self._request("GET", "/version").get("gitVersion", "unknown"))

    def review(self, verb: str, resource: str) -> bool:
        """Whether our own identity may do that in the namespace."""
        group, _, subresource = resource.partition("/")
        prefix = GROUPS[group]
        attributes = {"namespace": self.namespace, "verb": verb, "resource": group, "subresource": subresource}
        attributes["group"] = prefix.split("/")[2] if prefix.startswith("/apis/") else ""
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self._request("POST", f"{GROUPS['selfsubjectaccessreviews']}/selfsubjectaccessreviews", body=body)
        return bool(answer.get("status", {}).get("allowed"))

    def _path(self, resource: str, name: str = "") -> str:
        path = f"{GROUPS[resource]}/namespaces/{self.namespace}/{resource}"
        return f"{path}/{name}" if name else path

    def _json(self, method: str, resource: str, name: str = "", **options: Any) -> Manifest:
        return self._request(method, self._path(resource, name), **options)

    def _request(self, method: str, path: str, **options: Any) -> Manifest:
        for attempt in range(self.attempts):
            try:
                response = self._send(method, path, timeout=self.timeout, **options)
                return dict(json.loads(b"".join(lines(response))))
            except InfillError as error:
                passing = isinstance(error, UnreachableError) or getattr(error, "status", 0) in PASSING
                if not passing or attempt + 1 == self.attempts:
                    raise
                time.sleep(0.5 * 2**attempt)
        raise AssertionError("attempts is at least one")

    def _send(
        self,
        method: str,
        path: str,
        *,
        timeout: float,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content: str = "application/json",
    ) -> Any:
        """The response with its body unread. Raises RefusedError or UnreachableError."""
        try:
            return self.client.call_api(
                path,
                method,
                query_params=[(key, value) for key, value in (query or {}).items() if value],
                header_params={"Accept": "application/json", "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=(self.timeout, timeout),
            )[0]
        except client.ApiException as error:
            raise _refused(error, method, path, self.namespace) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            host = self.client.configuration.host
            raise UnreachableError(
                f"the API server {host} does not answer ({type(error).__name__}): is it up?"
            ) from error

    @staticmethod
    def _known(error: RefusedError) -> bool:
        """Whether a 404 means the object, not the whole resource."""
        return bool(error.message)


def lines(response: Any) -> Iterator[bytes]:
    """The body by lines, as they arrive. Raises UnreachableError when the connection breaks off."""
    rest = b""
    try:
        for part in response.stream(amt=None, decode_content=True):
            rest += part
            *whole, rest = rest.split(b"\n")
            yield from (line + b"\n" for line in whole)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise UnreachableError(f"the API server's answer broke off ({type(error).__name__})") from error
    finally:
        response.release_conn()
    if rest:
        yield rest


def _refused(error: Any, method: str, path: str, namespace: str) -> RefusedError:
    """The server's answer as a sentence with what to do."""
    try:
        answer = json.loads(error.body or b"{}")
    except ValueError:
        answer = {}
    message = str(answer.get("message", "")) if isinstance(answer, dict) else ""
    details = answer.get("details") or {} if isinstance(answer, dict) else {}
    resource = next((name for name in GROUPS if f"/{name}" in path), "")
    status = int(error.status or 0)
    if status == 401:
        return RefusedError(
            status, "the API server refuses our token (401): renew it, or name another KUBECONFIG", message
        )
    if status == 403 and "exceeded quota" not in message:
        sentence = (
            f"not allowed to {method} {resource} in namespace {namespace} ({message or 403}): install "
            "charts/infill-platform there, or use an account that is bound to its role"
        )
        return RefusedError(status, sentence, message)
    if status == 404 and not details.get("name"):
        what = OPERATORS.get(resource)
        fix = f"install {what}" if what else "check the namespace"
        return RefusedError(status, f"the cluster knows no {resource or path} (404): {fix}", "")
    return RefusedError(
        status, f"the API server answered {status} to {method} {path}: {message or error.reason}", message
    )
