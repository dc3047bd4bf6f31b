"""The prompt format: special tokens, their order, and the one function that renders a request to token ids.

    ( <filename>{path}\\n{content}\\n )*  <filename>{path}\\n<fim_suffix>{suffix}<fim_prefix>{prefix}<fim_middle>

This is the format of Infill and of Mellum (model card of Mellum-4b-base). The formats of published base models are
other values of the same data type. Pre-training renders whole pieces of files; SFT, DPO, evaluation and serving render
the part of a request that `infill.context.packing.pack` selects within a budget.

Text is never parsed for special tokens: an `Encoder` has none in its vocabulary; control tokens are inserted as ids.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal

from tokenizers import Tokenizer

from infill.errors import InputError
from infill.text import read_text

Encode = Callable[[str], list[int]]
"""A function from text to token ids that never parses special tokens."""

FILE_NAME: Final = "prompt_format.json"
FILES: Final = ("tokenizer.json", FILE_NAME, "config.json")
"""Files that `load_format` and `load_encoder` read from a model's folder, if they exist."""
VERSION: Final = 1
"""Increased when `render` gives other ids for the same request; a server refuses a version it does not know."""

RESERVED_TOKENS: Final = (
    "<|endoftext|>",
    "<fim_prefix>",
    "<fim_middle>",
    "<fim_suffix>",
    "<fim_pad>",
    "<filename>",
    *(f"<reserved_{number}>" for number in range(6, 32)),
)
"""The tokens with the first ids of our tokenizer, in order (Mellum's first six, then a reserved block)."""


class NoFimError(InputError):
    """A tokenizer without fill-in-the-middle tokens of a known family."""


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    name: str
    """Family: infill, mellum, starcoder, starcoder2 or qwen2.5-coder."""
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
    """The text after a context item."""
    path_in_prefix: bool = False
    """Whether the current file's path follows the prefix token (StarCoder2) instead of preceding all three parts."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The role tokens that end a middle; the function `stop_ids` adds the tokenizer's other control tokens."""
        return tuple(
            dict.fromkeys(
                (self.endoftext, self.filename, self.fim_pad, self.fim_prefix, self.fim_middle, self.fim_suffix)
            )
        )

    @property
    def hash(self) -> str:
        """SHA-256 of all fields; stored in the deployment record and the model's tags."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PromptFormat":
        """Return the format in `value`, as `to_json` gives it. Raises InputError for other fields or versions."""
        try:
            read = cls(**value)
        except TypeError as error:
            raise InputError(f"{FILE_NAME} is not a prompt format of this version of Infill: {error}") from error
        if read.version != VERSION:
            raise InputError(
                f"the prompt format has version {read.version}, but this release of Infill renders version {VERSION}; "
                "use the release of Infill that trained the model"
            )
        return read


_FILENAME_ROLES: Final[Mapping[str, str]] = {
    "endoftext": "<|endoftext|>",
    "fim_prefix": "<fim_prefix>",
    "fim_middle": "<fim_middle>",
    "fim_suffix": "<fim_suffix>",
    "fim_pad": "<fim_pad>",
    "filename": "<filename>",
}

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
    ("starcoder", _FILENAME_ROLES, {"order": "psm"}),
    ("mellum", _FILENAME_ROLES, {"order": "spm"}),
)
"""Name, token of each role, and differences from the defaults, for each family of published base models."""
MELLUM_TOKENS: Final = frozenset({"<system>", "<user>", "<assistant>", "<think>"})
"""Special tokens of Mellum that are not in StarCoder's tokenizer, which has all its others."""
STARCODER_TOKENS: Final = frozenset({"<reponame>", "<gh_stars>", "<issue_start>", "<jupyter_start>", "<commit_before>"})
MELLUM_ROWS: Final = 98_304
"""Rows of Mellum's embedding as released; StarCoder's has 49,152."""


def infill_format() -> PromptFormat:
    """Return the format of models that Infill trains from scratch: the reserved tokens at their ids."""
    ids = {token: number for number, token in enumerate(RESERVED_TOKENS)}
    roles: dict[str, Any] = {role: ids[token] for role, token in FAMILIES[-1][1].items()}
    return PromptFormat(name="infill", **roles)


def detect_format(tokenizer: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> PromptFormat:
    """Return the format of a published model, from its `tokenizer.json` and its `config.json`, if there is one.

    Raises NoFimError when no known family has all its FIM tokens there.
    """
    ids = {token["content"]: int(token["id"]) for token in tokenizer.get("added_tokens", [])}
    ids |= {token: number for number, token in control_tokens(tokenizer).items()}
    for name, roles, differences in FAMILIES:
        if all(token in ids for token in roles.values()):
            if name == "starcoder" and is_mellum(ids, config or {})[0]:
                continue
            fields: dict[str, Any] = {role: ids[token] for role, token in roles.items()}
            return PromptFormat(name=name, **fields, **differences)
    known = ", ".join(name for name, _, _ in FAMILIES)
    raise NoFimError(
        f"the tokenizer has no fill-in-the-middle tokens of a known family ({known}); "
        f"choose a base model trained for infilling, pass --add-fim, or put a {FILE_NAME} next to its tokenizer"
    )


def is_mellum(tokens: Collection[str], config: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether a model with the role tokens of Mellum and StarCoder is Mellum, and the reason.

    The two have the same role tokens but another order of the parts: StarCoder puts the prefix first. Granite Code is a
    Llama with StarCoder's tokenizer and order, so the architecture alone does not decide.
    """
    kind, rows = config.get("model_type"), config.get("vocab_size")
    if own := sorted(MELLUM_TOKENS.intersection(tokens)):
        return True, f"the tokenizer has {own[0]}, as only Mellum's does"
    if kind not in (None, "llama"):
        return False, f"config.json has the model_type {kind}, but Mellum is a llama"
    if rows == MELLUM_ROWS:
        return True, f"config.json has the vocab_size {rows}, as only Mellum's does"
    if own := sorted(STARCODER_TOKENS.intersection(tokens)):
        return False, f"the tokenizer has {own[0]} but none of Mellum's {', '.join(sorted(MELLUM_TOKENS))}"
    return True, "nothing in the tokenizer or config.json points to StarCoder"


def why_format(folder: Path) -> str:
    """Return the name of the prompt format of the model or tokenizer in `folder`, and the reason, as one text."""
    fmt = load_format(folder)
    if (folder / FILE_NAME).exists():
        return f"{fmt.name}: {FILE_NAME} says so"
    if fmt.name not in ("mellum", "starcoder"):
        return f"{fmt.name}: the tokenizer has the fill-in-the-middle tokens of this family"
    tokenizer = read_tokenizer(folder)
    tokens = {*control_tokens(tokenizer).values(), *(token["content"] for token in tokenizer.get("added_tokens", []))}
    return f"{fmt.name}: {is_mellum(tokens, _config_json(folder))[1]}"


MAX_HEALED: Final = 8
"""Most tokens of a word that `heal` takes from a prompt."""
_MARKER: Final = re.compile(r"<[|｜].+[|｜]>|</?[A-Za-z][\w.:-]*>|<\[[\w-]+\]>|\[/?[A-Z][A-Z0-9_]*\]", re.DOTALL)
"""Spelling of control tokens: <|im_end|>, <repo_name>, <[fim-suffix]>, [INST], also with DeepSeek's wide bars."""
_HTML: Final = frozenset(
    """a b blockquote body br caption code div em form h1 h2 h3 h4 h5 h6 head html i img input li link meta ol p pre
    script span strong style sub sup table tbody td tfoot th thead title tr u ul""".split()  # noqa: SIM905
)
"""HTML elements that are single tokens in some tokenizers; they are text."""


def _is_marker(token: str) -> bool:
    return token[:1] in ("<", "[") and bool(_MARKER.fullmatch(token)) and token.strip("</>").lower() not in _HTML


def control_tokens(tokenizer: Mapping[str, Any]) -> dict[int, str]:
    """Return id and name of the control tokens of a `tokenizer.json`: those that are never text.

    These are the tokens marked `special`, and those spelt like a control token that no text is encoded to: an added
    token (Qwen's <|repo_name|> and <|file_sep|> are not `special`), or an entry of the vocabulary without a merge.
    """
    added = {int(token["id"]): token for token in tokenizer.get("added_tokens", [])}
    control = {
        number: str(token["content"])
        for number, token in added.items()
        if token.get("special") or _is_marker(token["content"])
    }
    model = tokenizer.get("model", {})
    vocabulary = model.get("vocab", {})
    if not isinstance(vocabulary, Mapping):  # not BPE; an Encoder refuses it
        return control
    marked = {token: number for token, number in vocabulary.items() if number not in added and _is_marker(token)}
    if marked:
        merges = model.get("merges", ())
        merged = {merge.replace(" ", "") if isinstance(merge, str) else "".join(merge) for merge in merges}
        control |= {number: token for token, number in marked.items() if token not in merged}
    return control


def load_format(folder: Path) -> PromptFormat:
    """Return the format of the model or tokenizer in `folder`: its `prompt_format.json`, else as `detect_format` does.

    Raises InputError when neither gives a format.
    """
    if (folder / FILE_NAME).exists():
        try:
            value = json.loads(read_text(folder / FILE_NAME))
        except ValueError as error:
            raise InputError(f"{folder / FILE_NAME} is not valid JSON: {error}") from error
        return PromptFormat.from_json(value)
    return detect_format(read_tokenizer(folder), _config_json(folder))


def _config_json(folder: Path) -> Mapping[str, Any]:
    """Return the model's configuration; an empty one if it is missing (a tokenizer without a model) or damaged."""
    try:
        value = json.loads(read_text(folder / "config.json"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """Return the `tokenizer.json` in `folder`. Raises InputError when it is missing or damaged."""
    file = folder / "tokenizer.json"
    try:
        value: dict[str, Any] = json.loads(read_text(file))
    except FileNotFoundError as error:
        raise InputError(f"{folder} has no tokenizer.json; save the checkpoint with its fast tokenizer") from error
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON: {error}") from error
    return value


class Encoder:
    """A tokenizer without its control tokens: it encodes any text to ordinary ids only."""

    def __init__(self, tokenizer: Mapping[str, Any]) -> None:
        value = json.loads(json.dumps(tokenizer))
        control = control_tokens(tokenizer)
        names = set(control.values()) - {value["model"].get("unk_token")}
        value["added_tokens"] = [token for token in value["added_tokens"] if token["id"] not in control]
        value["post_processor"] = None
        value["model"]["vocab"] = {
            token: number for token, number in value["model"]["vocab"].items() if token not in names
        } | {token["content"]: token["id"] for token in value["added_tokens"]}  # otherwise they would get new ids
        self._tokenizer = Tokenizer.from_str(json.dumps(value))
        self.json: Mapping[str, Any] = tokenizer
        """The original tokenizer, control tokens included."""
        self.control: Mapping[int, str] = control
        """Id and name of the tokens that are never text."""
        ids = [*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer["added_tokens"])]
        self.vocab_size: int = max(ids) + 1
        """Rows that an embedding needs: the highest id, control tokens included, plus one."""

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`; the names of special tokens in it are ordinary text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text, computed on several threads."""
        return [list(encoding.ids) for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: list[int]) -> str:
        """Return the text of `ids` without control tokens; bytes that are not UTF-8 become U+FFFD."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def stop_ids(fmt: PromptFormat, encoder: Encoder) -> tuple[int, ...]:
    """Return the ids that end a middle: those of the format's roles, and every other control token."""
    return tuple(dict.fromkeys((*fmt.stop_ids, *sorted(encoder.control))))


def load_encoder(folder: Path) -> Encoder:
    """Return the encoder of the tokenizer or model in `folder`. Raises InputError without a usable `tokenizer.json`."""
    value = read_tokenizer(folder)
    try:
        return Encoder(value)
    except Exception as error:  # the tokenizers package raises bare Exception
        raise InputError(f"{folder / 'tokenizer.json'} cannot be used as a tokenizer: {error}") from error


@dataclass(frozen=True, kw_only=True)
class ContextItem:
    """A piece of another file, with its origin, score and strategy."""

    path: str
    text: str
    first_line: int = 1
    """Number of the first line, from 1."""
    last_line: int = 0
    score: float = 0.0
    strategy: str = ""


@dataclass(frozen=True, kw_only=True)
class FimRequest:
    """A caret in a file: the text before it, after it, and in other files."""

    path: str
    prefix: str
    suffix: str
    context: tuple[ContextItem, ...] = ()
    """In prompt order: the most relevant item last, next to the current file."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    ids: list[int]
    items: tuple[ContextItem, ...]
    """The context items in the prompt, in prompt order."""
    prefix_tokens: int = 0
    suffix_tokens: int = 0


def render(fmt: PromptFormat, encode: Encode, request: FimRequest, *, path_tokens: int | None = None) -> Prompt:
    """Return the prompt of the whole `request` as token ids; it ends where the model starts to write.

    `infill.context.packing.pack` decides which part of a request fits in a budget. Path, prefix, suffix and each item
    are encoded separately, so the caret may split a token. Of the current file's path, the last `path_tokens` tokens
    are kept.
    """
    path = encode(f"{request.path}\n")
    path = path[max(0, len(path) - path_tokens) :] if path_tokens is not None else path
    context = [*chain.from_iterable(_item(fmt, encode, item) for item in request.context)]
    prefix, suffix = encode(request.prefix), encode(request.suffix)
    return Prompt(
        ids=[*context, *_hole(fmt, path, prefix, suffix)],
        items=request.context,
        prefix_tokens=len(prefix),
        suffix_tokens=len(suffix),
    )


def item_texts(fmt: PromptFormat, item: ContextItem) -> tuple[str, str]:
    """Return the two texts of a context item that follow its file token; they are encoded separately."""
    return f"{item.path}\n", item.text.removesuffix("\n") + fmt.item_end


def _item(fmt: PromptFormat, encode: Encode, item: ContextItem) -> list[int]:
    heading, text = item_texts(fmt, item)
    return [fmt.filename, *encode(heading), *encode(text)]


def _hole(fmt: PromptFormat, path: list[int], prefix: list[int], suffix: list[int]) -> list[int]:
    before = [fmt.filename] if fmt.path_in_prefix else [fmt.filename, *path]
    inside = path if fmt.path_in_prefix else []
    if fmt.order == "spm":
        return [*before, fmt.fim_suffix, *suffix, fmt.fim_prefix, *inside, *prefix, fmt.fim_middle]
    return [*before, fmt.fim_prefix, *inside, *prefix, fmt.fim_suffix, *suffix, fmt.fim_middle]


def caret_of(fmt: PromptFormat, decode: Callable[[list[int]], str], ids: Sequence[int]) -> tuple[str, str] | None:
    """Return the texts before and after the caret in a prompt, parts of the file; None for ids without a caret.

    The inverse of `render` for what a client has packed.
    """
    marks = (fmt.fim_prefix, fmt.fim_suffix) if fmt.order == "psm" else (fmt.fim_suffix, fmt.fim_prefix)
    try:
        first, second = (len(ids) - 1 - ids[::-1].index(mark) for mark in marks)
    except ValueError:
        return None
    if not first < second < len(ids) or ids[-1] != fmt.fim_middle:
        return None
    one, two = decode([*ids[first + 1 : second]]), decode([*ids[second + 1 : -1]])
    prefix, suffix = (one, two) if fmt.order == "psm" else (two, one)
    return (prefix.partition("\n")[2] if fmt.path_in_prefix else prefix), suffix


def heal(fmt: PromptFormat, encoder: Encoder, ids: Sequence[int]) -> tuple[list[int], str]:
    """Return the prompt without the tokens of a half-typed word, and their text, with which the answer must begin.

    `retu` has other tokens than `return`, so a model rarely continues it rightly. Without them, and with only such
    tokens allowed that agree with their text, the model chooses those of the whole word (token healing, as in FLCC,
    arXiv 2405.08704). The text is empty if the caret is not after a word.
    """
    mark = fmt.fim_middle if fmt.order == "spm" else fmt.fim_suffix
    end = len(ids) - 1 - ids[::-1].index(mark) if mark in ids else 0
    start, word = end, ""
    while 0 < start > end - MAX_HEALED and ids[start - 1] not in encoder.control:
        text = encoder.decode([ids[start - 1]])
        if not _is_word(text[-1:]) or "\ufffd" in text:
            break
        start, word = start - 1, text + word
        if not all(map(_is_word, text)):
            break
    return [*ids[:start], *ids[end:]], word


def _is_word(text: str) -> bool:
    return text.isalnum() or text == "_"
