"""A completion request, common to all protocols, and the readers that they share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as field_of
from typing import Any, Final

from infill.prompt import FimRequest
from infill.text import clean
from serving.protocol import (
    Sampling,
    integral,
    invalid,
    is_token,
    read_flag,
    read_list,
    read_sampling,
    read_text,
    unknown_fields,
)
from serving.transformer.fields import (
    ADDITIONS,
    DOCUMENTS,
    MAX_DOCUMENTS,
    MAX_NAME_CHARS,
    MAX_PATH_CHARS,
    MAX_RECENT,
    MODEL,
    NAME,
    SAMPLING,
    WORKSPACE,
    Field,
    Fields,
    field,
)

UNTITLED: Final = "untitled"
"""The path of a file that has none, since every file in the training data has a path."""
FIELDS: Final[Fields] = {
    "prompt": Field(
        about="the text before the caret; or a packed prompt as a list of token ids, without `suffix`, `path`, "
        "`context`, `recent` and `workspace`",
        schema={
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1}]
        },
        required=True,
    ),
    "suffix": field("the text after the caret", "string"),
    "context": DOCUMENTS,
    "workspace": WORKSPACE,
    **{name: ADDITIONS[name] for name in ("path", "recent", "session", "project", "stop_at_unit")},
    "tokenizer": field(
        "with token ids: the digest of the tokenizer that made them; one that is not the server's is answered with 409",
        "string",
        maxLength=MAX_NAME_CHARS,
    ),
    "language": field(
        "the file's language for metrics, as `python`; by default its path tells it", "string", maxLength=MAX_NAME_CHARS
    ),
    "user": field("used as `session` where that is absent", "string", maxLength=MAX_NAME_CHARS),
    **SAMPLING,
    **MODEL,
}
"""The fields of OpenAI's protocol and our own."""
MAX_IDS: Final = 1_000_000
DEFAULT_SAMPLING: Final = Sampling()
PARTS: Final = ("suffix", "path", "context", "recent", "workspace")
"""Fields whose content is already in a prompt of token ids."""


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """A request in any protocol."""

    fim: FimRequest
    """The caret, with an empty context."""
    ids: tuple[int, ...] = ()
    """The whole prompt if the client has packed it; the caret is then empty."""
    tokenizer: str = ""
    """Digest of the tokenizer and format that made the ids; empty when the client does not say."""
    documents: tuple[tuple[str, str], ...]
    """Path and text of the project's other files; with a workspace, of those that differ from it."""
    workspace: str = ""
    """Name of the workspace that has the project's files; empty if the request has them."""
    recent: tuple[str, ...] = ()
    """Paths of files that were recently opened or edited, latest first."""
    session: str
    """Name of the editor session, whose prompts share the KV cache; empty when the client sends none."""
    language: str = ""
    """The file's language, if the client names it; empty takes the path's."""
    project: str = ""
    """Name of the project, whose index is kept; empty identifies the project by its paths."""
    sampling: Sampling
    """Sampling settings; `max_tokens` 0 computes the prompt for the KV cache and generates nothing."""
    max_ms: float = 0.0
    """Milliseconds of generation after which no new line begins; 0 sets no limit."""
    stop_at_unit: bool = True
    """Whether the answer is truncated by its syntax; see `infill.truncation`."""
    min_indent: int = 0
    """Least indentation in blanks; the answer ends before the first line with less."""
    reply: Mapping[str, Any] = field_of(default_factory=dict)
    """Parts of the request that the protocol needs to write the answer."""
    warnings: tuple[str, ...] = ()
    """Warnings about the request, for the client."""

    @property
    def chars(self) -> int:
        """The number of characters of all texts."""
        return len(self.fim.prefix) + len(self.fim.suffix) + sum(len(text) for _, text in self.documents)


def read_request(body: Mapping[str, Any], max_new_tokens: int) -> CompletionRequest:
    """Return the request in a JSON object of OpenAI's protocol. Raises ApiError 400, which names the invalid field."""
    sampling = read_sampling(body, Sampling(max_tokens=max_new_tokens, temperature=0.0))
    if sampling.max_tokens > max_new_tokens:
        sampling = replace(sampling, max_tokens=max_new_tokens)
    ids = _ids(body)
    if body.get("session") in (None, ""):
        body = {**body, "session": read_text(body, "user", limit=MAX_NAME_CHARS)}
    return additions(
        body,
        prefix="" if ids else _prompt(body),
        suffix=read_text(body, "suffix"),
        documents=_documents(body),
        ids=ids,
        workspace=_workspace(body),
        tokenizer=read_text(body, "tokenizer", limit=MAX_NAME_CHARS),
        language=read_text(body, "language", limit=MAX_NAME_CHARS),
        sampling=sampling,
        warnings=tuple(unknown_fields(body, FIELDS)),
    )


def _workspace(body: Mapping[str, Any]) -> str:
    name = read_text(body, "workspace")
    if name and not NAME.fullmatch(name):
        raise invalid(f"'workspace' must be a name that matches {NAME.pattern}, got {name[:80]!a}", "workspace")
    return name


def _ids(body: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the prompt's token ids if it is a list of them, as OpenAI allows; empty if the prompt is text."""
    prompt = body.get("prompt")
    if not isinstance(prompt, list) or not prompt:
        return ()
    if not all(map(is_token, prompt)) and not all(map(is_token, prompt := integral(prompt))):
        return ()
    if len(prompt) > MAX_IDS:
        raise invalid(f"'prompt' has {len(prompt):,} token ids, at most {MAX_IDS:,} are allowed", "prompt")
    for name in PARTS:
        if body.get(name):
            raise invalid(
                f"{name!r} cannot be combined with a 'prompt' of token ids, which must already contain it", name
            )
    return tuple(prompt)


def additions(
    body: Mapping[str, Any],
    *,
    prefix: str,
    suffix: str,
    documents: tuple[tuple[str, str], ...] = (),
    sampling: Sampling = DEFAULT_SAMPLING,
    **more: Any,
) -> CompletionRequest:
    """Return a request for a caret with our own fields, common to all protocols, and `more` fields of the request.

    Raises ApiError 400, which names the invalid field.
    """
    return CompletionRequest(
        fim=FimRequest(
            path=one_path(read_text(body, "path", UNTITLED, MAX_PATH_CHARS), "path"), prefix=prefix, suffix=suffix
        ),
        documents=documents,
        recent=_recent(body),
        project=read_text(body, "project", limit=MAX_NAME_CHARS),
        session=read_text(body, "session", limit=MAX_NAME_CHARS),
        stop_at_unit=read_flag(body, "stop_at_unit", default=True),
        sampling=sampling,
        **more,
    )


def join_snippets(snippets: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return path and text of each file in `snippets`, which are (path, text), joining those of one path in order."""
    files: dict[str, list[str]] = {}
    for path, text in snippets:
        files.setdefault(path, []).append(text)
    return tuple((path, "\n".join(parts)) for path, parts in files.items())


def _prompt(body: Mapping[str, Any]) -> str:
    """Return the text before the caret; like OpenAI, also accept a list of one string."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        what = "'prompt' must be the text before the caret, one string, or a whole prompt as a list of token ids"
        raise invalid(what, "prompt", "invalid_type")
    return clean(prompt)


def one_path(path: str, name: str) -> str:
    """Return `path` with forward slashes, or `untitled` if it is empty. Raises ApiError 400 for a line break."""
    path = path.replace("\\", "/").removeprefix("./") or UNTITLED
    if "\n" in path or "\r" in path:
        raise invalid(f"{name!r} must not contain a line break", name)
    return path


def _is_document(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("path"), str) and isinstance(value.get("text"), str)


def _documents(body: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    what = 'objects {"path": string, "text": string}'
    documents = read_list(body, "context", _is_document, what, MAX_DOCUMENTS)
    return tuple((one_path(clean(each["path"]), "context"), clean(each["text"])) for each in documents)


def _recent(body: Mapping[str, Any]) -> tuple[str, ...]:
    paths = read_list(body, "recent", lambda item: isinstance(item, str), "paths", MAX_RECENT)
    return tuple(one_path(clean(path), "recent") for path in paths)
