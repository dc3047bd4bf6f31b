"""The interface of a protocol's adapter: its paths and fields, the reader of bodies, the writer of answers."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

from serving.events import DONE, event
from serving.protocol import ApiError, Sampling, invalid, read_integer, read_sampling
from serving.transformer.answer import OngoingAnswer, PartialAnswer
from serving.transformer.fields import Fields, Schema
from serving.transformer.request import CompletionRequest
from serving.transformer.upstream import Delta

SSE: Final = "text/event-stream"


class Protocol(ABC):
    """An adapter of one protocol, without any state of a request."""

    name: ClassVar[str]
    """Name in metrics."""
    title: ClassVar[str]
    paths: ClassVar[tuple[str, ...]]
    fields: ClassVar[Fields]
    whole_schema: ClassVar[Schema]
    """JSON schema of a whole answer."""
    media_type: ClassVar[str] = SSE
    """Media type of a streamed answer; empty where the protocol has none."""
    takes_ids: ClassVar[bool] = False
    """Whether a prompt may come as token ids, packed by the client."""
    end: ClassVar[bytes] = DONE
    """Bytes that end a stream."""

    def claims(self, body: Mapping[str, Any]) -> bool:
        """Return whether `body`, sent to one of the paths, belongs to this protocol."""
        return True

    @abstractmethod
    def read(self, body: Mapping[str, Any], max_new_tokens: int) -> CompletionRequest:
        """Return the request in `body`. Raises ApiError 400, which names the invalid field."""

    @abstractmethod
    def whole(self, answer: OngoingAnswer, outcome: PartialAnswer) -> dict[str, Any]:
        """Return the answer as one object."""

    def piece(self, answer: OngoingAnswer, delta: Delta, *, first: bool) -> dict[str, Any] | None:
        """Return the part of a stream for one event; None to skip it."""
        return None

    def last(self, answer: OngoingAnswer, outcome: PartialAnswer) -> Iterable[dict[str, Any]]:
        """Return the parts at the end of a stream."""
        return ()

    def error(self, error: ApiError) -> dict[str, Any]:
        """Return the body of an error, whole or in a stream."""
        return error.body()

    def frame(self, value: Mapping[str, Any]) -> bytes:
        """Return `value` as a part of a stream."""
        return event(value)


def line(value: Mapping[str, Any]) -> bytes:
    """Return `value` as one line of a stream of JSON objects, in ASCII."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def read_foreign(fields: Mapping[str, Any], wanted: int | None, limit: int) -> Sampling:
    """Return the sampling settings in `fields`, which have OpenAI's names, for an answer of at most `wanted` tokens.

    As in other servers, None and a negative number of tokens mean the server's `limit`, and a negative seed means no
    seed. Raises ApiError 400 for an invalid field.
    """
    seed = read_integer(fields, "seed")
    sampling = read_sampling({**fields, "seed": None if seed is None or seed < 0 else seed}, Sampling(temperature=0))
    return replace(sampling, max_tokens=limit if wanted is None or wanted < 0 else min(wanted, limit))


def read_object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the object field `name`; null and absent give an empty one. Raises ApiError 400 for another type."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(f"{name!r} must be an object", name, "invalid_type")
    return value
