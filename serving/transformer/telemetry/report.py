"""A client's report of a suggestion: the fields of `/v1/events`, Tabby's and our own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from infill.feedback.feedback_row import ITEM, OUTCOMES, is_item, plain
from serving.protocol import invalid, read_flag, read_integer, read_list, read_text
from serving.transformer.fields import MAX_NAME_CHARS, MAX_PATH_CHARS, Field, Fields, field, required
from serving.transformer.request import one_path

VIEW, SELECT, DISMISS, PERSIST, TYPE, FEEDBACK = "view", "select", "dismiss", "persist", "type", "feedback"
KINDS: Final = (VIEW, SELECT, DISMISS, PERSIST, TYPE, FEEDBACK)
PARTS: Final = ("word", "line", "all")
AFTER_S: Final = (15, 30, 120)
"""Seconds after which clients look what is left of an accepted suggestion."""
MAX_TYPED: Final = 100_000
"""Characters that one report may claim to have been typed."""
MAX_SIDE_CHARS: Final = 100_000
"""Characters of the file on each side of the caret."""
MAX_TEXT_CHARS: Final = 20_000
MAX_ITEMS: Final = 200

_JSON: Final = {str: "string", int: "integer", float: "number"}

FIELDS: Final[Fields] = {
    "type": required(
        "`view`: shown; `select`: accepted; `dismiss`: rejected; `persist`: what is left of it; `type`: characters "
        "written; `feedback`: what the user made of it, for the dataset. Any other is counted as `other`",
        "string",
    ),
    "completion_id": field("the `id` of the answer", "string", maxLength=MAX_NAME_CHARS),
    "choice_index": field("0", "integer"),
    "view_id": field("id of one display of the suggestion", "string", maxLength=MAX_NAME_CHARS),
    "elapsed": field("elapsed milliseconds", "integer", minimum=0),
    "select_kind": field("`select`: what was taken, `word`, `line` or `all` (the default)", "string"),
    "accepted_chars": field("`select`: characters of the suggestion taken so far", "integer", minimum=1),
    "after_s": field("`persist`: seconds since it was accepted: 15, 30 or 120", "integer"),
    "kept_chars": field("`persist`: how many of the accepted characters are left", "integer", minimum=0),
    "typed_chars": field(
        "`type`: characters written since the last report, by hand or by completion",
        "integer",
        minimum=0,
        maximum=MAX_TYPED,
    ),
    "language": field("`type`, `feedback`: the file's language, as `python`", "string", maxLength=MAX_NAME_CHARS),
    "consent": field("`feedback`: true: the user has agreed that this is kept", "boolean"),
    "outcome": field(f"`feedback`: {' or '.join(f'`{each}`' for each in OUTCOMES)}", "string"),
    "path": field("`feedback`: the file's path in its project", "string", maxLength=MAX_PATH_CHARS),
    "prefix": field("`feedback`: the text before the caret", "string", maxLength=MAX_SIDE_CHARS),
    "suffix": field("`feedback`: the text after it", "string", maxLength=MAX_SIDE_CHARS),
    "context": Field(
        about="`feedback`: the context items that were in the prompt, the best last: "
        + ", ".join(f"`{name}`" for name in ITEM),
        schema={
            "type": ["array", "null"],
            "items": {
                "type": "object",
                "properties": {name: {"type": _JSON[kind]} for name, kind in ITEM.items()},
                "required": [*ITEM],
            },
            "maxItems": MAX_ITEMS,
        },
    ),
    "shown": field("`feedback`: the suggestion as it was shown", "string", maxLength=MAX_TEXT_CHARS),
    "final": field("`feedback`: the text in its place two minutes later", "string", maxLength=MAX_TEXT_CHARS),
}


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """A suggestion with its surroundings, and what the user made of it."""

    consent: bool
    outcome: str
    path: str
    prefix: str
    suffix: str
    context: tuple[Mapping[str, Any], ...]
    shown: str
    final: str | None


@dataclass(frozen=True, kw_only=True)
class EventReport:
    """One event."""

    kind: str
    completion: str
    part: str
    accepted: int | None
    after_s: int | None
    kept: int | None
    typed: int | None
    language: str
    feedback: Feedback | None


def read(body: Mapping[str, Any]) -> EventReport:
    """Return the event in a body. Raises ApiError 400, which names the invalid field."""
    kind = body.get("type")
    if not isinstance(kind, str):
        raise invalid("'type' must be a string", "type", "invalid_type")
    read_text(body, "view_id", limit=MAX_NAME_CHARS)
    read_integer(body, "choice_index")
    read_integer(body, "elapsed", low=0)
    typed = read_integer(body, "typed_chars", low=0)
    if typed is not None and typed > MAX_TYPED:
        raise invalid(f"'typed_chars' must be at most {MAX_TYPED}, got {typed}", "typed_chars")
    part = read_text(body, "select_kind")
    feedback = _read_feedback(body)
    return EventReport(
        kind=kind,
        completion=read_text(body, "completion_id", limit=MAX_NAME_CHARS),
        part=part if part in PARTS else "all",
        accepted=read_integer(body, "accepted_chars", low=1),
        after_s=read_integer(body, "after_s"),
        kept=read_integer(body, "kept_chars", low=0),
        typed=typed,
        language=read_text(body, "language", limit=MAX_NAME_CHARS),
        feedback=feedback if kind == FEEDBACK else None,
    )


def _read_feedback(body: Mapping[str, Any]) -> Feedback:
    what = "objects with " + ", ".join(ITEM)
    final = read_text(body, "final", limit=MAX_TEXT_CHARS)
    return Feedback(
        consent=read_flag(body, "consent"),
        outcome=read_text(body, "outcome"),
        path=one_path(read_text(body, "path", limit=MAX_PATH_CHARS), "path"),
        prefix=read_text(body, "prefix", limit=MAX_SIDE_CHARS),
        suffix=read_text(body, "suffix", limit=MAX_SIDE_CHARS),
        context=tuple(read_list(body, "context", is_item, what, MAX_ITEMS)),
        shown=plain(read_text(body, "shown", limit=MAX_TEXT_CHARS)),
        final=None if body.get("final") is None else plain(final),
    )
