"""The Kubernetes API over the official client's connection: paths in, plain dicts out, errors as sentences.

The client's typed classes are not used: version 37 serialises some of them wrongly, while dicts pass unchanged through
every version.
"""

import dataclasses
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.utils.quantity import parse_quantity

from infill.cluster.answers import (
    ClusterApiError,
    ClusterRefusedError,
    ClusterUnreachableError,
    Passing,
    Retry,
    is_about_rights,
    refusal,
)
from infill.errors import InputError
from infill.text import read_text

__all__ = [
    "APPLY",
    "MERGE",
    "Api",
    "ClusterApiError",
    "ClusterRefusedError",
    "ClusterUnreachableError",
    "Manifest",
    "connect",
    "quantity",
]

Manifest = dict[str, Any]
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Accept header for an object's metadata only, so that a Secret's content stays in the cluster."""
NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

GROUPS: Final[Mapping[str, str]] = {
    "rayjobs": "/apis/ray.io/v1",
    "inferenceservices": "/apis/serving.kserve.io/v1beta1",
    "servingruntimes": "/apis/serving.kserve.io/v1alpha1",
    "configmaps": "/api/v1",
    "secrets": "/api/v1",
    "serviceaccounts": "/api/v1",
    "persistentvolumeclaims": "/api/v1",
    "services": "/api/v1",
    "pods": "/api/v1",
    "events": "/api/v1",
    "resourcequotas": "/api/v1",
    "selfsubjectaccessreviews": "/apis/authorization.k8s.io/v1",
}


def connect(namespace: str = "") -> "Api":
    """Return the API server that KUBECONFIG names, else that of the cluster whose pod we run in.

    Raises InputError if there is neither, or if the file cannot be used.
    """
    settings = client.Configuration()
    settings.retries = False  # attempts are counted here, not in urllib3
    file = os.environ.get("KUBECONFIG") or None
    try:
        if file or "KUBERNETES_SERVICE_HOST" not in os.environ:
            default = _load(file, settings)
        else:
            config.load_incluster_config(client_configuration=settings)
            default = read_text(NAMESPACE_FILE).strip()
    except (config.ConfigException, OSError) as error:
        raise InputError(f"found no cluster ({error}): set KUBECONFIG, or run inside a pod") from error
    return Api(client=client.ApiClient(settings), namespace=namespace or default)


def _load(file: str | None, settings: Any) -> str:
    """Read the kubeconfig into `settings`; return the namespace of its context."""
    name = file or config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION
    try:
        with _complaints() as complaints:
            config.load_kube_config(config_file=file, client_configuration=settings)
        context = config.list_kube_config_contexts(config_file=file)[1]["context"]
        if complaints and not (settings.api_key or settings.cert_file or settings.username):
            raise InputError(
                f"kubeconfig {name}: user {context.get('user')} gets no credentials ({' '.join(complaints)}): run the "
                "command of its exec section by hand, or log in again"
            )
        return str(context.get("namespace") or "default")
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ) as error:  # the client does not check types
        reason = " ".join(str(error).split())
        raise InputError(
            f"kubeconfig {name} cannot be read ({type(error).__name__}: {reason}): set KUBECONFIG to another file"
        ) from error


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Yield a list that collects the client's log messages, its only sign that an exec plugin failed."""
    complaints: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(" ".join(record.getMessage().split()))

    handler, root = Collector(logging.ERROR), logging.getLogger()
    root.addHandler(handler)
    try:
        yield complaints
    finally:
        root.removeHandler(handler)


def quantity(text: str | float) -> Decimal:
    """Return a Kubernetes quantity ("500m", "64Gi", "1e3") as a number. Raises ValueError for anything else."""
    try:
        number = Decimal(parse_quantity(text))
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f"{text!r} is not a quantity") from error
    if not number.is_finite():
        raise ValueError(f"{text!r} is not a quantity")
    return number


@dataclass(frozen=True, kw_only=True)
class Api:
    """A client for one namespace."""

    client: Any
    """The kubernetes.client.ApiClient with the address, certificates, tokens and their renewal."""
    namespace: str
    timeout: float = 15.0
    """Seconds to connect and to wait for each part of an answer."""
    outage: float = 30.0
    """Seconds for which requests to a server that is away or overloaded are retried."""
    grace: float = 20.0
    """Seconds for which a refusal that may come from a restarting server is retried."""
    proven: set[str] = dataclasses.field(default_factory=set, repr=False, compare=False)
    """Resources for which one of our requests was answered."""

    def get(self, resource: str, name: str) -> Manifest | None:
        """Return the object, or None if there is none of that name."""
        try:
            return self._json("GET", resource, name)
        except ClusterRefusedError as error:
            if error.status == 404 and self._known(error):
                return None
            raise

    def exists(self, resource: str, name: str) -> bool:
        """Return whether there is an object of that name, without reading its contents."""
        try:
            self._json("GET", resource, name, accept=METADATA)
        except ClusterRefusedError as error:
            if error.status == 404 and self._known(error):
                return False
            raise
        return True

    def list(self, resource: str, labels: str = "", fields: str = "") -> Manifest:
        """Return the list object with `items` and `metadata.resourceVersion`."""
        return self._json("GET", resource, query={"labelSelector": labels, "fieldSelector": fields})

    def create(self, resource: str, body: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create an object and return it as stored; unknown fields are errors. With `dry_run` it is only checked.

        Raises RefusedError with status 409 if the name is taken, even by an earlier attempt of this request that
        succeeded after all.
        """
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return self._json("POST", resource, body=body, query=query)

    def merge(self, resource: str, name: str, change: Manifest, *, dry_run: bool = False) -> Manifest:
        """Apply a merge patch and return the changed object."""
        query = {"dryRun": "All"} if dry_run else {}
        return self._json("PATCH", resource, name, body=change, query=query, content=MERGE)

    def apply(self, resource: str, name: str, body: Manifest, *, manager: str, dry_run: bool = False) -> Manifest:
        """Apply `body` on the server as the field manager `manager`, taking over fields; return the object."""
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        query |= {"dryRun": "All"} if dry_run else {}
        return self._json("PATCH", resource, name, body=body, query=query, content=APPLY)

    def delete(self, resource: str, name: str) -> bool:
        """Delete an object and everything that it owns; return whether it existed."""
        try:
            self._json("DELETE", resource, name, body={"propagationPolicy": "Background"})
        except ClusterRefusedError as error:
            if error.status == 404 and self._known(error):
                return False
            raise
        return True

    def watch(self, resource: str, *, version: str, fields: str, seconds: int) -> Iterator[Manifest]:
        """Yield the events after a resource version for at most `seconds` seconds. Raises UnreachableError."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        query |= {"resourceVersion": version, "fieldSelector": fields}
        # The server ends the watch; the margin covers one that is slow or hangs.
        response = self._send("GET", self._path(resource), query=query, timeout=seconds + self.timeout)
        for line in lines(response):
            try:
                event = json.loads(line)
            except ValueError as error:  # a proxy cut the answer in the middle of a line
                raise ClusterUnreachableError("the watch ended in the middle of an event") from error
            yield event

    def log(self, pod: str, *, query: Mapping[str, str], timeout: float) -> Iterator[bytes]:
        """Yield the lines of a container's log, each with its line feed if it has one."""
        response = self._send("GET", f"{self._path('pods', pod)}/log", query=query, timeout=timeout)
        yield from lines(response)

    def reachable(self) -> str:
        """Return the server's version when it answers and knows its roles. Raises RefusedError or UnreachableError."""
        try:
            return str(self._request("GET", "/version").get("gitVersion", "unknown"))
        except ClusterRefusedError as error:
            if is_about_rights(error.status, error.message):  # this server hides its version
                return "unknown"
            raise

    def review(self, verb: str, resource: str) -> bool:
        """Return whether our account has the right to `verb` on `resource` in the namespace."""
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
        retry = Retry(outage=self.outage, grace=self.grace)
        while True:
            try:
                return self._parsed(self._send(method, path, timeout=self.timeout, **options))
            except ClusterApiError as error:
                retry.wait(error)

    def _parsed(self, response: Any) -> Manifest:
        try:
            return dict(json.loads(b"".join(lines(response))))
        except (ValueError, TypeError) as error:  # a login page, or an answer that a proxy has cut
            raise ClusterUnreachableError(
                f"{self.client.configuration.host} does not answer like an API server"
            ) from error

    def _send(
        self,
        method: str,
        path: str,
        *,
        timeout: float,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> Any:
        """Return the response with its body unread. Raises RefusedError or UnreachableError."""
        resource = self._resource(path)
        try:
            response = self.client.call_api(
                path,
                method,
                query_params=[(key, value) for key, value in (query or {}).items() if value],
                header_params={"Accept": accept, "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=(self.timeout, timeout),
            )[0]
        except client.ApiException as error:
            if not error.status:
                raise self._unreachable(error, str(error.reason)) from error
            raise self._refusal(error, method, path, resource) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error, str(error)) from error
        if resource:
            self.proven.add(resource)
        return response

    @staticmethod
    def _resource(path: str) -> str:
        return next((name for name in GROUPS if re.search(rf"/{name}(/|$)", path)), "")

    def _refusal(self, error: Any, method: str, path: str, resource: str) -> ClusterRefusedError:
        refused = refusal(
            int(error.status),
            error.body or b"",
            method=method,
            path=path,
            namespace=self.namespace,
            resource=resource,
            proven=self.proven,
            after=str((error.headers or {}).get("Retry-After", "")),
        )
        if is_about_rights(refused.status, refused.message) and not self.proven and self._allows_nothing():
            refused.passing = Passing.DOUBT
        return refused

    def _allows_nothing(self) -> bool:
        """Return whether even /version is forbidden, which every account may read once the server knows its roles."""
        try:
            self.client.call_api(
                "/version",
                "GET",
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=(self.timeout, self.timeout),
            )[0].release_conn()
        except client.ApiException as error:
            return bool(error.status == 403)
        except (urllib3.exceptions.HTTPError, OSError):
            return False
        return False

    def _unreachable(self, error: Exception, reason: str) -> ClusterApiError:
        host = self.client.configuration.host
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            why = re.sub(r"^.*certificate verify failed: | \(_ssl\.c.*$", "", " ".join(reason.split()))
            return ClusterApiError(
                f"the certificate of the API server {host} is not trusted ({why}): check certificate-authority and "
                "server in KUBECONFIG"
            )
        return ClusterUnreachableError(
            f"the API server {host} does not answer ({type(error).__name__}): check that it runs"
        )

    @staticmethod
    def _known(error: ClusterRefusedError) -> bool:
        """Return whether a 404 is about the object, and not the whole resource."""
        return bool(error.message)


def lines(response: Any) -> Iterator[bytes]:
    """Yield the lines of the body as they arrive. Raises UnreachableError if the connection breaks."""
    rest = b""
    try:
        for part in response.stream(amt=None, decode_content=True):
            rest += part
            *whole, rest = rest.split(b"\n")
            yield from (line + b"\n" for line in whole)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ClusterUnreachableError(f"the connection to the API server broke ({type(error).__name__})") from error
    finally:
        response.release_conn()
    if rest:
        yield rest
