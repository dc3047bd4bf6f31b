"""The Infill server as the language server needs it: what prompts must look like, and completions of packed ones.

Only token ids of prompts go there. A server that is down is asked again after a pause that grows, so that typing
without one costs nothing.
"""

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Any, Final

import httpx

from infill import proxies
from infill.api_key import headers
from infill.errors import ServiceError
from infill.prompt import Encoder, PromptFormat

CONNECT_S: Final = 2.0
TOKENIZER_S: Final = 60.0
"""For some ten megabytes."""
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
BROKEN: Final = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
STALE: Final = frozenset({"tokenizer_changed", "prompt_too_long"})
"""Codes of errors after which the model must be asked for again."""
MAX_MESSAGE: Final = 300


class StaleError(ServiceError):
    """The server has another model, or another limit, than the prompt was packed for."""


class KeyRefusedError(ServiceError):
    """The server wants a key, or another one."""


class PausedError(ServiceError):
    """The server was down a moment ago and is not asked yet."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is needed to pack prompts for a server."""

    name: str
    tokenizer: str
    """Digest of the two that follow."""
    fmt: PromptFormat
    encoder: Encoder
    max_prompt_tokens: int
    max_new_tokens: int
    strategy: str
    context_items: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    text: str
    finish_reason: str | None
    first_token_ms: float | None = None
    """Milliseconds that the predictor took to the first token, where the server says so."""


class Remote:
    """The connection to one server. All errors are ServiceErrors, or InputErrors for a URL or proxy of no use."""

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
        """The model as far as it was asked for."""
        return self._model

    async def model(self) -> Model:
        """Return the server's model; it is asked for once."""
        async with self._loading:
            if self._model is None:
                self._model = await self._load()
            return self._model

    def forget(self, model: Model) -> None:
        """Ask for the model again at the next completion, unless another than `model` is known by now."""
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
        return Model(name=name, tokenizer=digest, fmt=fmt, encoder=encoder, strategy=strategy, **numbers)

    async def complete(self, model: Model, ids: list[int], *, max_tokens: int, stop: tuple[str, ...] = ()) -> Answer:
        """Return the completion of a packed prompt. Cancelled, it closes the connection, which ends the generation."""
        body = {
            "prompt": ids,
            "tokenizer": model.tokenizer,
            "max_tokens": min(max_tokens, model.max_new_tokens),
            "temperature": 0.0,
            "stop": list(stop) or None,
        }
        value = await self._ask("POST", "/v1/completions", self._timeout_s, body)
        try:
            choice = value["choices"][0]
            text, reason = choice["text"], choice.get("finish_reason")
            if not isinstance(text, str):
                raise TypeError(f"text is {text!r:.60}")
            first = value.get("infill", {}).get("timing_ms", {}).get("first_token")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ServiceError(f"{self.url} answers not as an Infill server does: {error!r}") from error
        return Answer(text=text, finish_reason=reason, first_token_ms=first if isinstance(first, int | float) else None)

    async def _ask(self, method: str, path: str, timeout_s: float, body: Any = None) -> Any:
        """Return the JSON that the server answers with. Raises ServiceError."""
        if time.monotonic() < self._until:
            raise PausedError(f"{self.url} was not available a moment ago")
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send(method, path, body, timeout_s)
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
            raise ServiceError(f"no server answers at {self.url} ({why}): start it, or change the url") from error
        except (ValueError, RecursionError) as error:
            self._wait()
            raise ServiceError(f"{self.url} answers not as an Infill server does: it sent no JSON") from error
        self._pause = 0.0
        return value

    async def _send(self, method: str, path: str, body: Any, timeout_s: float) -> httpx.Response:
        """Return the answer to a request, sent once more where the connection breaks.

        A server closes an idle connection when it likes: as a request is on its way, too.
        """
        try:
            return await self._client.request(method, path, json=body, timeout=timeout_s)
        except BROKEN:
            return await self._client.request(method, path, json=body, timeout=timeout_s)

    def _wait(self) -> None:
        """Do not ask for a while: twice as long as the last time."""
        self._pause = min(max(FIRST_PAUSE_S, 2 * self._pause), LONGEST_PAUSE_S)
        self._until = time.monotonic() + self._pause

    def _refused(self, response: httpx.Response) -> ServiceError:
        """Return the error that an answer stands for."""
        try:
            error = response.json()["error"]
            code, message = str(error["code"]), str(error["message"])[:MAX_MESSAGE]
        except (ValueError, KeyError, TypeError, RecursionError):
            code, message = "", response.reason_phrase
        if code in STALE:
            return StaleError(message)
        self._wait()
        if response.status_code in (401, 403):
            return KeyRefusedError(
                f"{self.url} refuses the key ({response.status_code}): put a valid one into INFILL_API_KEY"
            )
        return ServiceError(f"{self.url} answered {response.status_code}: {message}")
