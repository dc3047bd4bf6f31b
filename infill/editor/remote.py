"""The client of an Infill server: the data to pack prompts, and completions of packed prompts.

Only the token ids of prompts are sent. After a failure no request is sent for a while, longer each time, so that typing
without a server costs nothing.
"""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from infill import proxies
from infill.api_key import headers
from infill.editor.workspace_client import STICKY, UNKNOWN
from infill.errors import ServiceError
from infill.prompt import Encoder, PromptFormat

CONNECT_S: Final = 2.0
TOKENIZER_S: Final = 60.0
"""Time limit for the tokenizer, about ten megabytes."""
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
BROKEN: Final = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
STALE: Final = frozenset({"tokenizer_changed", "prompt_too_long"})
"""Codes of errors after which the model must be fetched again."""
GATEWAY: Final = frozenset({502, 503, 504})
"""Statuses with which a gateway answers for a server that is away."""
OVERLOADED: Final = "overloaded"
"""Code of the error of a server that takes no more requests for a moment, of which no user needs to know."""
MAX_MESSAGE: Final = 300


class StaleError(ServiceError):
    """The error when the server's model or limit is not the one for which the prompt was packed."""


class KeyRefusedError(ServiceError):
    """The error when the server rejects the key or requires one."""


class WorkspaceLostError(ServiceError):
    """The error when the server does not know the workspace of a request."""


class AwayError(ServiceError):
    """The error when no server answers at the URL."""


class PausedError(ServiceError):
    """The error while no request is sent, since the server failed a moment ago."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The data needed to pack prompts for a server."""

    name: str
    tokenizer: str
    """Digest of the prompt format and the tokenizer."""
    fmt: PromptFormat
    encoder: Encoder
    max_prompt_tokens: int
    max_new_tokens: int
    strategy: str
    context_items: int
    telemetry: str = "off"
    """The reports that the operator allows: `off`, `metrics` or `feedback`."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The server's completion."""

    text: str
    finish_reason: str | None
    id: str = ""
    first_token_ms: float | None = None
    """Milliseconds until the predictor's first token, if the server reports them."""
    packed: Mapping[str, Any] = field(default_factory=dict)
    """The server's account of the prompt, if it packed it."""


class Remote:
    """The connection to one server. All errors are ServiceErrors, or InputErrors for an invalid URL or proxy."""

    def __init__(self, url: str, key: str = "", timeout_s: float = 10.0) -> None:
        self.url = url
        timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
        self._timeout_s = timeout_s
        self._client = proxies.async_client(url, headers=headers(key), timeout=timeout)
        self._model: Model | None = None
        self._loading = asyncio.Lock()
        self._pause = 0.0
        self._until = -math.inf

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    @property
    def known(self) -> Model | None:
        """The model, if it has been fetched."""
        return self._model

    async def model(self) -> Model:
        """Return the server's model, which is fetched once. Raises ServiceError."""
        async with self._loading:
            if self._model is None:
                self._model = await self._load()
            return self._model

    def forget(self, model: Model) -> None:
        """Fetch the model again before the next completion, unless `model` has already been replaced."""
        if self._model is model:
            self._model = None

    async def _load(self) -> Model:
        listed = await self._ask("GET", "/v1/models", self._timeout_s)
        try:
            entry = listed["data"][0]
            limits = entry["infill"]
            name, digest, strategy = str(entry["id"]), str(limits["tokenizer"]), str(limits["strategy"])
            numbers = {key: int(limits[key]) for key in ("max_prompt_tokens", "max_new_tokens", "context_items")}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ServiceError(
                f"{self.url} is not an Infill server of this version: /v1/models lacks {error}"
            ) from error
        value = await self._ask("GET", "/v1/tokenizer", TOKENIZER_S)
        try:
            encoder = await asyncio.to_thread(Encoder, value["tokenizer"])
            fmt = PromptFormat.from_json(value["prompt_format"])
        except Exception as error:  # the tokenizers package raises bare Exception
            raise ServiceError(f"the tokenizer of {self.url} cannot be used: {error}") from error
        telemetry = str(limits.get("telemetry", "off"))
        return Model(
            name=name, tokenizer=digest, fmt=fmt, encoder=encoder, strategy=strategy, telemetry=telemetry, **numbers
        )

    async def probe(self) -> None:
        """Ask whether the server is there again, even during the pause, which ends if it is.

        Raises AwayError, which does not lengthen the pause, or another ServiceError if the server answers with one.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._send("GET", "/v1/models", None, self._timeout_s)
        except (TimeoutError, httpx.HTTPError) as error:
            raise AwayError(f"no server answers at {self.url}") from error
        if response.status_code != httpx.codes.OK:
            raise self._refused(response)
        self._pause, self._until = 0.0, -math.inf

    async def report(self, report: dict[str, Any]) -> bool:
        """Report what became of a suggestion; return whether the server took it.

        A failure raises nothing: it must neither stop completions nor slow down the next keystroke.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._send("POST", "/v1/events", report, self._timeout_s)
        except (TimeoutError, httpx.HTTPError):
            return False
        return response.status_code == httpx.codes.OK

    async def complete(
        self, model: Model, ids: list[int], *, max_tokens: int, stop: tuple[str, ...] = (), language: str = ""
    ) -> Answer:
        """Return the completion of a packed prompt. Raises ServiceError.

        Cancelling it closes the connection, which ends the generation.
        """
        body = {
            "prompt": ids,
            "tokenizer": model.tokenizer,
            "max_tokens": min(max_tokens, model.max_new_tokens),
            "temperature": 0.0,
            "stop": list(stop) or None,
            "language": language or None,
        }
        return await self._completion(body)

    async def complete_caret(self, model: Model, body: Mapping[str, Any], *, max_tokens: int) -> Answer:
        """Return the completion of a caret whose prompt the server packs. Raises ServiceError.

        A request that names a workspace takes the way to the replica that has it. Raises WorkspaceLostError if
        none has.
        """
        limits = {"max_tokens": min(max_tokens, model.max_new_tokens), "temperature": 0.0}
        name = body.get("workspace")
        return await self._completion({**body, **limits}, {STICKY: name} if name else {})

    async def _completion(self, body: Mapping[str, Any], more: Mapping[str, str] | None = None) -> Answer:
        value = await self._ask("POST", "/v1/completions", self._timeout_s, body, more)
        try:
            choice = value["choices"][0]
            text, reason = choice["text"], choice.get("finish_reason")
            if not isinstance(text, str):
                raise TypeError(f"text is {text!r:.60}")
            packed = value.get("infill", {})
            first = packed.get("timing_ms", {}).get("first_token")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ServiceError(f"{self.url} does not answer like an Infill server: {error!r}") from error
        return Answer(
            text=text,
            finish_reason=reason,
            id=str(value.get("id") or ""),
            first_token_ms=first if isinstance(first, int | float) else None,
            packed=packed,
        )

    async def _ask(
        self, method: str, path: str, timeout_s: float, body: Any = None, more: Mapping[str, str] | None = None
    ) -> Any:
        """Return the JSON that the server answers with. Raises ServiceError."""
        if time.monotonic() < self._until:
            raise PausedError(f"{self.url} was not available a moment ago")
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send(method, path, body, timeout_s, more)
            if response.status_code != httpx.codes.OK:
                raise self._refused(response)
            value = response.json()
        except ServiceError:
            raise
        except (TimeoutError, httpx.TimeoutException) as error:
            self._wait()
            raise ServiceError(f"{self.url} did not answer within {timeout_s:g} s") from error
        except httpx.HTTPError as error:
            self._wait()
            why = str(error) or type(error).__name__
            raise AwayError(f"no server answers at {self.url} ({why}): start it, or change the url") from error
        except (ValueError, RecursionError) as error:
            self._wait()
            raise ServiceError(f"{self.url} does not answer like an Infill server: it sent no JSON") from error
        self._pause = 0.0
        return value

    async def _send(
        self, method: str, path: str, body: Any, timeout_s: float, more: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Return the answer to a request; send it again if the connection breaks.

        A server may close an idle connection at any time, even when a request is on its way.
        """
        try:
            return await self._client.request(method, path, json=body, headers=more, timeout=timeout_s)
        except BROKEN:
            return await self._client.request(method, path, json=body, headers=more, timeout=timeout_s)

    def _wait(self, least_s: float = FIRST_PAUSE_S) -> None:
        """Send no requests for a while, twice as long as the last time, and at least as long as the server asks for."""
        self._pause = min(max(least_s, 2 * self._pause), LONGEST_PAUSE_S)
        self._until = time.monotonic() + self._pause

    def _refused(self, response: httpx.Response) -> ServiceError:
        """Return the error for an answer whose status is not 200."""
        try:
            error = response.json()["error"]
            code, message = str(error["code"]), str(error["message"])[:MAX_MESSAGE]
        except (ValueError, KeyError, TypeError, RecursionError):
            code, message = "", response.reason_phrase
        if code in STALE:
            return StaleError(message)
        if code == UNKNOWN:
            return WorkspaceLostError(message)
        self._wait(_seconds(response.headers.get("retry-after", "")))
        if not code and response.status_code in GATEWAY:
            return AwayError(f"no server answers at {self.url} ({response.status_code} {message})")
        if code == OVERLOADED:
            return PausedError(f"{self.url} takes no more requests for a moment")
        if response.status_code in (401, 403):
            return KeyRefusedError(
                f"{self.url} rejects the key ({response.status_code}): put a valid key into INFILL_API_KEY"
            )
        return ServiceError(f"{self.url} answered {response.status_code}: {message}")


def _seconds(value: str) -> float:
    """Return the seconds in a header `Retry-After`; FIRST_PAUSE_S for a date or nothing."""
    return float(value) if value.isdecimal() else FIRST_PAUSE_S
