"""Errors of the API server: the sentence for each refusal, and whether to ask again.

A server that restarts refuses what it allowed a second before: its caches of roles are empty (403), tokens cannot be
checked (401), resources are not installed (404), admission is not ready. Such answers are in doubt and are asked for
again for as long as a restart takes; a server that is away or overloaded, for as long as an outage may last.
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
"""Resource -> the operator that installs it."""
OVERLOADED: Final = (408, 429, 500, 502, 503, 504)
"""HTTP statuses of a server, or of a proxy before it, that is away or under load."""
NOT_READY: Final = re.compile(r"not yet ready to handle request|status unknown for quota|failed calling webhook")
"""Words of an admission plugin whose cache is empty, or whose webhook is being restarted."""
RBAC: Final = re.compile(r'\bcannot [\w*/-]+ (resource|path) "')
"""Words of a 403 that is about rights; every other 403 is admission's."""
PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 10.0


class Passing(Enum):
    """Why the same request may succeed in a moment, if it may."""

    NO = "no"
    OUTAGE = "the server is away or overloaded"
    DOUBT = "the answer is one that a restarting server gives"


class ApiError(ServiceError):
    """The API server gave no answer, or did not do what it was asked."""

    passing = Passing.NO
    after = 0.0
    """Seconds after which the server wants to be asked again."""

    def final(self, lasted: float) -> Self:
        """Mark this error as final after `lasted` seconds of attempts, and return it."""
        if self.passing is Passing.OUTAGE and lasted > 0:
            self.args = (f"the API server has been gone for {max(lasted, 1):.0f} s: {self}",)
        self.passing = Passing.NO
        return self


class UnreachableError(ApiError):
    """No answer, or one that broke off."""

    passing = Passing.OUTAGE


class RefusedError(ApiError):
    """The API server answered with an error; `status` is the HTTP status, `message` the server's own words."""

    def __init__(self, status: int, sentence: str, message: str = "", *, passing: Passing = Passing.NO) -> None:
        super().__init__(sentence)
        self.status = status
        self.message = message
        self.passing = passing


class Retry:
    """Waits between attempts until they have failed for too long."""

    def __init__(self, *, outage: float, grace: float) -> None:
        self._limits = {Passing.NO: -1.0, Passing.OUTAGE: outage, Passing.DOUBT: grace}
        self._since: float | None = None
        self._pause = PAUSE

    def reset(self) -> None:
        """Forget the failures: an attempt succeeded."""
        self._since, self._pause = None, PAUSE

    def wait(self, error: ApiError) -> None:
        """Sleep before the next attempt. Raises `error` when it does not pass, or has not passed in time."""
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
) -> RefusedError:
    """Return an error answer as a sentence with what to do.

    `proven` are the resources of which this server has answered a request of ours; `after` is its header Retry-After.
    """
    answer = _status(body)
    message, details = str(answer.get("message") or ""), answer.get("details") or {}
    sentence = _sentence(status, message, details, method, path, namespace, resource)
    unknown = status == 404 and not details.get("name")
    error = RefusedError(status, sentence, "" if unknown else message)
    error.passing = _passing(status, message, proven=bool(proven), gone=unknown and resource in proven)
    error.after = float(after) if after.isdecimal() else 0.0
    return error


def is_about_rights(status: int, message: str) -> bool:
    """Whether a refusal is RBAC's: a 403 of admission has other words."""
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
        return "the API server refuses our token (401): renew it, or name another KUBECONFIG"
    if "being terminated" in message or _caused(details, "NamespaceTerminating"):
        return f"namespace {namespace} is being deleted: create it again when it is gone, or use another"
    if is_about_rights(status, message):
        return (
            f"not allowed to {method} {resource or path} in namespace {namespace} ({message or 403}): install "
            "charts/infill-platform there, or use an account that is bound to its role"
        )
    if status == 404 and details.get("kind") == "namespaces":
        return f"namespace {namespace} does not exist: create it, or use another"
    if status == 404 and not details.get("name"):
        operator = OPERATORS.get(resource)
        fix = f"install {operator}" if operator else "check the namespace"
        return f"the cluster knows no {resource or path} (404): {fix}"
    return f"the API server answered {status} to {method} {path}: {message or 'no reason given'}"


def _status(body: bytes | str) -> Mapping[str, Any]:
    """The Status object of an error answer; empty for a text, as proxies send it."""
    try:
        answer = json.loads(body or b"{}")
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _caused(details: Mapping[str, Any], reason: str) -> bool:
    return any(cause.get("reason") == reason for cause in details.get("causes") or ())
