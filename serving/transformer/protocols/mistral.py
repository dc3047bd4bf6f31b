"""Mistral's `/v1/fim/completions`: requests like OpenAI's completions, answers like its chat completions."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

from serving.protocol import ApiError, read_integer, read_text, unknown_fields
from serving.transformer.answer import OngoingAnswer, PartialAnswer
from serving.transformer.fields import MAX_NAME_CHARS, SEED, Fields, Schema, field, ignored
from serving.transformer.protocols.base import Protocol
from serving.transformer.protocols.openai import REASON, answer_schema
from serving.transformer.request import FIELDS, CompletionRequest, join_snippets, one_path, read_request
from serving.transformer.upstream import Delta

HEADING: Final = re.compile(r"^\+\+\+\+\+ ([^\n]*)\n", re.MULTILINE)
"""The line above each file in Codestral's training format, with which clients put other files into the prompt."""
FOREIGN: Final = ("min_tokens", "metadata", "safe_prompt", "frequency_penalty", "presence_penalty")


class Mistral(Protocol):
    """The adapter of Mistral's protocol."""

    name = "mistral"
    title = "Mistral"
    paths = ("/v1/fim/completions",)
    takes_ids = True
    fields: ClassVar[Fields] = {
        **FIELDS,
        "random_seed": SEED,
        "prompt_cache_key": field("used as `session` where that is absent", "string", maxLength=MAX_NAME_CHARS),
        **ignored(*FOREIGN),
    }
    whole_schema: ClassVar[Schema] = answer_schema(
        "chat.completion",
        {
            "type": "object",
            "properties": {
                "index": {"const": 0},
                "message": {
                    "type": "object",
                    "properties": {"role": {"const": "assistant"}, "content": {"type": "string"}},
                    "required": ["role", "content"],
                },
                "finish_reason": REASON,
            },
            "required": ["index", "message", "finish_reason"],
        },
    )

    def read(self, body: Mapping[str, Any], max_new_tokens: int) -> CompletionRequest:
        fields = {name: value for name, value in body.items() if name not in FOREIGN}
        random_seed = read_integer(body, "random_seed")
        if fields.get("seed") is None:
            fields["seed"] = random_seed
        request = read_request(fields, max_new_tokens)
        if not body.get("path") and not request.documents:
            request = with_files(request)
        session = request.session or read_text(body, "prompt_cache_key", limit=MAX_NAME_CHARS)
        return replace(request, session=session, warnings=tuple(unknown_fields(body, self.fields)))

    def whole(self, answer: OngoingAnswer, outcome: PartialAnswer) -> dict[str, Any]:
        message = {"role": "assistant", "content": outcome.text, "tool_calls": None, "prefix": False}
        choices = [{"index": 0, "message": message, "finish_reason": outcome.reason}]
        body = answer.head.completion(choices, usage=outcome.counts(answer), infill=answer.provenance)
        return body | {"object": "chat.completion"}

    def piece(self, answer: OngoingAnswer, delta: Delta, *, first: bool) -> dict[str, Any] | None:
        if not (first or delta.text):
            return None
        role = {"role": "assistant"} if first else {}
        return _chunk(answer, {**role, "content": delta.text}, None, infill=answer.provenance if first else None)

    def last(self, answer: OngoingAnswer, outcome: PartialAnswer) -> Iterable[dict[str, Any]]:
        yield _chunk(answer, {"content": ""}, outcome.reason, usage=outcome.counts(answer))

    def error(self, error: ApiError) -> dict[str, Any]:
        flat = {"object": "error", "message": str(error), "type": error.kind, "param": error.param, "code": error.code}
        return flat | error.body()


def _chunk(answer: OngoingAnswer, delta: Mapping[str, Any], reason: str | None, **more: Any) -> dict[str, Any]:
    body = answer.head.completion([{"index": 0, "delta": delta, "finish_reason": reason}])
    return body | {"object": "chat.completion.chunk"} | {name: value for name, value in more.items() if value}


def with_files(request: CompletionRequest) -> CompletionRequest:
    """Return `request` with the files in its prompt, each below a heading, moved to the context.

    Only a prompt that begins with such a heading is split; its last file is the current one.
    """
    prompt = request.fim.prefix
    headings = list(HEADING.finditer(prompt))
    if not headings or headings[0].start() != 0:
        return request
    ends = [after.start() for after in headings[1:]]
    files = [
        (one_path(each[1].strip(), "prompt"), prompt[each.end() : end].removesuffix("\n\n"))
        for each, end in zip(headings, ends, strict=False)
    ]
    current = replace(
        request.fim, path=one_path(headings[-1][1].strip(), "prompt"), prefix=prompt[headings[-1].end() :]
    )
    return replace(request, fim=current, documents=join_snippets(files))
