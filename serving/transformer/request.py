"""A completion request as editors send it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from infill.prompt import FimRequest
from infill.text import clean
from serving.protocol import (
    SAMPLING_FIELDS,
    Sampling,
    invalid,
    is_token,
    read_list,
    read_sampling,
    read_text,
    unknown_fields,
)

UNTITLED: Final = "untitled"
"""The path of a file without one: each file in the training data had a path."""
FIELDS: Final = SAMPLING_FIELDS | {
    *("prompt", "suffix", "path", "context"),
    *("recent", "project", "session", "user", "model", "tokenizer"),
}
MAX_PATH_CHARS: Final = 4_096
MAX_DOCUMENTS: Final = 20_000
MAX_RECENT: Final = 100
MAX_IDS: Final = 1_000_000
PARTS: Final = ("suffix", "path", "context", "recent")
"""Fields that a prompt of token ids holds already."""


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    fim: FimRequest
    """The caret; its context is still empty."""
    ids: tuple[int, ...] = ()
    """The whole prompt, where the client has packed it; the caret is then empty."""
    tokenizer: str = ""
    """Digest of the tokenizer and format that made the ids; empty when the client does not say."""
    documents: tuple[tuple[str, str], ...]
    """Path and text of the project's other files."""
    recent: tuple[str, ...] = ()
    """Paths of files that were recently opened or edited, the latest first."""
    session: str
    """Whose prompts follow each other; empty when the client does not say."""
    project: str = ""
    """Whose other files follow each other; empty takes those of the same paths."""
    sampling: Sampling
    warnings: tuple[str, ...] = ()
    """What the client is told about its request."""


def read_request(body: Mapping[str, Any], max_new_tokens: int) -> CompletionRequest:
    """The request in a JSON object. Raises ApiError 400 that names the field at fault."""
    sampling = read_sampling(body, Sampling(max_tokens=max_new_tokens, temperature=0.0))
    ids = _ids(body)
    return CompletionRequest(
        fim=FimRequest(
            path=_path(read_text(body, "path", UNTITLED, MAX_PATH_CHARS), "path"),
            prefix="" if ids else _prompt(body),
            suffix=read_text(body, "suffix"),
        ),
        ids=ids,
        tokenizer=read_text(body, "tokenizer", limit=512),
        documents=_documents(body),
        recent=_recent(body),
        project=read_text(body, "project", limit=512),
        session=read_text(body, "session", limit=512) or read_text(body, "user", limit=512),
        sampling=replace(sampling, max_tokens=min(sampling.max_tokens, max_new_tokens)),
        warnings=tuple(unknown_fields(body, FIELDS)),
    )


def _ids(body: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the prompt as token ids, which like OpenAI we take as a list; nothing where the prompt is text."""
    prompt = body.get("prompt")
    if not isinstance(prompt, list) or not prompt or not all(map(is_token, prompt)):
        return ()
    if len(prompt) > MAX_IDS:
        raise invalid(f"'prompt' has {len(prompt):,} token ids, at most {MAX_IDS:,} are allowed", "prompt")
    for name in PARTS:
        if body.get(name):
            raise invalid(f"{name!r} cannot be sent beside a 'prompt' of token ids, which must hold it already", name)
    return tuple(prompt)


def _prompt(body: Mapping[str, Any]) -> str:
    """The text before the caret; like OpenAI we also take a list of one string."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        what = "'prompt' must be the text before the caret, one string, or a whole prompt as a list of token ids"
        raise invalid(what, "prompt", "invalid_type")
    return clean(prompt)


def _path(path: str, name: str) -> str:
    path = path.replace("\\", "/").removeprefix("./") or UNTITLED
    if "\n" in path or "\r" in path:
        raise invalid(f"{name!r} must not contain a line break", name)
    return path


def _is_document(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("path"), str) and isinstance(value.get("text"), str)


def _documents(body: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    what = 'objects {"path": string, "text": string}'
    documents = read_list(body, "context", _is_document, what, MAX_DOCUMENTS)
    return tuple((_path(clean(each["path"]), "context"), clean(each["text"])) for each in documents)


def _recent(body: Mapping[str, Any]) -> tuple[str, ...]:
    paths = read_list(body, "recent", lambda item: isinstance(item, str), "paths", MAX_RECENT)
    return tuple(_path(clean(path), "recent") for path in paths)
