"""The client of the predictor: sends token ids, receives text in pieces, turns every failure into an ApiError.

Requests to the predictor always stream, so that closing the connection cancels the generation (vLLM notices a closed
connection only then).
"""

import asyncio
import contextlib
import json
import math
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import httpx
import orjson
from yarl import URL

from infill.proxies import proxy_of
from serving.events import EventReader
from serving.protocol import ApiError, Sampling, overloaded
from serving.transformer.transformer_config import TransformerConfig

Headers = list[tuple[bytes, bytes]]

KEEP_ALIVE_S: Final = 4.0
"""Seconds until idle connections are closed, before uvicorn closes them after its default of 5 s."""
PAUSE_S: Final = 1.0
"""Seconds between attempts to ask a dead predictor for its context, else each waiting request would try in turn."""
MAX_CONNECTIONS: Final = 256
END_S: Final = 1.0
"""Seconds in which the stream of a complete answer must end."""
MIN_TOP_P: Final = 1e-6
"""The least top-p we send: like 0, which vLLM rejects, it leaves only the most probable token."""
MAX_STOPS: Final = 4
"""The most stop strings that vLLM takes, like OpenAI; `cut.before` looks for all of them where there are more."""
GONE: Final = "predictor_unavailable"
JSON: Final = {"content-type": "application/json"}
_SPECIAL: Final = re.compile(r"[\\.^$*+?{}()|\[\]]")
"""Signs with a meaning in regular expressions; vLLM's xgrammar warns of any other escape, as in `re.escape`."""
BEGINNINGS: Final[Mapping[str, Callable[[str], dict[str, Any]]]] = {
    "begins_with": lambda text: {"begins_with": text},
    "vllm": lambda text: {"structured_outputs": {"regex": _SPECIAL.sub(r"\\\g<0>", text) + r"[\s\S]*"}},
}
"""Ways to make a predictor begin its answer with a text, as fields of a request."""


@dataclass(frozen=True, kw_only=True)
class Delta:
    """One event of the predictor's stream."""

    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None


def gone(reason: str) -> ApiError:
    """Return an error with status 503, for a predictor that cannot be reached or has died."""
    return ApiError(503, f"the predictor is not available: {reason}", code=GONE, retry_after=1)


def _slow(what: str, seconds: float) -> ApiError:
    return ApiError(504, f"the predictor {what} within {seconds:g} s", code="predictor_timeout")


def _nonsense(what: str) -> ApiError:
    return ApiError(502, f"the predictor's answer cannot be understood: {what}", code="bad_predictor_answer")


class PredictorRefusedError(ApiError):
    """The error for a request that the predictor rejects, such as a prompt longer than its context."""


class Upstream:
    """A pool of connections to one predictor, without any state of a request."""

    def __init__(self, config: TransformerConfig, stop_ids: tuple[int, ...], vocab_size: int) -> None:
        """Take the model's own stop tokens and the number of tokens that it has text for."""
        self._config = config
        self._vocab_size = vocab_size
        self._stop_ids = stop_ids
        self._context: int | None = None
        """The context length that the predictor last reported."""
        self._beginning: str | None = None
        """The way in which the predictor can begin with a text, one of BEGINNINGS; None if it cannot."""
        self._ignores = False
        """Whether the predictor has begun an answer otherwise than it was asked to."""
        self._current = False
        """Whether the context length was reported after the connection last broke."""
        self.replacements = -1
        """How often another predictor may have taken the place of the last one: after a failure, or with its context.

        The first contact makes it 0."""
        self._contact = -math.inf
        """Time when the predictor last answered; KEEP_ALIVE_S later all connections of that time are closed."""
        self._failed = -math.inf
        """Time when it last failed to answer."""
        self._asking = asyncio.Lock()
        self._url = config.predictor.rstrip("/")
        self._proxy = proxy_of(config.predictor)
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._preparing = set[asyncio.Task[None]]()
        """Tasks that make connections ready for the next requests."""
        self._connecting = asyncio.Lock()
        self._open_client: aiohttp.ClientSession | None = None

    @property
    def _client(self) -> aiohttp.ClientSession:
        """The pool of connections, opened by the first request, since it belongs to the running event loop."""
        if self._open_client is None:
            # httpx knows the certificates of authorities also where the system has none.
            tls: Any = httpx.create_ssl_context() if self._url.startswith("https:") else True
            self._open_client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=tls),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._config.connect_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept-Encoding",),  # a compressed stream would come late
                proxy=self._proxy,
            )
        return self._open_client

    async def context(self, headers: Headers, *, again: bool = False) -> int | None:
        """Return the predictor's context length in tokens; None when the predictor does not report it.

        The predictor is asked at first, after each failure or pause in which another predictor may have replaced it,
        and when `again` is true. Until it answers, what it reported last holds.
        """
        async with self._asking:
            now = time.monotonic()
            current = self._current and now - self._contact <= KEEP_ALIVE_S
            if again or (not current and now - self._failed > PAUSE_S):
                context, broken = await self._ask_context(headers), not self._current
                self._current = self._failed < now
                if self._current:
                    self.replacements += broken or context != self._context
                    self._context = context
            return self._context

    async def _ask_context(self, headers: Headers) -> int | None:
        """Ask for `max_model_len`, which vLLM reports, else for `n_ctx` of a slot, which llama.cpp reports.

        vLLM reports it for the base alone, which each adapter names as its `parent`.
        """
        models = await self._get("/v1/models", headers)
        try:
            entries = {str(entry["id"]): entry for entry in reversed(models["data"])}
            entry = entries.get(self._config.upstream_name) or models["data"][0]
            self._beginning = "begins_with" if entry.get("begins_with") is True else None
            self._beginning = "vllm" if entry.get("owned_by") == "vllm" else self._beginning
            length = entry.get("max_model_len") or entries.get(entry.get("parent"), {}).get("max_model_len")
            if length is None:
                length = (await self._get("/props", headers))["default_generation_settings"]["n_ctx"]
        except (KeyError, IndexError, TypeError, AttributeError):
            return None
        return length if type(length) is int and length > 0 else None

    async def _get(self, path: str, headers: Headers) -> Any:
        """Return the JSON at `path`; None after any failure, which the completion itself will report."""
        try:
            async with (
                asyncio.timeout(min(self._config.connect_s, self._config.first_token_s)),
                self._client.get(self._url + path, headers=_texts(headers), allow_redirects=False) as response,
            ):
                data = await response.read()
            self._contact = time.monotonic()
            return json.loads(data) if response.status == HTTPStatus.OK else None
        except (TimeoutError, aiohttp.ClientError):
            self._failed = time.monotonic()
            return None
        except (ValueError, RecursionError):
            return None

    async def ready(self, headers: Headers) -> bool:
        """Return whether the predictor lists its models, which it does as soon as it can answer."""
        ready = await self._get("/v1/models", headers) is not None
        self._current = self._current and ready
        return ready

    @property
    def constrains(self) -> bool:
        """Whether the predictor can begin its answer with a given text, as it said with its context."""
        return self._beginning is not None and not self._ignores

    async def deltas(
        self, ids: list[int], sampling: Sampling, headers: Headers, salt: str = ""
    ) -> AsyncGenerator[Delta, None]:
        """Yield the predictor's events for the prompt `ids`; the last text has a finish reason. Raises ApiError.

        The answer follows the text `sampling.begins_with`, which the predictor writes and this removes. Prompts of
        another `salt` are not taken from its cache. Close it (`aclose`) to cancel the generation.
        """
        started = time.monotonic()
        limit = min(self._config.first_token_s, self._config.total_s)
        finished, due = False, sampling.begins_with
        try:
            async with self._open(self._payload(ids, sampling, salt), headers, started + limit) as events:
                while not events.complete and (data := await events.next(started + limit, limit)) is not None:
                    delta = _parse(data)
                    self._contact = time.monotonic()
                    if delta is not None:
                        finished = finished or delta.finish_reason is not None
                        events.complete = finished and delta.usage is not None  # nothing else can follow the counts
                        limit = self._config.total_s
                        length = min(len(due), len(delta.text))
                        if delta.text[:length] != due[:length]:
                            self._ignores = True
                            raise _nonsense(f"it begins with {delta.text[:40]!r}, not with {due!r}")
                        due = due[length:]
                        yield replace(delta, text=delta.text[length:]) if length else delta
            if not finished:
                raise gone("it broke off in the middle of an answer")
        except ApiError as error:
            self._current = self._current and error.code != GONE
            raise

    def _payload(self, ids: list[int], sampling: Sampling, salt: str) -> dict[str, Any]:
        optional = {
            "model": self._config.upstream_name or None,
            "seed": sampling.seed,
            "stop": list(sampling.stop[:MAX_STOPS]) or None,
            "ignore_eos": sampling.ignore_eos or None,
            "cache_salt": salt or None,  # vLLM's name for it
            **(BEGINNINGS[self._beginning](sampling.begins_with) if sampling.begins_with and self._beginning else {}),
        }
        own = () if sampling.ignore_eos else self._stop_ids
        # vLLM refuses a token that does not exist, at which no answer could stop anyway.
        wanted = (token for token in sampling.stop_token_ids if token < self._vocab_size)
        return {
            "prompt": ids,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": max(sampling.top_p, MIN_TOP_P),
            "stop_token_ids": [*dict.fromkeys((*own, *wanted))],
            "stream": True,
            "stream_options": {"include_usage": True},
            **{name: value for name, value in optional.items() if value is not None},
        }

    @asynccontextmanager
    async def _open(self, payload: dict[str, Any], headers: Headers, deadline: float) -> AsyncIterator["_Events"]:
        """Yield the answer's events. Raises ApiError if there is no answer or an error.

        An answer that is left before it is complete closes its connection, by which the predictor notices.
        """
        await self._take_place()
        try:
            response = await self._send(payload, headers, deadline)
            events = _Events(response.content)
            try:
                if response.status != HTTPStatus.OK:
                    raise await _refused(response)
                yield events
            finally:
                self._leave(response, complete=events.complete)
        finally:
            self._places.release()

    def _leave(self, response: aiohttp.ClientResponse, *, complete: bool) -> None:
        """Close the connection, or read the rest of the stream after a complete answer, in the background.

        Either way, a connection is then ready for the next request.
        """
        if response.content.at_eof():
            response.close()
            return
        if not complete:
            response.close()
            if self._connecting.locked():  # one is enough: a server may give each connection a thread
                return
        task = asyncio.create_task(_read_end(response) if complete else self._connect())
        self._preparing.add(task)
        task.add_done_callback(self._preparing.discard)

    async def _connect(self) -> None:
        """Open a connection for the next request, unless an idle one is there: most answers are left or cut early."""
        proxy = URL(self._proxy) if self._proxy else None
        request = aiohttp.ClientRequest("POST", URL(self._url), loop=asyncio.get_running_loop(), proxy=proxy)
        connector = self._client.connector
        assert connector is not None
        async with self._connecting:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):  # the next request will say so
                (await connector.connect(request, [], self._client.timeout)).release()

    async def _take_place(self) -> None:
        """Wait for one of MAX_CONNECTIONS to be free. Raises ApiError 429 if none is in time."""
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(self._config.connect_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise overloaded(f"too many answers at once: the predictor gives {MAX_CONNECTIONS} already") from error

    async def _send(self, payload: dict[str, Any], headers: Headers, deadline: float) -> aiohttp.ClientResponse:
        """Return the predictor's response with its body unread; retry once, as a pooled connection may be stale."""
        data = orjson.dumps(payload)
        texts = _texts(headers) | JSON
        for last in (False, True):
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    response = await self._client.post(
                        f"{self._url}/v1/completions", data=data, headers=texts, allow_redirects=False
                    )
                self._contact = time.monotonic()
                return response
            except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
                raise gone(str(error) or type(error).__name__) from error
            except TimeoutError as error:
                raise _slow("did not begin to answer", self._config.first_token_s) from error
            except aiohttp.ClientError as error:
                self._current = False
                if last:
                    raise gone(str(error) or type(error).__name__) from error
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Close the pool."""
        for task in self._preparing:
            task.cancel()
        if self._open_client is not None:
            await self._open_client.close()


async def _read_end(response: aiohttp.ClientResponse) -> None:
    """Read a stream to its end, so that its connection can be used again; close it if the end does not come."""
    try:
        async with asyncio.timeout(END_S):
            while await response.content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError, ConnectionError):
        pass
    finally:
        response.close()


def _texts(headers: Headers) -> dict[str, str]:
    """Return headers as texts, without those that are not UTF-8, which no client of ours can send on."""
    texts = {}
    for name, value in headers:
        with contextlib.suppress(UnicodeDecodeError):
            texts[name.decode("latin-1")] = value.decode()
    return texts


class _Events:
    """The data of the events of an answer."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self.complete = False
        """Whether the whole answer, with its token counts, has arrived."""
        self._content = content
        self._reader = EventReader()
        self._arrived = deque[bytes]()

    async def next(self, deadline: float, limit: float) -> bytes | None:
        """Return the next event's data; None at the end. Raises ApiError at the deadline or for a broken connection."""
        try:
            while not self._arrived:
                async with asyncio.timeout(deadline - time.monotonic()):
                    chunk = await self._content.readany()
                if not chunk:
                    return None
                self._arrived.extend(self._reader.feed(chunk))
        except TimeoutError as error:
            raise _slow("did not answer", limit) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise gone(str(error) or type(error).__name__) from error
        return self._arrived.popleft()


def _parse(data: bytes) -> Delta | None:
    """Return the content of an event; None for the one that ends the stream. Raises ApiError."""
    if data.strip() == b"[DONE]":
        return None
    try:
        value = _json(data)
        if "error" in value:
            raise _reported(value, 502)
        if not value["choices"]:
            return Delta(usage=value.get("usage"))
        first = value["choices"][0]
        text = first["text"] or ""
        if not isinstance(text, str):
            raise TypeError(f"'text' is {text!r:.100}")
        return Delta(text=text, finish_reason=first.get("finish_reason"), usage=value.get("usage"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise _nonsense(repr(error)) from error


def _json(data: bytes) -> Any:
    """Return the JSON of an event, also if its text is not UTF-8 or has half of a surrogate pair."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data.decode(errors="replace"))


async def _refused(response: aiohttp.ClientResponse) -> ApiError:
    """Return the ApiError for a response that is an error."""
    try:
        async with asyncio.timeout(5):
            value = json.loads(await response.read())
    except (ValueError, TimeoutError, aiohttp.ClientError):
        value = None
    return _reported(value, response.status)


def _reported(value: Any, status: int) -> ApiError:
    """Return the ApiError for an error that the predictor reports: 429, 503 and 504 as they are, else 502.

    A 400 is not the client's fault, since we made the prompt, so it becomes a 502 too.
    """
    inner = value.get("error", value) if isinstance(value, dict) else {}
    details = inner if isinstance(inner, dict) else {"message": inner}
    message = str(details.get("message") or f"status {status}")
    if details.get("code") == "timeout" or status == HTTPStatus.GATEWAY_TIMEOUT:
        return ApiError(504, f"the predictor took too long: {message}", code="predictor_timeout")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return overloaded(f"the predictor is overloaded: {message}")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return gone(message)
    kind = PredictorRefusedError if status in (400, 413, 422) else ApiError
    return kind(502, f"the predictor refused the prompt: {message}", code="predictor_error")
