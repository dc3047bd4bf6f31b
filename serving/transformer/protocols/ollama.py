"""Ollama's `/api/generate` with `suffix`: lines of JSON, streamed unless the client sets `stream` to false."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from serving.protocol import ApiError, invalid, read_flag, read_integer, read_text, unknown_fields
from serving.transformer.answer import OngoingAnswer, PartialAnswer
from serving.transformer.fields import (
    ADDITIONS,
    SAMPLING,
    Field,
    Fields,
    Schema,
    field,
    ignored,
    object_schema,
    only,
)
from serving.transformer.protocols.base import Protocol, line, read_foreign, read_object
from serving.transformer.protocols.openai import COUNT, PROVENANCE
from serving.transformer.request import CompletionRequest, additions
from serving.transformer.upstream import Delta

NDJSON: Final = "application/x-ndjson"
SAMPLED: Final = ("temperature", "top_p", "seed", "stop")
OPTIONS: Final[Fields] = {
    "num_predict": field("maximum number of new tokens; 0 or less takes the server's limit", "integer"),
    **{name: SAMPLING[name] for name in SAMPLED},
}
EMPTY: Final = {"format": (None, ""), "images": (None, [])}
"""Fields for features that a completion model lacks, each with the values that have no effect."""


class Ollama(Protocol):
    """The adapter of Ollama's protocol."""

    name = "ollama"
    title = "Ollama"
    paths = ("/api/generate",)
    media_type = NDJSON
    end = b""
    fields: ClassVar[Fields] = {
        "prompt": field("the text before the caret; without it and a suffix the answer is empty", "string"),
        "suffix": field("the text after the caret", "string"),
        "stream": field("true, the default, for lines of JSON; false for one object", "boolean"),
        "options": Field(
            about="`num_predict`, `temperature`, `top_p`, `seed`, `stop`; others are ignored",
            schema={**object_schema(OPTIONS), "type": ["object", "null"]},
        ),
        **{name: only("empty", *values) for name, values in EMPTY.items()},
        **ADDITIONS,
        **ignored("model", "raw", "system", "template", "context", "keep_alive", "think", "logprobs", "top_logprobs"),
        **ignored("truncate", "shift", "width", "height", "steps"),
    }
    whole_schema: ClassVar[Schema] = {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "created_at": {"type": "string", "format": "date-time"},
            "response": {"type": "string"},
            "done": {"const": True},
            "done_reason": {"enum": ["stop", "length", "load"]},
            "total_duration": COUNT,
            "load_duration": COUNT,
            "prompt_eval_count": COUNT,
            "prompt_eval_duration": COUNT,
            "eval_count": COUNT,
            "eval_duration": COUNT,
            "infill": PROVENANCE,
        },
        "required": ["model", "created_at", "response", "done", "done_reason"],
    }

    def read(self, body: Mapping[str, Any], max_new_tokens: int) -> CompletionRequest:
        for name, empty in EMPTY.items():
            if body.get(name) not in empty:
                raise invalid(f"{name!r} is not supported: the model completes code", name, "unsupported_value")
        prefix, suffix = read_text(body, "prompt"), read_text(body, "suffix")
        options = read_object(body, "options")
        sampled = {name: options.get(name) for name in SAMPLED}
        new = read_integer(options, "num_predict") or None
        load = not prefix and not suffix
        sampling = read_foreign(sampled, 0 if load else new, max_new_tokens)
        return replace(
            additions(body, prefix=prefix, suffix=suffix),
            sampling=replace(sampling, stream=body.get("stream") is None or read_flag(body, "stream")),
            reply={"load": load},
            warnings=tuple(unknown_fields(body, self.fields)),
        )

    def whole(self, answer: OngoingAnswer, outcome: PartialAnswer) -> dict[str, Any]:
        counts = outcome.counts(answer)
        reason = "load" if answer.request.reply["load"] else outcome.reason or "stop"
        return {
            **_part(answer, outcome.text, done=True),
            "done_reason": reason,
            "total_duration": _nanoseconds(outcome.ended - answer.asked),
            "load_duration": 0,
            "prompt_eval_count": counts["prompt_tokens"],
            "prompt_eval_duration": _nanoseconds(answer.first - answer.asked),
            "eval_count": counts["completion_tokens"],
            "eval_duration": _nanoseconds(outcome.ended - answer.first),
            "infill": answer.provenance,
        }

    def piece(self, answer: OngoingAnswer, delta: Delta, *, first: bool) -> dict[str, Any] | None:
        return _part(answer, delta.text, done=False) if delta.text else None

    def last(self, answer: OngoingAnswer, outcome: PartialAnswer) -> Iterable[dict[str, Any]]:
        yield self.whole(answer, replace(outcome, text=""))

    def error(self, error: ApiError) -> dict[str, Any]:
        return {"error": str(error)}

    def frame(self, value: Mapping[str, Any]) -> bytes:
        return line(value)


def _part(answer: OngoingAnswer, text: str, *, done: bool) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return {"model": answer.head.model, "created_at": now, "response": text, "done": done}


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))
