"""Errors of the API server: a sentence for each refusal, and whether to retry.

A server that restarts refuses what it allowed a second earlier: its caches of roles are empty (403), tokens cannot be
checked (401), resources are not installed (404), admission is not ready. Such answers are in doubt, and the request is
retried for as long as a restart takes. Requests to a server that is away or overloaded are retried for as long as an
outage may last.
"""

import json
import re
import time
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any, Final, Self

from infill.errors import ServiceError

OPERATORS: Final[Mapping[str, str]] = {
    "rayjobs": "KubeRay",
    "inferenceservices": "KServe",
    "servingruntimes": "KServe",
}
"""The operator that installs each resource."""
OVERLOADED: Final = (408, 429, 500, 502, 503, 504)
"""HTTP statuses of a server that is away or overloaded, or of a proxy in front of it."""
NOT_READY: Final = re.compile(r"not yet ready to handle request|status unknown for quota|failed calling webhook")
"""Messages of an admission plugin whose cache is empty, or whose webhook restarts."""
RBAC: Final = re.compile(r'\bcannot [\w*/-]+ (resource|path) "')
"""The message of a 403 about missing rights; every other 403 comes from admission."""
PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 10.0


class Passing(Enum):
    """The reason why the same request may succeed in a moment, if there is one."""

    NO = "no"
    OUTAGE = "the server is away or overloaded"
    DOUBT = "the answer is one that a restarting server gives"


class ClusterApiError(ServiceError):
    """The error of a request that the API server did not answer or did not fulfil."""

    passing = Passing.NO
    after = 0.0
    """Seconds after which the server asks for a retry."""

    def final(self, lasted: float) -> Self:
        """Mark this error as final after `lasted` seconds of attempts; return it."""
        if self.passing is Passing.OUTAGE and lasted > 0:
            self.args = (f"the API server has been unavailable for {max(lasted, 1):.0f} s: {self}",)
        self.passing = Passing.NO
        return self


class ClusterUnreachableError(ClusterApiError):
    """The error for a missing or incomplete answer."""

    passing = Passing.OUTAGE


class ClusterRefusedError(ClusterApiError):
    """The API server's own error; `status` is the HTTP status, `message` the server's text."""

    def __init__(self, status: int, sentence: str, message: str = "", *, passing: Passing = Passing.NO) -> None:
        super().__init__(sentence)
        self.status = status
        self.message = message
        self.passing = passing


class Retry:
    """A policy that waits between attempts until they have failed for too long."""

    def __init__(self, *, outage: float, grace: float) -> None:
        self._limits = {Passing.NO: -1.0, Passing.OUTAGE: outage, Passing.DOUBT: grace}
        self._since: float | None = None
        self._pause = PAUSE

    def reset(self) -> None:
        """Forget the failures after a successful attempt."""
        self._since, self._pause = None, PAUSE

    def wait(self, error: ClusterApiError) -> None:
        """Sleep before the next attempt. Raises `error` if it is permanent or has lasted too long."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        left = self._limits[error.passing] - (now - self._since)
        if left <= 0:
            raise error.final(now - self._since)
        time.sleep(min(left, max(self._pause, error.after)))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def refusal(
    status: int,
    body: bytes | str,
    *,
    method: str,
    path: str,
    namespace: str,
    resource: str = "",
    proven: Collection[str] = (),
    after: str = "",
) -> ClusterRefusedError:
    """Return the error for an answer of the server, with a sentence that says what to do.

    `proven` holds the resources for which this server has answered one of our requests; `after` is its header
    Retry-After.
    """
    answer = _status(body)
    message, details = str(answer.get("message") or ""), answer.get("details") or {}
    sentence = _sentence(status, message, details, method, path, namespace, resource)
    unknown = status == 404 and not details.get("name")
    error = ClusterRefusedError(status, sentence, "" if unknown else message)
    error.passing = _passing(status, message, proven=bool(proven), gone=unknown and resource in proven)
    error.after = float(after) if after.isdecimal() else 0.0
    return error


def is_about_rights(status: int, message: str) -> bool:
    """Return whether a refusal comes from RBAC, and not from admission, whose 403 has another message."""
    return status == 403 and (not message or bool(RBAC.search(message)))


def _passing(status: int, message: str, *, proven: bool, gone: bool) -> Passing:
    if NOT_READY.search(message):
        return Passing.DOUBT
    if status in OVERLOADED:
        return Passing.OUTAGE
    allowed_before = proven and (status == 401 or is_about_rights(status, message))
    return Passing.DOUBT if allowed_before or gone else Passing.NO


def _sentence(
    status: int, message: str, details: Mapping[str, Any], method: str, path: str, namespace: str, resource: str
) -> str:
    if status == 401:
        return "the API server rejects our token (401): renew it, or set KUBECONFIG to another file"
    if "being terminated" in message or _caused(details, "NamespaceTerminating"):
        return f"namespace {namespace} is being deleted: create it again afterwards, or use another"
    if is_about_rights(status, message):
        return (
            f"our account is not allowed to {method} {resource or path} in namespace {namespace} ({message or 403}): "
            "install charts/infill-platform there, or use an account that is bound to its role"
        )
    if status == 404 and details.get("kind") == "namespaces":
        return f"namespace {namespace} does not exist: create it, or use another"
    if status == 404 and not details.get("name"):
        operator = OPERATORS.get(resource)
        fix = f"install {operator}" if operator else "check the namespace"
        return f"the cluster has no resource {resource or path} (404): {fix}"
    return f"the API server answered {status} to {method} {path}: {message or 'no reason given'}"


def _status(body: bytes | str) -> Mapping[str, Any]:
    """Return the Status object of an error answer; empty for plain text, which proxies send."""
    try:
        answer = json.loads(body or b"{}")
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _caused(details: Mapping[str, Any], reason: str) -> bool:
    return any(cause.get("reason") == reason for cause in details.get("causes") or ())
