"""The client of the routes `/v1/workspaces`: lists of digests, texts, and the server's answers; for one thread."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import httpx

from infill import proxies
from infill.api_key import headers
from infill.errors import ServiceError

STICKY: Final = "x-infill-workspace"
"""The header by which a load balancer sends all requests about a workspace to the same replica."""
UNKNOWN: Final = "workspace_unknown"
CHANGED: Final = "workspace_changed"
OFF: Final = "workspaces_off"
CONNECT_S: Final = 5.0
TIMEOUT_S: Final = 120.0
"""Time limit for an answer, since a change may wait for those of other workspaces."""
MAX_MESSAGE: Final = 300


class LostError(ServiceError):
    """The error when the server does not know the workspace, or another client has changed it."""


class TooLargeError(ServiceError):
    """The error when a request has more bytes than the server reads."""


class BusyError(ServiceError):
    """The error when the server asks to try again later."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


class NoWorkspacesError(ServiceError):
    """The error when the server keeps no workspaces."""


@dataclass(frozen=True, kw_only=True)
class WorkspaceTarget:
    """A server and the key for it."""

    url: str
    key: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class WorkspaceAnswer:
    """The server's answer to a change."""

    revision: str
    missing: frozenset[str]
    """Files of the change whose texts the server lacks."""
    refused: Mapping[str, str]
    left_out: Mapping[str, str]


class WorkspaceClient:
    """The connection of one workspace. All errors are ServiceErrors, or InputErrors for an invalid URL or proxy."""

    def __init__(self, target: WorkspaceTarget, name: str) -> None:
        self._url, self._path = target.url, f"/v1/workspaces/{name}"
        self._headers = {**headers(target.key), STICKY: name}
        self._client = self._connected()

    def _connected(self) -> httpx.Client:
        timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
        return proxies.client(self._url, headers=self._headers, timeout=timeout)

    def reconnect(self) -> None:
        """Use a new connection, which may lead to another replica where nothing chooses it by the header."""
        self._client.close()
        self._client = self._connected()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def put(self, files: Mapping[str, bytes]) -> WorkspaceAnswer:
        """Replace the list of files, and open the workspace if the server does not know it."""
        return self._change("PUT", {"files": _digests(files)})

    def patch(self, revision: str, files: Mapping[str, bytes | None], texts: Mapping[str, str]) -> WorkspaceAnswer:
        """Change files of a revision, or send texts."""
        return self._change("PATCH", {"revision": revision, "files": _digests(files), "texts": texts})

    def revision(self) -> str:
        """Return the revision of the server's list. Raises LostError if the server does not know the workspace."""
        response = self._sent("GET", None)
        try:
            return str(response.json()["revision"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ServiceError(f"{self._url} does not answer like an Infill server: {error!r:.100}") from error

    def delete(self) -> None:
        """Forget the workspace."""
        self._sent("DELETE", None)

    def _change(self, method: str, body: Mapping[str, Any]) -> WorkspaceAnswer:
        response = self._sent(method, body)
        try:
            value = response.json()
            return WorkspaceAnswer(
                revision=str(value["revision"]),
                missing=frozenset(value["missing"]),
                refused=dict(value["refused"]),
                left_out=dict(value["left_out"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ServiceError(f"{self._url} does not answer like an Infill server: {error!r:.100}") from error

    def _sent(self, method: str, body: Mapping[str, Any] | None) -> httpx.Response:
        """Return the answer to a request, which is sent again if an idle connection breaks."""
        try:
            for last in (False, True):
                try:
                    response = self._client.request(method, self._path, json=body)
                    break
                except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                    if last:
                        raise
        except httpx.TimeoutException as error:
            raise ServiceError(f"{self._url} did not answer in time") from error
        except httpx.HTTPError as error:
            raise ServiceError(f"no server answers at {self._url} ({str(error) or type(error).__name__})") from error
        if response.status_code >= 300:
            raise _refused(self._url, response)
        return response


def _digests(files: Mapping[str, bytes | None]) -> dict[str, str | None]:
    return {path: None if digest is None else digest.hex() for path, digest in files.items()}


def _refused(url: str, response: httpx.Response) -> ServiceError:
    """Return the error for an answer that is not a success."""
    code, message = _error(response)
    what = f"{url} answered {response.status_code}: {message}"
    if code in (UNKNOWN, CHANGED):
        return LostError(what)
    if code == OFF:
        return NoWorkspacesError(f"{url} keeps no workspaces: its operator has turned them off")
    match response.status_code:
        case 404 | 405:
            return NoWorkspacesError(f"{url} keeps no workspaces: it is older than this client, or another program")
        case 400 | 422 | 501:
            return NoWorkspacesError(f"{url} does not read this client's lists of files ({message})")
        case 401 | 403:
            return ServiceError(f"{url} rejects the key ({response.status_code})")
        case 413:
            return TooLargeError(what)
        case 429 | 503:
            return BusyError(what, _seconds(response.headers.get("retry-after", "")))
    return ServiceError(what)


def _error(response: httpx.Response) -> tuple[str, str]:
    """Return code and message of an error."""
    try:
        error = response.json()["error"]
        return str(error["code"]), str(error["message"])[:MAX_MESSAGE]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", response.reason_phrase


def _seconds(value: str) -> float:
    return min(float(value), 60.0) if value.isdecimal() else 1.0
