"""The fields of requests: one table for the server, for `/openapi.json` and for the docs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from serving.protocol import MAX_STOP_CHARS, MAX_STOP_IDS, MAX_TOKEN

MAX_PATH_CHARS: Final = 4_096
MAX_NAME_CHARS: Final = 512
MAX_DOCUMENTS: Final = 20_000
MAX_RECENT: Final = 100
NAME_PATTERN: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
"""The names that clients may give their workspaces."""
NAME: Final = re.compile(NAME_PATTERN)

Schema = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field of a JSON object. null is accepted wherever a field may be absent."""

    about: str
    """Description for people."""
    schema: Schema
    """JSON schema of the field's values; {} where it is ignored."""
    required: bool = False


Fields = Mapping[str, Field]


def field(about: str, kind: str, **rules: Any) -> Field:
    """Return an optional field of the JSON type `kind`."""
    return Field(about=about, schema={"type": [kind, "null"], **rules})


def required(about: str, kind: str, **rules: Any) -> Field:
    """Return a required field of the JSON type `kind`."""
    return Field(about=about, schema={"type": kind, **rules}, required=True)


def ignored(*names: str) -> dict[str, Field]:
    """Return fields that clients of other servers send and that have no effect here, whatever they hold."""
    return {name: Field(about="ignored", schema={}) for name in names}


def only(about: str, *values: Any) -> Field:
    """Return a field that accepts only `values`, which have no effect."""
    return Field(about=about, schema={"enum": [*values, None]})


def object_schema(fields: Fields) -> dict[str, Any]:
    """Return the JSON schema of an object with these fields; it accepts unknown ones too."""
    properties = {name: {**each.schema, "description": each.about} for name, each in fields.items()}
    names = [name for name, each in fields.items() if each.required]
    return {"type": "object", "properties": properties, **({"required": names} if names else {})}


PATH_SCHEMA: Final[Schema] = {"maxLength": MAX_PATH_CHARS, "pattern": r"^[^\n\r]*$"}

MAX_TOKENS: Final = field(
    "maximum number of new tokens; the server's limit is the default and the upper bound", "integer"
)
TEMPERATURE: Final = field(
    "sampling temperature; 0, the default, takes the most probable token", "number", minimum=0, maximum=2
)
TOP_P: Final = field("sample from the most probable tokens with this total probability", "number", minimum=0, maximum=1)
SEED: Final = field("seed of the sampling", "integer")
STOP: Final = Field(
    about=f"strings at which to stop, at most {MAX_STOP_CHARS:,} characters together; the text ends before the first",
    schema={"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": {"type": "string"}}]},
)
STREAM: Final = field("whether the answer is streamed", "boolean")
MODEL: Final = ignored("model")

SAMPLING: Final[Fields] = {
    "max_tokens": Field(about=MAX_TOKENS.about, schema={**MAX_TOKENS.schema, "minimum": 1}),
    "max_completion_tokens": field("the newer name of `max_tokens`; takes precedence over it", "integer", minimum=1),
    "temperature": TEMPERATURE,
    "top_p": TOP_P,
    "seed": SEED,
    "stop": STOP,
    "stop_token_ids": field(
        "token ids at which to stop",
        "array",
        items={"type": "integer", "minimum": 0, "maximum": MAX_TOKEN},
        maxItems=MAX_STOP_IDS,
    ),
    "ignore_eos": field("continue past the model's own end of text", "boolean"),
    "stream": STREAM,
    "stream_options": Field(
        about="`include_usage`: whether a stream ends with a chunk that contains the usage",
        schema={"type": ["object", "null"], "properties": {"include_usage": {"type": ["boolean", "null"]}}},
    ),
    "n": only("1", 1),
    "best_of": only("1", 1),
    "echo": only("false", False),
    "logprobs": only("false", False),
    "logit_bias": Field(about="empty", schema={"type": ["object", "null"], "maxProperties": 0}),
    "frequency_penalty": only("0", 0),
    "presence_penalty": only("0", 0),
}
"""The fields that `serving.protocol.read_sampling` reads."""

ADDITIONS: Final[Fields] = {
    "path": field("the file's path in its project; it is part of the prompt", "string", **PATH_SCHEMA),
    "recent": field(
        "paths of files that were recently opened or edited, latest first",
        "array",
        items={"type": "string", "pattern": PATH_SCHEMA["pattern"]},
        maxItems=MAX_RECENT,
    ),
    "session": field("name of the editor window; its prompts share the KV cache", "string", maxLength=MAX_NAME_CHARS),
    "project": field(
        "name of the project whose files come as context, so that its index is kept", "string", maxLength=MAX_NAME_CHARS
    ),
    "stop_at_unit": field(
        "whether an answer ends where its syntactic unit does, and before it repeats the suffix; true by default",
        "boolean",
    ),
}
"""Our own fields, which every protocol accepts in addition to its own."""

DOCUMENTS: Final = field(
    'the project\'s other files, `{"path", "text"}`; with `workspace`: the unsaved ones, for this request only',
    "array",
    items={
        "type": "object",
        "properties": {"path": {"type": "string", "pattern": PATH_SCHEMA["pattern"]}, "text": {"type": "string"}},
        "required": ["path", "text"],
    },
    maxItems=MAX_DOCUMENTS,
)

WORKSPACE: Final = field(
    "name of a workspace whose files the server has (`/v1/workspaces`); one that it does not know is answered with 404",
    "string",
    pattern=f"^({NAME_PATTERN})?$",
)
