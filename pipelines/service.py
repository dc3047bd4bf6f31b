"""The API of Kubeflow Pipelines over the SDK's client: paths in, plain dicts out, errors as sentences.

The SDK finds and renews the credentials: the token in KFP_TOKEN, the service account of a pod, or those in the user's
KFP configuration. The SDK's own calls have no time limits, so this module makes the calls.
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
"""HTTP statuses of a server that is temporarily overloaded or away."""
PAGE: Final = 100
LOG_ERROR: Final = '{"error_message":'
"""The beginning of KFP's answer in place of a log that it cannot read; its status is 200."""

Thing = dict[str, Any]


class KfpRefusedError(ServiceError):
    """KFP's own error; `status` is the HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class KfpUnreachableError(ServiceError):
    """The error for a missing or incomplete answer, after which a retry may succeed."""


@dataclass(frozen=True, kw_only=True)
class KfpClient:
    """A client of one KFP."""

    host: str
    """URL without a trailing slash."""
    client: Any
    """The kfp_server_api.ApiClient with the address, certificates, token and its renewal."""
    namespace: str = ""
    """Namespace of the user's profile; empty if KFP has a single user."""
    timeout: float = 15.0
    """Seconds to connect and to wait for each part of an answer."""
    attempts: int = 3
    """Attempts of a request, 0.5 and 1 s apart."""

    def pipeline(self, name: str) -> str:
        """Return the id of the pipeline of that name; create it if there is none."""
        pipeline = self._named("/pipelines", "pipelines", name, {"namespace": self.namespace})
        if pipeline is None:
            body = {"name": name, "display_name": name, "namespace": self.namespace}
            pipeline = self._call("POST", "/pipelines", body=body)
        return str(pipeline["pipeline_id"])

    def version(self, pipeline: str, name: str, file: Path) -> tuple[str, bool]:
        """Return the id of the pipeline's version of that name, and whether it had to be uploaded from `file`."""
        path = f"/pipelines/{pipeline}/versions"
        existing = self._named(path, "pipeline_versions", name, {})
        if existing is not None:
            return str(existing["pipeline_version_id"]), False
        query = {"name": name, "display_name": name, "pipelineid": pipeline}
        uploaded = self._call("POST", "/pipelines/upload_version", query=query, file=file)
        return str(uploaded["pipeline_version_id"]), True

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of that name; create it if there is none."""
        body = {"display_name": name, "namespace": self.namespace}
        return self.find_experiment(name) or str(self._call("POST", "/experiments", body=body)["experiment_id"])

    def start(self, run: Thing) -> Thing:
        """Start a run and return it as stored. It is not retried, since the first attempt may have started it."""
        return self._call("POST", "/runs", body=run, attempts=1)

    def run(self, identity: str) -> Thing:
        """Return the run with its state and, in `run_details.task_details`, the states of its tasks."""
        return self._call("GET", f"/runs/{identity}")

    def terminate(self, identity: str) -> None:
        """Ask KFP to stop the run."""
        self._call("POST", f"/runs/{identity}:terminate")

    def log(self, run: str, pod: str) -> Iterator[str]:
        """Yield the lines of the log of one of the run's pods. Raises RefusedError if KFP has none."""
        path = f"/apis/v1alpha1/runs/{run}/nodes/{pod}/log"  # this path has no v2 yet, and follows no log
        with _sentences(self.host):
            response = self.client.call_api(
                path, "GET", _preload_content=False, _request_timeout=(self.timeout, self.timeout), **_AUTH
            )
            for line in response:
                text = line.decode("utf-8", "replace").rstrip("\n")
                if text.startswith(LOG_ERROR):
                    raise KfpRefusedError(404, f"Kubeflow Pipelines at {self.host} has no log of pod {pod}")
                yield text

    def recurring(self, experiment: str, name: str = "") -> list[Thing]:
        """Return the recurring runs of an experiment, or those with this display name: KFP allows several."""
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        wanted = json.dumps({"predicates": [predicate]}) if name else ""
        query = {"experiment_id": experiment, "page_size": str(PAGE), "filter": wanted}
        listed = list(self._pages("/recurringruns", "recurringRuns", query))
        return [each for each in listed if not name or each.get("display_name") == name]

    def recur(self, recurring: Thing) -> Thing:
        """Create a recurring run and return it as stored. It is not retried: the first attempt may have created it."""
        return self._call("POST", "/recurringruns", body=recurring, attempts=1)

    def enable(self, recurring: str) -> None:
        """Let a recurring run start runs again."""
        self._call("POST", f"/recurringruns/{recurring}:enable")

    def disable(self, recurring: str) -> None:
        """Let a recurring run start no more runs."""
        self._call("POST", f"/recurringruns/{recurring}:disable")

    def delete_recurring(self, recurring: str) -> None:
        """Delete a recurring run."""
        try:
            self._call("DELETE", f"/recurringruns/{recurring}")
        except KfpRefusedError as error:
            if error.status != 404:  # else an earlier attempt, whose answer was lost, has deleted it
                raise

    def latest_runs(self, experiment: str) -> list[Thing]:
        """Return the latest runs of an experiment, the newest first."""
        query = {"experiment_id": experiment, "page_size": str(PAGE), "sort_by": "created_at desc"}
        return [dict(each) for each in self._call("GET", "/runs", query=query).get("runs") or []]

    def find_experiment(self, name: str) -> str:
        """Return the id of the experiment of that name; empty if there is none."""
        experiment = self._named("/experiments", "experiments", name, {"namespace": self.namespace})
        return "" if experiment is None else str(experiment["experiment_id"])

    def page(self, run: str) -> str:
        """Return the URL of the run's web page."""
        return f"{self.host}/#/runs/details/{run}"

    def _pages(self, path: str, field: str, query: Mapping[str, str]) -> Iterator[Thing]:
        """Yield the entries of all pages of the list at `path`."""
        token = ""
        while True:
            answer = self._call("GET", path, query={**query, "page_token": token})
            yield from map(dict, answer.get(field) or [])
            token = str(answer.get("next_page_token") or "")
            if not token:
                return

    def _named(self, path: str, field: str, name: str, query: Mapping[str, str]) -> Thing | None:
        """Return the entry with that display name in the list at `path`; None if there is none."""
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        filtered = {**query, "page_size": str(PAGE), "filter": json.dumps({"predicates": [predicate]})}
        listed = self._call("GET", path, query=filtered).get(field) or []
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
        """Return the answer to a request. Raises RefusedError or UnreachableError."""
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
                passing = isinstance(error, KfpUnreachableError) or getattr(error, "status", 0) in PASSING
                if not passing or attempt + 1 == attempts:
                    raise
                time.sleep(0.5 * 2**attempt)
        raise AssertionError("attempts is at least one")


_AUTH: Final[Mapping[str, Any]] = {"auth_settings": ["Bearer"]}


def _headers(file: Path | None) -> dict[str, str]:
    return {"Accept": "application/json", "Content-Type": "multipart/form-data" if file else "application/json"}


def connect(host: str, namespace: str = "") -> KfpClient:
    """Return a client of the KFP at `host` with the SDK's credentials. Raises ServiceError if it finds none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "only works with KFP 2", like this module
        try:
            # A name keeps the SDK from asking for one, which it would retry for half a minute with tracebacks.
            client = kfp.Client(host=host, existing_token=os.environ.get(TOKEN) or None, namespace=namespace or "-")
        except Exception as error:  # the SDK's logins raise various errors
            raise ServiceError(f"cannot log in to Kubeflow Pipelines at {host}: {_first(error)}") from error
    api = client._run_api.api_client
    api.rest_client.pool_manager.connection_pool_kw["retries"] = False  # attempts are counted here, not in urllib3
    return KfpClient(host=client._existing_config.host, client=api, namespace=namespace)


@contextlib.contextmanager
def _sentences(host: str) -> Iterator[None]:
    """Turn the client's exceptions into errors with a sentence."""
    try:
        yield
    except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError) as error:
        if getattr(error, "status", 0):
            raise _refused(error, host) from error
        raise KfpUnreachableError(
            f"Kubeflow Pipelines at {host} does not answer ({_first(error)}): check the address and the server"
        ) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ServiceError(
            f"{host} does not answer like the API of Kubeflow Pipelines (perhaps a login page): check the address and "
            f"the token in {TOKEN}"
        ) from error


def _refused(error: Any, host: str) -> KfpRefusedError:
    """Return the error for the server's refusal, with a sentence that says what to do."""
    try:
        answer = json.loads(error.body or "{}")
    except ValueError:
        answer = {}
    message = str(answer.get("message") or answer.get("error") or "") if isinstance(answer, dict) else ""
    status = int(error.status)
    reason = " ".join((message or str(error.reason)).split())[:400]
    if status == 401 or (status == 403 and TOKEN not in os.environ):
        what = f"renew the token in {TOKEN}" if TOKEN in os.environ else f"put a token into {TOKEN}"
        return KfpRefusedError(status, f"Kubeflow Pipelines at {host} rejects the login ({status}): {what}")
    if status == 403:
        return KfpRefusedError(
            status,
            f"Kubeflow Pipelines at {host} does not allow this ({reason}): ask for the right, or give --namespace",
        )
    if status == 404:
        return KfpRefusedError(
            status, f"Kubeflow Pipelines at {host} does not have this ({reason}): check the name or id"
        )
    return KfpRefusedError(status, f"Kubeflow Pipelines at {host} answered {status}: {reason}")


def _first(error: BaseException) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:300]
