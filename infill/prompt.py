"""The prompt format: special tokens, their order, and the one function that renders a request to token ids.

    ( <filename>{path}\\n{content}\\n )*  <filename>{path}\\n<fim_suffix>{suffix}<fim_prefix>{prefix}<fim_middle>

That is Infill's own format and Mellum's (model card of Mellum-4b-base). The formats of published base models are other
values of the same data type. Pre-training, SFT, DPO, evaluation and serving all call `render`.

Text is never parsed for special tokens: an `Encoder` has none in its vocabulary, control tokens enter as ids only.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tokenizers import Tokenizer

from infill.errors import InputError

Encode = Callable[[str], list[int]]
"""Text to token ids, never parsing special tokens."""

FILE_NAME: Final = "prompt_format.json"
VERSION: Final = 1
"""Raised whenever `render` would give other ids for the same request; a server refuses a version it does not know."""

RESERVED_TOKENS: Final = (
    "<|endoftext|>",
    "<fim_prefix>",
    "<fim_middle>",
    "<fim_suffix>",
    "<fim_pad>",
    "<filename>",
    *(f"<reserved_{number}>" for number in range(6, 32)),
)
"""The first ids of our tokenizer, in order (Mellum's first six, then a block kept for later)."""

CHARS_PER_TOKEN: Final = 16
"""Text beyond this many characters per token of its room is cut before it is encoded, so that 10 MB cost nothing."""
MAX_PATH_SHARE: Final = 0.25
"""A path longer than this share of the budget keeps its end."""


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    name: str
    """Family: infill, mellum, starcoder2 or qwen2.5-coder."""
    version: int = VERSION
    order: Literal["spm", "psm"] = "spm"
    """Suffix, prefix, middle; or prefix, suffix, middle."""
    endoftext: int
    fim_prefix: int
    fim_middle: int
    fim_suffix: int
    fim_pad: int
    filename: int
    """Ids of the tokens by their role; `filename` is the one that opens each file (<file_sep> in two families)."""
    item_end: str = "\n"
    """What stands after a context item's text."""
    path_in_prefix: bool = False
    """Whether the current file's path stands after the prefix token (StarCoder2) rather than before all three."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a middle: end of text, the next file, or any other control token."""
        return tuple(
            dict.fromkeys(
                (self.endoftext, self.filename, self.fim_pad, self.fim_prefix, self.fim_middle, self.fim_suffix)
            )
        )

    @property
    def hash(self) -> str:
        """SHA-256 over all fields, in the deployment record and the model's tags."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PromptFormat":
        """The inverse of `to_json`. Raises InputError for other fields or a version unknown to this code."""
        try:
            read = cls(**value)
        except TypeError as error:
            raise InputError(f"{FILE_NAME} is not a prompt format of this version of Infill: {error}") from error
        if read.version != VERSION:
            raise InputError(
                f"the prompt format has version {read.version}, this code renders version {VERSION}; "
                "use the release of Infill that trained the model"
            )
        return read


FAMILIES: Final[tuple[tuple[str, Mapping[str, str], Mapping[str, Any]], ...]] = (
    (
        "qwen2.5-coder",
        {
            "endoftext": "<|endoftext|>",
            "fim_prefix": "<|fim_prefix|>",
            "fim_middle": "<|fim_middle|>",
            "fim_suffix": "<|fim_suffix|>",
            "fim_pad": "<|fim_pad|>",
            "filename": "<|file_sep|>",
        },
        {"order": "psm"},
    ),
    (
        "starcoder2",
        {
            "endoftext": "<|endoftext|>",
            "fim_prefix": "<fim_prefix>",
            "fim_middle": "<fim_middle>",
            "fim_suffix": "<fim_suffix>",
            "fim_pad": "<fim_pad>",
            "filename": "<file_sep>",
        },
        {"order": "psm", "item_end": "", "path_in_prefix": True},
    ),
    (
        "mellum",
        {
            "endoftext": "<|endoftext|>",
            "fim_prefix": "<fim_prefix>",
            "fim_middle": "<fim_middle>",
            "fim_suffix": "<fim_suffix>",
            "fim_pad": "<fim_pad>",
            "filename": "<filename>",
        },
        {"order": "spm"},
    ),
)
"""Name, token of each role, and what differs from the defaults, for the families of published base models."""


def infill_format() -> PromptFormat:
    """The format of models that Infill trains from scratch: the reserved tokens at their ids."""
    ids = {token: number for number, token in enumerate(RESERVED_TOKENS)}
    roles: dict[str, Any] = {role: ids[token] for role, token in FAMILIES[-1][1].items()}
    return PromptFormat(name="infill", **roles)


def detect_format(tokenizer: Mapping[str, Any]) -> PromptFormat:
    """The format of a published model, from the added tokens of its `tokenizer.json`.

    Raises InputError when the FIM tokens of no known family are all there.
    """
    ids = {token["content"]: int(token["id"]) for token in tokenizer.get("added_tokens", [])}
    for name, roles, differences in FAMILIES:
        if all(token in ids for token in roles.values()):
            fields: dict[str, Any] = {role: ids[token] for role, token in roles.items()}
            return PromptFormat(name=name, **fields, **differences)
    known = ", ".join(name for name, _, _ in FAMILIES)
    raise InputError(
        f"the tokenizer has no fill-in-the-middle tokens of a family we know ({known}); "
        f"choose a base model trained for infilling, or put a {FILE_NAME} beside its tokenizer"
    )


def load_format(folder: Path) -> PromptFormat:
    """The format of the model or tokenizer in `folder`: its `prompt_format.json`, else what its tokenizer tells."""
    if (folder / FILE_NAME).exists():
        try:
            value = json.loads((folder / FILE_NAME).read_text())
        except ValueError as error:
            raise InputError(f"{folder / FILE_NAME} is not valid JSON: {error}") from error
        return PromptFormat.from_json(value)
    return detect_format(_tokenizer_json(folder))


def _tokenizer_json(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer.json"
    try:
        value: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{folder} has no tokenizer.json; save the checkpoint with its fast tokenizer") from error
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON: {error}") from error
    return value


class Encoder:
    """A tokenizer without its special tokens: whatever the text, only ordinary ids come out."""

    def __init__(self, tokenizer: Mapping[str, Any]) -> None:
        value = json.loads(json.dumps(tokenizer))
        special = {token["content"] for token in value["added_tokens"]} - {value["model"].get("unk_token")}
        value["added_tokens"] = []
        value["post_processor"] = None
        value["model"]["vocab"] = {
            token: number for token, number in value["model"]["vocab"].items() if token not in special
        }
        self._tokenizer = Tokenizer.from_str(json.dumps(value))
        self.json: Mapping[str, Any] = tokenizer
        """The tokenizer as it was given, special tokens included."""
        ids = [*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer["added_tokens"])]
        self.vocab_size: int = max(ids) + 1
        """Rows that an embedding needs: the highest id, special tokens included, plus one."""

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; the names of special tokens in it are ordinary text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, on several threads."""
        return [list(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: list[int]) -> str:
        """The text of `ids`; special tokens vanish, bytes that are no UTF-8 become U+FFFD."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def load_encoder(folder: Path) -> Encoder:
    """The encoder of the tokenizer or model in `folder`. Raises InputError when there is no usable `tokenizer.json`."""
    value = _tokenizer_json(folder)
    try:
        return Encoder(value)
    except Exception as error:  # the tokenizers package raises bare Exception
        raise InputError(f"{folder / 'tokenizer.json'} cannot be used as a tokenizer: {error}") from error


@dataclass(frozen=True, kw_only=True)
class ContextItem:
    """A piece of another file, with where it came from and why."""

    path: str
    text: str
    first_line: int = 1
    """Counted from one."""
    last_line: int = 0
    score: float = 0.0
    strategy: str = ""


@dataclass(frozen=True, kw_only=True)
class FimRequest:
    """A caret in a file: what stands before it, after it, and in other files."""

    path: str
    prefix: str
    suffix: str
    context: tuple[ContextItem, ...] = ()
    """In prompt order: the most relevant item last, next to the current file."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    ids: list[int]
    items: tuple[ContextItem, ...]
    """The context items that found room, in prompt order."""
    prefix_tokens: int
    suffix_tokens: int


def render(
    fmt: PromptFormat,
    encode: Encode,
    request: FimRequest,
    *,
    budget: int,
    prefix_share: float = 0.5,
    suffix_share: float = 0.25,
) -> Prompt:
    """The prompt of `request` as token ids, at most `budget` of them, ending where the model starts to write.

    Room goes to the path, the prefix (its end is kept), the suffix (its start is kept) and the context items from the
    last to the first, each whole or not at all. While there are context items, prefix and suffix are held to their
    shares of the room behind the path; what the items leave goes back to the prefix, then to the suffix.
    Path, prefix, suffix and each item are encoded separately, so that the caret may split a token.
    Raises InputError when not even the control tokens fit.
    """
    path = encode(f"{request.path}\n")[-max(int(budget * MAX_PATH_SHARE), 1) :]
    room = budget - len(path) - 4  # the file token and the three of the hole
    if room < 0:
        raise InputError(f"a budget of {budget} tokens has no room for a prompt; allow at least {4 + len(path)}")
    prefix = encode(_end(request.prefix, room))
    suffix = encode(_start(request.suffix, room))
    shares = (prefix_share, suffix_share) if request.context else (1.0, 1.0)
    kept_prefix = min(len(prefix), int(room * shares[0]))
    kept_suffix = min(len(suffix), int(room * shares[1]), room - kept_prefix)
    context, items = _fit_items(fmt, encode, request.context, room - kept_prefix - kept_suffix)
    left = room - len(context)
    kept_prefix = min(len(prefix), left - kept_suffix)
    kept_suffix = min(len(suffix), left - kept_prefix)
    parts = {"prefix": prefix[len(prefix) - kept_prefix :], "suffix": suffix[:kept_suffix]}
    return Prompt(
        ids=[*context, *_hole(fmt, path, **parts)], items=items, prefix_tokens=kept_prefix, suffix_tokens=kept_suffix
    )


def _fit_items(
    fmt: PromptFormat, encode: Encode, items: tuple[ContextItem, ...], room: int
) -> tuple[list[int], tuple[ContextItem, ...]]:
    """Ids and items, in prompt order, of those that fit into `room` tokens when the last ones choose first."""
    kept: list[tuple[ContextItem, list[int]]] = []
    for item in reversed(items):
        if len(item.text) > room * CHARS_PER_TOKEN:
            continue
        ids = [fmt.filename, *encode(f"{item.path}\n"), *encode(item.text.removesuffix("\n") + fmt.item_end)]
        if len(ids) <= room:
            kept.append((item, ids))
            room -= len(ids)
    kept.reverse()
    return [token for _, ids in kept for token in ids], tuple(item for item, _ in kept)


def _hole(fmt: PromptFormat, path: list[int], prefix: list[int], suffix: list[int]) -> list[int]:
    before = [fmt.filename] if fmt.path_in_prefix else [fmt.filename, *path]
    inside = path if fmt.path_in_prefix else []
    if fmt.order == "spm":
        return [*before, fmt.fim_suffix, *suffix, fmt.fim_prefix, *inside, *prefix, fmt.fim_middle]
    return [*before, fmt.fim_prefix, *inside, *prefix, fmt.fim_suffix, *suffix, fmt.fim_middle]


def _end(text: str, room: int) -> str:
    """The end of `text` that may fill `room` tokens, from the start of a line where there is one."""
    limit = room * CHARS_PER_TOKEN
    if len(text) <= limit:
        return text
    cut = text[len(text) - limit :]
    return cut[cut.find("\n", 0, limit // 2) + 1 :]


def _start(text: str, room: int) -> str:
    return text[: room * CHARS_PER_TOKEN]
