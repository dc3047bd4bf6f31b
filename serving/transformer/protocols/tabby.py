"""Tabby's `/v1/completions`: the caret and the editor's snippets in `segments`; never streamed."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

from infill.context.identity import normalised
from infill.text import clean
from serving.protocol import invalid, read_flag, read_list, read_text, unknown_fields
from serving.transformer.answer import OngoingAnswer, PartialAnswer
from serving.transformer.fields import (
    ADDITIONS,
    MAX_DOCUMENTS,
    MAX_NAME_CHARS,
    MAX_PATH_CHARS,
    PATH_SCHEMA,
    SEED,
    TEMPERATURE,
    Field,
    Fields,
    Schema,
    field,
    ignored,
    object_schema,
    only,
    required,
)
from serving.transformer.protocols.base import Protocol, read_foreign, read_object
from serving.transformer.protocols.openai import PROVENANCE
from serving.transformer.request import UNTITLED, CompletionRequest, additions, join_snippets, one_path

SNIPPETS: Final = field(
    'parts of other files, `{"filepath", "body"}`; they are ranked and packed like any context',
    "array",
    items={
        "type": "object",
        "properties": {
            "filepath": {"type": "string", "pattern": PATH_SCHEMA["pattern"]},
            "body": {"type": "string"},
        },
        "required": ["filepath", "body"],
    },
    maxItems=MAX_DOCUMENTS,
)
LISTS: Final = (
    "declarations",
    "relevant_snippets_from_changed_files",
    "relevant_snippets_from_recently_opened_files",
)
SEGMENTS: Final[Fields] = {
    "prefix": required("the text before the caret", "string"),
    "suffix": field("the text after the caret", "string"),
    "filepath": field("the file's path in its project, or a file URI", "string", **PATH_SCHEMA),
    **dict.fromkeys(LISTS, SNIPPETS),
    **ignored("git_url", "clipboard"),
}
DEBUG: Final[Fields] = {
    "raw_prompt": only("null", None),
    "return_snippets": field("whether `debug_data.snippets` lists the packed snippets", "boolean"),
    "disable_retrieval_augmented_code_completion": field("whether to leave the snippets out", "boolean"),
    **ignored("return_prompt"),
}


class Tabby(Protocol):
    """The adapter of Tabby's protocol."""

    name = "tabby"
    title = "Tabby"
    paths = ("/v1/completions",)
    media_type = ""
    fields: ClassVar[Fields] = {
        "segments": Field(about="the caret and what the editor knows", schema=object_schema(SEGMENTS), required=True),
        "temperature": TEMPERATURE,
        "seed": SEED,
        "user": field("used as `session` where that is absent", "string", maxLength=MAX_NAME_CHARS),
        "debug_options": Field(
            about="`return_snippets`, `disable_retrieval_augmented_code_completion`",
            schema={**object_schema(DEBUG), "type": ["object", "null"]},
        ),
        **{name: each for name, each in ADDITIONS.items() if name != "path"},
        **ignored("language", "mode"),
    }
    whole_schema: ClassVar[Schema] = {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "choices": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"index": {"const": 0}, "text": {"type": "string"}},
                    "required": ["index", "text"],
                },
                "minItems": 1,
                "maxItems": 1,
            },
            "debug_data": {"type": "object"},
            "infill": PROVENANCE,
        },
        "required": ["id", "choices", "infill"],
    }

    def claims(self, body: Mapping[str, Any]) -> bool:
        return "segments" in body

    def read(self, body: Mapping[str, Any], max_new_tokens: int) -> CompletionRequest:
        segments, debug = read_object(body, "segments"), read_object(body, "debug_options")
        if not isinstance(segments.get("prefix"), str):
            raise invalid("'segments' must hold 'prefix', the text before the caret", "segments", "invalid_type")
        if debug.get("raw_prompt") is not None:
            raise invalid(
                "'debug_options.raw_prompt' is not supported: send 'segments'", "debug_options", "unsupported_value"
            )
        bare = read_flag(debug, "disable_retrieval_augmented_code_completion")
        documents = () if bare else join_snippets(_snippets(segments))
        fields = {name: value for name, value in body.items() if name != "path"}
        request = additions(
            fields, prefix=read_text(segments, "prefix"), suffix=read_text(segments, "suffix"), documents=documents
        )
        sampling = {name: body.get(name) for name in ("temperature", "seed")}
        path = read_text(segments, "filepath", UNTITLED, MAX_PATH_CHARS) or UNTITLED
        return replace(
            request,
            fim=replace(request.fim, path=one_path(_plain(path), "filepath")),
            session=request.session or read_text(body, "user", limit=MAX_NAME_CHARS),
            sampling=read_foreign(sampling, None, max_new_tokens),
            reply={"snippets": read_flag(debug, "return_snippets")},
            warnings=tuple(unknown_fields(body, self.fields)),
        )

    def whole(self, answer: OngoingAnswer, outcome: PartialAnswer) -> dict[str, Any]:
        body: dict[str, Any] = {"id": answer.head.id, "choices": [{"index": 0, "text": outcome.text}]}
        if answer.request.reply["snippets"]:
            items = answer.packed.prompt.items
            snippets = [{"filepath": item.path, "body": item.text, "score": item.score} for item in items]
            body["debug_data"] = {"snippets": snippets, "prompt": None}
        return body | {"infill": answer.provenance}


def _snippets(segments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in LISTS:
        what = 'objects {"filepath": string, "body": string}'
        for each in read_list(segments, name, _is_snippet, what, MAX_DOCUMENTS):
            yield one_path(_plain(clean(each["filepath"])), name), clean(each["body"])


def _is_snippet(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("filepath"), str) and isinstance(value.get("body"), str)


def _plain(path: str) -> str:
    """Return the path in a file URI; return any other path unchanged."""
    return normalised(path) if path.startswith("file://") else path
