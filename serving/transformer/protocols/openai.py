"""OpenAI's `/v1/completions` with `suffix`, which DeepSeek serves at `/beta/completions`."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from serving.protocol import choice
from serving.transformer.answer import OngoingAnswer, PartialAnswer
from serving.transformer.fields import Fields, Schema
from serving.transformer.protocols.base import Protocol
from serving.transformer.request import FIELDS, CompletionRequest, read_request
from serving.transformer.upstream import Delta

REASON: Final[Schema] = {"enum": ["stop", "length", None]}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
USAGE: Final[Schema] = {
    "type": "object",
    "properties": {
        "prompt_tokens": COUNT,
        "completion_tokens": COUNT,
        "total_tokens": COUNT,
        "prompt_tokens_details": {"type": "object", "properties": {"cached_tokens": COUNT}},
    },
    "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
}
PROVENANCE: Final[Schema] = {
    "type": "object",
    "description": "The context in the prompt, warnings about the request, and timings",
    "properties": {
        "prompt_tokens": COUNT,
        "prefix_tokens": COUNT,
        "suffix_tokens": COUNT,
        "context": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "path": {"type": "string"},
                    "first_line": {"type": "integer"},
                    "last_line": {"type": "integer"},
                    "score": {"type": "number"},
                    "strategy": {"type": "string"},
                },
                "required": ["path", "first_line", "last_line", "score", "strategy"],
            },
        },
        "why_empty": {"type": ["string", "null"]},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "cached": {"type": "boolean"},
        "workspace_revision": {"type": ["string", "null"]},
        "timing_ms": {
            "type": "object",
            "properties": {"packing": {"type": "number"}, "first_token": {"type": "number"}},
            "required": ["packing", "first_token"],
        },
    },
    "required": [
        *("prompt_tokens", "prefix_tokens", "suffix_tokens"),
        *("context", "why_empty", "warnings", "cached", "workspace_revision", "timing_ms"),
    ],
}


def answer_schema(kind: str, choice_schema: Schema) -> Schema:
    """Return the schema of an answer in OpenAI's shape: an object of type `kind` with one choice of `choice_schema`."""
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "object": {"const": kind},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "choices": {"type": "array", "items": choice_schema, "minItems": 1, "maxItems": 1},
            "usage": USAGE,
            "infill": PROVENANCE,
        },
        "required": ["id", "object", "created", "model", "choices", "usage", "infill"],
    }


class OpenAI(Protocol):
    """The adapter of OpenAI's protocol."""

    name = "openai"
    title = "OpenAI, DeepSeek"
    paths = ("/v1/completions", "/beta/completions", "/beta/v1/completions")
    takes_ids = True
    fields: ClassVar[Fields] = FIELDS
    whole_schema: ClassVar[Schema] = answer_schema(
        "text_completion",
        {
            "type": "object",
            "properties": {
                "index": {"const": 0},
                "text": {"type": "string"},
                "logprobs": {"type": "null"},
                "finish_reason": REASON,
            },
            "required": ["index", "text", "logprobs", "finish_reason"],
        },
    )

    def read(self, body: Mapping[str, Any], max_new_tokens: int) -> CompletionRequest:
        return read_request(body, max_new_tokens)

    def whole(self, answer: OngoingAnswer, outcome: PartialAnswer) -> dict[str, Any]:
        choices = [choice(outcome.text, outcome.reason)]
        return answer.head.completion(choices, usage=outcome.counts(answer), infill=answer.provenance)

    def piece(self, answer: OngoingAnswer, delta: Delta, *, first: bool) -> dict[str, Any] | None:
        if not (first or delta.text or delta.finish_reason):
            return None
        more = {"infill": answer.provenance} if first else {}
        return answer.head.completion([choice(delta.text, delta.finish_reason)], **more)

    def last(self, answer: OngoingAnswer, outcome: PartialAnswer) -> Iterable[dict[str, Any]]:
        if answer.request.sampling.include_usage:
            yield answer.head.completion([], usage=outcome.counts(answer))
