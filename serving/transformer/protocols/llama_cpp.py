"""llama.cpp's `/infill`, with which llama.vim and llama.vscode ask for completions and warm the cache."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

from infill.text import clean
from serving.protocol import ApiError, read_integer, read_list, read_number, read_text, unknown_fields
from serving.transformer.answer import OngoingAnswer, PartialAnswer
from serving.transformer.fields import (
    ADDITIONS,
    MAX_DOCUMENTS,
    SAMPLING,
    STREAM,
    TOP_P,
    Fields,
    Schema,
    field,
    ignored,
)
from serving.transformer.protocols.base import Protocol, read_foreign
from serving.transformer.protocols.openai import COUNT, PROVENANCE
from serving.transformer.request import CompletionRequest, additions, join_snippets, one_path
from serving.transformer.upstream import Delta

UNNAMED: Final = "snippet"
"""The path of a snippet that has none."""
MAX_MS: Final = 3_600_000
SAMPLED: Final = ("temperature", "top_p", "seed", "stop", "stream", "ignore_eos")
FOREIGN: Final = (
    *("cache_prompt", "dry_allowed_length", "dry_base", "dry_multiplier", "dry_penalty_last_n", "dynatemp_exponent"),
    *("dry_sequence_breakers", "dynatemp_range", "frequency_penalty", "grammar", "id_slot", "json_schema"),
    *(
        "logit_bias",
        "lora",
        "min_keep",
        "min_p",
        "mirostat",
        "mirostat_eta",
        "mirostat_tau",
        "model",
        "n",
        "n_cache_reuse",
    ),
    *("n_cmpl", "n_discard", "n_keep", "n_probs", "post_sampling_probs", "presence_penalty", "repeat_last_n"),
    *("repeat_penalty", "return_progress", "return_tokens", "samplers", "t_max_prompt_ms", "timings_per_token"),
    *("top_k", "top_n_sigma", "typical_p", "xtc_probability", "xtc_threshold"),
)


class LlamaCpp(Protocol):
    """The adapter of llama.cpp's protocol."""

    name = "llama.cpp"
    title = "llama.cpp"
    paths = ("/infill",)
    end = b""
    fields: ClassVar[Fields] = {
        "input_prefix": field("the text before the caret's line, or before the caret", "string"),
        "prompt": field("text between `input_prefix` and the caret", "string"),
        "input_suffix": field("the text after the caret", "string"),
        "input_extra": field(
            'snippets of other files, `{"filename", "text"}`; they are ranked and packed like any context',
            "array",
            items={
                "type": "object",
                "properties": {"filename": {"type": ["string", "null"]}, "text": {"type": "string"}},
                "required": ["text"],
            },
            maxItems=MAX_DOCUMENTS,
        ),
        "n_predict": field("maximum number of new tokens; 0 warms the cache and generates nothing", "integer"),
        "n_indent": field("the answer ends before a line that is indented by fewer blanks", "integer", minimum=0),
        "t_max_predict_ms": field(
            "milliseconds of generation after which no new line begins", "number", minimum=0, maximum=MAX_MS
        ),
        "response_fields": field(
            "the fields of the answer to return; `timings/prompt_n` is returned under that name",
            "array",
            items={"type": "string"},
            maxItems=256,
        ),
        **{name: SAMPLING[name] for name in SAMPLED},
        "top_p": TOP_P,
        "stream": STREAM,
        **ADDITIONS,
        **ignored(*FOREIGN),
    }
    whole_schema: ClassVar[Schema] = {
        "type": "object",
        "description": "With `response_fields`, only those fields",
        "properties": {
            "index": {"const": 0},
            "content": {"type": "string"},
            "stop": {"const": True},
            "stop_type": {"enum": ["eos", "limit"]},
            "model": {"type": "string"},
            "tokens_predicted": COUNT,
            "tokens_evaluated": COUNT,
            "tokens_cached": COUNT,
            "truncated": {"type": "boolean"},
            "generation_settings": {"type": "object"},
            "timings": {"type": "object", "additionalProperties": {"type": "number"}},
            "infill": PROVENANCE,
        },
    }

    def read(self, body: Mapping[str, Any], max_new_tokens: int) -> CompletionRequest:
        prefix = read_text(body, "input_prefix") + read_text(body, "prompt")
        request = additions(body, prefix=prefix, suffix=read_text(body, "input_suffix"), documents=_extra(body))
        sampling = {name: body.get(name) for name in SAMPLED}
        wanted = read_list(body, "response_fields", lambda name: isinstance(name, str), "names", 256)
        return replace(
            request,
            sampling=read_foreign(sampling, read_integer(body, "n_predict"), max_new_tokens),
            max_ms=read_number(body, "t_max_predict_ms", 0, 0, MAX_MS),
            min_indent=read_integer(body, "n_indent", 0) or 0,
            reply={"fields": wanted},
            warnings=tuple(unknown_fields(body, self.fields)),
        )

    def whole(self, answer: OngoingAnswer, outcome: PartialAnswer) -> dict[str, Any]:
        counts = outcome.counts(answer)
        body = {
            "index": 0,
            "content": outcome.text,
            "tokens": [],
            "id_slot": 0,
            "stop": True,
            "stop_type": "limit" if outcome.reason == "length" else "eos",
            "stopping_word": "",
            "model": answer.head.model,
            "tokens_predicted": counts["completion_tokens"],
            "tokens_evaluated": counts["prompt_tokens"],
            "tokens_cached": counts["prompt_tokens"],
            "truncated": False,
            "generation_settings": {"n_ctx": answer.context_length},
            "timings": timings(answer, outcome, counts),
            "infill": answer.provenance,
        }
        return chosen(body, answer.request.reply["fields"])

    def piece(self, answer: OngoingAnswer, delta: Delta, *, first: bool) -> dict[str, Any] | None:
        return {"index": 0, "content": delta.text, "tokens": [], "stop": False} if delta.text else None

    def last(self, answer: OngoingAnswer, outcome: PartialAnswer) -> Iterable[dict[str, Any]]:
        yield self.whole(answer, replace(outcome, text=""))

    def error(self, error: ApiError) -> dict[str, Any]:
        return {"error": {"code": error.status, "message": str(error), "type": error.kind}}


def _extra(body: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    what = 'objects {"filename": string, "text": string}'
    extra = read_list(body, "input_extra", _is_snippet, what, MAX_DOCUMENTS)
    return join_snippets(
        (one_path(clean(each.get("filename") or UNNAMED), "input_extra"), clean(each["text"])) for each in extra
    )


def _is_snippet(value: Any) -> bool:
    return (
        isinstance(value, dict) and isinstance(value.get("text"), str) and isinstance(value.get("filename"), str | None)
    )


def timings(answer: OngoingAnswer, outcome: PartialAnswer, counts: Mapping[str, Any]) -> dict[str, float]:
    """Return llama.cpp's timings: tokens and milliseconds of prompt and answer; time in the queue counts as prompt."""
    cached = counts["prompt_tokens_details"]["cached_tokens"]
    return {
        "cache_n": cached,
        **_rates("prompt", counts["prompt_tokens"] - cached, answer.first - answer.asked),
        **_rates("predicted", counts["completion_tokens"], outcome.ended - answer.first),
    }


def _rates(name: str, tokens: int, seconds: float) -> dict[str, float]:
    return {
        f"{name}_n": tokens,
        f"{name}_ms": seconds * 1_000,
        f"{name}_per_token_ms": seconds * 1_000 / max(tokens, 1),
        f"{name}_per_second": tokens / seconds if seconds else 0.0,
    }


def chosen(body: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """Return the fields of `body` that `fields` names, all if it is empty; `a/b` is b of a, returned as `a/b`."""
    if not fields:
        return body
    selected = {}
    for path in fields:
        value: Any = body
        for name in path.split("/"):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            selected[path] = value
    return selected
