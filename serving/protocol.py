"""The part of OpenAI's completion protocol that we support: fields of a request, parts of an answer, errors.

The predictor and the transformer read the same sampling fields, so they share this module; fields that only one of them
reads are in its own package.
"""

import difflib
import json
import reprlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from infill.errors import InfillError
from infill.text import clean

MAX_STOP_CHARS: Final = 16_384
"""Characters of all stop strings of a request together."""
MAX_STOP_IDS: Final = 4_096
MAX_TOKEN: Final = 2**31 - 1
"""The largest token id: no vocabulary is larger, and other predictors read a token id as a 32-bit integer."""
MAX_WARNINGS: Final = 16


def _equals(number: float) -> Callable[[Any], bool]:
    """Return a test for `number`; true and false, which equal 1 and 0 in Python, fail it."""
    return lambda value: not isinstance(value, bool) and isinstance(value, int | float) and value == number


UNSUPPORTED: Final[Mapping[str, Callable[[Any], bool]]] = {
    "n": _equals(1),
    "best_of": _equals(1),
    "echo": lambda value: value is False,
    "logprobs": lambda value: value is False,
    "logit_bias": lambda value: value == {},
    "frequency_penalty": _equals(0),
    "presence_penalty": _equals(0),
}
"""Fields that we do not implement, each with a test for the values that have no effect. null has no effect either."""
SAMPLING_FIELDS: Final = frozenset(UNSUPPORTED) | {
    *("max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "stop_token_ids"),
    *("ignore_eos", "stream", "stream_options"),
}


class ApiError(InfillError):
    """An error that is reported to the client, in OpenAI's shape."""

    def __init__(
        self, status: int, message: str, *, code: str, kind: str = "", param: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.kind = kind or ("invalid_request_error" if status < 500 else "server_error")
        self.param = param
        self.retry_after = retry_after
        """Seconds after which the client may try again; 0 if unknown."""

    def body(self) -> dict[str, Any]:
        """Return `{"error": {"message", "type", "code", "param"}}`."""
        return {"error": {"message": str(self), "type": self.kind, "code": self.code, "param": self.param}}


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """Return an error with status 400, for a request that is at fault."""
    return ApiError(400, message, code=code, param=param)


def overloaded(message: str) -> ApiError:
    """Return an error with status 429, for a server that takes no more requests for a moment."""
    return ApiError(429, message, code="overloaded", kind="rate_limit_error", retry_after=1)


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`. Raises ApiError 400 for anything else."""
    try:
        value = json.loads(body)
    except RecursionError as error:
        raise invalid("the body is nested too deeply", code="invalid_json") from error
    except ValueError as error:
        raise invalid(f"the body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise invalid("the body must be a JSON object", code="invalid_json")
    return value


def read_text(body: Mapping[str, Any], name: str, default: str = "", limit: int = 0) -> str:
    """Return the string field `name`, or `default` when it is null or absent; lone surrogates become U+FFFD.

    Raises ApiError 400 for another type, or for more than `limit` characters if `limit` is not 0.
    """
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise invalid(f"{name!r} must be a string", name, "invalid_type")
    if limit and len(value) > limit:
        raise invalid(f"{name!r} has {len(value)} characters, at most {limit} are allowed", name)
    return clean(value)


def read_flag(body: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    """Return the boolean field `name`, or `default` when it is null or absent. Raises ApiError 400 for another type."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{name!r} must be true or false", name, "invalid_type")
    return default if value is None else value


def read_number(body: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    """Return the number field `name`, or `default` when it is null or absent.

    Raises ApiError 400 for another type or a number outside `low` to `high`.
    """
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"{name!r} must be a number", name, "invalid_type")
    if not low <= value <= high:  # NaN fails this test too
        raise invalid(f"{name!r} must be between {low:g} and {high:g}, got {reprlib.repr(value)}", name)
    return float(value)


def read_integer(body: Mapping[str, Any], name: str, low: int | None = None) -> int | None:
    """Return the integer field `name`, None when it is null or absent; 16.0 counts as an integer.

    Raises ApiError 400 for another type or an integer below `low`.
    """
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"{name!r} must be an integer, got {reprlib.repr(value)}", name, "invalid_type")
    if low is not None and value < low:
        raise invalid(f"{name!r} must be at least {low}, got {reprlib.repr(value)}", name)
    return value


def read_list(body: Mapping[str, Any], name: str, valid: Callable[[Any], bool], what: str, limit: int) -> list[Any]:
    """Return the list field `name`; null and absent give an empty list.

    Raises ApiError 400 for anything but a list of at most `limit` elements that pass `valid`, described by `what`.
    """
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(valid(item) for item in value):
        raise invalid(f"{name!r} must be a list of {what}", name, "invalid_type")
    if len(value) > limit:
        raise invalid(f"{name!r} has {len(value)} elements, at most {limit} are allowed", name)
    return value


def integral(values: Any) -> Any:
    """Return the list `values` with floats like 16.0 as integers; return anything but a list unchanged."""
    if not isinstance(values, list):
        return values
    return [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]


def is_token(value: Any) -> bool:
    """Return whether `value` can be a token id."""
    return type(value) is int and 0 <= value <= MAX_TOKEN


def _read_stops(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the stop strings, each once, without empty ones."""
    stops = body.get("stop")
    if stops is None or isinstance(stops, str):
        stops = [stops or ""]
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise invalid("'stop' must be a string or a list of strings", "stop", "invalid_type")
    length = sum(map(len, stops))
    if length > MAX_STOP_CHARS:
        raise invalid(f"the 'stop' strings have {length} characters, at most {MAX_STOP_CHARS} are allowed", "stop")
    return tuple(dict.fromkeys(clean(stop) for stop in stops if stop))


def unknown_fields(body: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """Return a warning for each field that is not `known`, at most MAX_WARNINGS of them.

    Clients send fields of other servers (`top_k`, `cache_prompt`, `metadata`) to every server that speaks the protocol,
    so such a field is not an error; but a client that misspells a field must be able to notice.
    """
    warnings = []
    for name in [name for name in body if name not in known][:MAX_WARNINGS]:
        near = difflib.get_close_matches(name[:64], known, n=1, cutoff=0.75)
        advice = f"; did you mean {near[0]!r}?" if near else ""
        warnings.append(f"unknown field {reprlib.repr(name)} is ignored{advice}")
    return warnings


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The sampling settings of a request, and the form of its answer."""

    max_tokens: int = 16
    temperature: float = 1.0
    """0 takes the most probable token each time."""
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Strings before the first of which the text ends; none of them is empty."""
    stop_token_ids: tuple[int, ...] = ()
    begins_with: str = ""
    """Text with which the answer must begin; only the predictor reads it."""
    ignore_eos: bool = False
    """Continue past the model's own end of text; measurements need this."""
    stream: bool = False
    include_usage: bool = False
    """Whether a stream ends with a chunk that holds the usage."""


def read_sampling(body: Mapping[str, Any], defaults: Sampling) -> Sampling:
    """Return the sampling fields of a request.

    `max_completion_tokens` is OpenAI's newer name for `max_tokens` and takes precedence, as in vLLM and llama.cpp. A
    seed of any size is folded into 64 bits. Raises ApiError 400 for a wrong type, a value out of range or a field that
    we do not implement.
    """
    for name in [name for name in UNSUPPORTED if name in body]:
        value = body[name]
        if value is not None and not UNSUPPORTED[name](value):
            raise invalid(f"{name!r} = {reprlib.repr(value)} is not supported", name, "unsupported_value")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise invalid("'stream_options' must be an object", "stream_options", "invalid_type")
    ids = {"stop_token_ids": integral(body.get("stop_token_ids"))}
    limits = [read_integer(body, name, 1) for name in ("max_completion_tokens", "max_tokens")]
    seed = read_integer(body, "seed")
    return Sampling(
        max_tokens=next((limit for limit in limits if limit is not None), defaults.max_tokens),
        temperature=read_number(body, "temperature", defaults.temperature, 0, 2),
        top_p=read_number(body, "top_p", defaults.top_p, 0, 1),
        seed=None if seed is None else (seed + 2**63) % 2**64 - 2**63,
        stop=_read_stops(body),
        stop_token_ids=tuple(read_list(ids, "stop_token_ids", is_token, "token ids", MAX_STOP_IDS)),
        ignore_eos=read_flag(body, "ignore_eos"),
        stream=read_flag(body, "stream"),
        include_usage=read_flag(options or {}, "include_usage"),
    )


def usage(prompt: int, completion: int, cached: int) -> dict[str, Any]:
    """Return OpenAI's usage object: counts of tokens, where `cached` tokens of the prompt came from the KV cache."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


@dataclass(frozen=True, kw_only=True)
class Head:
    """The fields that each chunk of one answer repeats."""

    id: str
    model: str
    created: int

    @classmethod
    def new(cls, request_id: str, model: str) -> "Head":
        """Return the head of an answer that starts now."""
        return cls(id=f"cmpl-{request_id}", model=model, created=int(time.time()))

    def completion(self, choices: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """Return an answer, or a chunk of one, with `more` as further top-level fields."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": list(choices),
            **more,
        }


def choice(text: str, finish_reason: str | None) -> dict[str, Any]:
    """Return the only choice of an answer or a chunk."""
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
