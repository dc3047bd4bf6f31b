"""The API of Kubeflow Pipelines over the SDK's own client: paths in, plain dicts out, errors as sentences.

The SDK finds and renews the credentials: the token in KFP_TOKEN, the service account of a pod, or what the user's KFP
configuration names. Its calls themselves have no time limits, so they are made here.
"""

import contextlib
import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kfp
import kfp_server_api
import urllib3

from infill.errors import InfillError, ServiceError

API: Final = "/apis/v2beta1"
TOKEN: Final = "KFP_TOKEN"
PASSING: Final = (429, 500, 502, 503, 504)
"""HTTP statuses that a server under load answers for a while."""
PAGE: Final = 100

Thing = dict[str, Any]


class RefusedError(ServiceError):
    """KFP answered with an error; `status` is the HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class UnreachableError(ServiceError):
    """No answer, or one that broke off: worth another attempt."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """Requests to one KFP."""

    host: str
    """URL, without a slash at its end."""
    client: Any
    """kfp_server_api.ApiClient: address, certificates, token and its renewal."""
    namespace: str = ""
    """Of the user's profile; empty where KFP has none (single-user)."""
    timeout: float = 15.0
    """Seconds to connect and to wait for each part of an answer."""
    attempts: int = 3
    """Of a request; 0.5 and 1 s between them."""

    def pipeline(self, name: str) -> str:
        """The id of the pipeline of that name, made if there is none."""
        found = self._named("/pipelines", "pipelines", name, {"namespace": self.namespace})
        if found is None:
            body = {"name": name, "display_name": name, "namespace": self.namespace}
            found = self._call("POST", "/pipelines", body=body)
        return str(found["pipeline_id"])

    def version(self, pipeline: str, name: str, file: Path) -> tuple[str, bool]:
        """The id of the pipeline's version of that name, and whether it had to be uploaded from `file`."""
        path = f"/pipelines/{pipeline}/versions"
        found = self._named(path, "pipeline_versions", name, {})
        if found is not None:
            return str(found["pipeline_version_id"]), False
        query = {"name": name, "display_name": name, "pipelineid": pipeline}
        made = self._call("POST", "/pipelines/upload_version", query=query, file=file)
        return str(made["pipeline_version_id"]), True

    def experiment(self, name: str) -> str:
        """The id of the experiment of that name, made if there is none."""
        found = self._named("/experiments", "experiments", name, {"namespace": self.namespace})
        if found is None:
            found = self._call("POST", "/experiments", body={"display_name": name, "namespace": self.namespace})
        return str(found["experiment_id"])

    def start(self, run: Thing) -> Thing:
        """The run as KFP stored it. Not attempted twice: the first attempt may have started it."""
        return self._call("POST", "/runs", body=run, attempts=1)

    def run(self, identity: str) -> Thing:
        """The run with its state and, in `run_details.task_details`, those of its tasks."""
        return self._call("GET", f"/runs/{identity}")

    def terminate(self, identity: str) -> None:
        """Ask KFP to stop the run."""
        self._call("POST", f"/runs/{identity}:terminate")

    def log(self, run: str, pod: str, *, follow: bool) -> Iterator[str]:
        """The lines of the log of a pod of the run."""
        path = f"/apis/v1alpha1/runs/{run}/nodes/{pod}/log"  # the one path that has no v2 yet
        query = [("follow", "true")] if follow else []
        limits = (self.timeout, 3_600.0 if follow else self.timeout)
        with _sentences(self.host):
            response = self.client.call_api(
                path, "GET", query_params=query, _preload_content=False, _request_timeout=limits, **_AUTH
            )
            for line in response:
                yield line.decode("utf-8", "replace").rstrip("\n")

    def page(self, run: str) -> str:
        """The address of the run for a browser."""
        return f"{self.host}/#/runs/details/{run}"

    def _named(self, path: str, field: str, name: str, query: Mapping[str, str]) -> Thing | None:
        """The thing of that display name in a list."""
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        asked = {**query, "page_size": str(PAGE), "filter": json.dumps({"predicates": [predicate]})}
        listed = self._call("GET", path, query=asked).get(field) or []
        return next((dict(each) for each in listed if each.get("display_name") == name), None)

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Thing | None = None,
        file: Path | None = None,
        attempts: int = 0,
    ) -> Thing:
        """The answer. Raises RefusedError or UnreachableError."""
        attempts = attempts or self.attempts
        for attempt in range(attempts):
            try:
                with _sentences(self.host):
                    answer, _, _ = self.client.call_api(
                        f"{API}{path}",
                        method,
                        query_params=[(key, value) for key, value in (query or {}).items() if value],
                        header_params=_headers(file),
                        body=None if body is None else {key: value for key, value in body.items() if value},
                        files={"uploadfile": str(file)} if file else None,
                        response_type="object",
                        _request_timeout=(self.timeout, self.timeout),
                        **_AUTH,
                    )
                    return dict(answer)
            except InfillError as error:
                passing = isinstance(error, UnreachableError) or getattr(error, "status", 0) in PASSING
                if not passing or attempt + 1 == attempts:
                    raise
                time.sleep(0.5 * 2**attempt)
        raise AssertionError("attempts is at least one")


_AUTH: Final[Mapping[str, Any]] = {"auth_settings": ["Bearer"]}


def _headers(file: Path | None) -> dict[str, str]:
    return {"Accept": "application/json", "Content-Type": "multipart/form-data" if file else "application/json"}


def connect(host: str, namespace: str = "") -> Service:
    """The KFP at `host`, with the credentials that the SDK finds. Raises ServiceError when it cannot find any."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "only works with KFP 2": so do we
        try:
            # Any name spares the SDK a question of its own, which it repeats for half a minute with tracebacks.
            client = kfp.Client(host=host, existing_token=os.environ.get(TOKEN) or None, namespace=namespace or "-")
        except Exception as error:  # whatever a login of the SDK raises
            raise ServiceError(f"no client for Kubeflow Pipelines at {host}: {_first(error)}") from error
    api = client._run_api.api_client
    api.rest_client.pool_manager.connection_pool_kw["retries"] = False  # attempts are counted here, not in urllib3
    return Service(host=client._existing_config.host, client=api, namespace=namespace)


@contextlib.contextmanager
def _sentences(host: str) -> Iterator[None]:
    """Inside, what the client raises becomes a sentence."""
    try:
        yield
    except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
        if getattr(error, "status", 0):
            raise _refused(error, host) from error
        raise UnreachableError(
            f"Kubeflow Pipelines at {host} does not answer ({_first(error)}): is the address right, and is it up?"
        ) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ServiceError(
            f"{host} answers, but not as Kubeflow Pipelines' API does (a login page?): check the address and the token "
            f"in {TOKEN}"
        ) from error


def _refused(error: Any, host: str) -> RefusedError:
    """The server's answer as a sentence with what to do."""
    try:
        answer = json.loads(error.body or "{}")
    except ValueError:
        answer = {}
    message = str(answer.get("message") or answer.get("error") or "") if isinstance(answer, dict) else ""
    status = int(error.status)
    said = " ".join((message or str(error.reason)).split())[:400]
    if status == 401 or (status == 403 and TOKEN not in os.environ):
        what = f"renew the token in {TOKEN}" if TOKEN in os.environ else f"put a token into {TOKEN}"
        return RefusedError(status, f"Kubeflow Pipelines at {host} does not let us in ({status}): {what}")
    if status == 403:
        return RefusedError(
            status, f"Kubeflow Pipelines at {host} does not allow this ({said}): ask for the right, or name --namespace"
        )
    if status == 404:
        return RefusedError(status, f"Kubeflow Pipelines at {host} does not have that ({said}): check the name or id")
    return RefusedError(status, f"Kubeflow Pipelines at {host} answered {status}: {said}")


def _first(error: BaseException) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:300]
