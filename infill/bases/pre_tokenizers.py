"""Pre-tokenizers of byte-level BPE, which split text before merging: llama.cpp's names and `tokenizer.json` steps."""

from collections.abc import Mapping
from typing import Any, Final

from infill.errors import InputError

PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer (tokenizer.json of Qwen/Qwen2.5-Coder): words with the character before them, single digits,
punctuation, line breaks with the blanks before them, blanks."""

BYTE_LEVEL: Final = {"type": "ByteLevel", "add_prefix_space": False}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "invert": False}


_LLAMA3: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

RULES: Final[tuple[tuple[str, tuple[Mapping[str, Any], ...]], ...]] = (
    ("qwen2", (_split(PATTERN), {**BYTE_LEVEL, "use_regex": False})),
    ("starcoder", ({"type": "Digits", "individual_digits": True}, {**BYTE_LEVEL, "use_regex": True})),
    ("gpt-2", ({**BYTE_LEVEL, "use_regex": True},)),
    ("llama-bpe", (_split(_LLAMA3), {**BYTE_LEVEL, "use_regex": False})),
)
"""Steps in `tokenizer.json` of each pre-tokenizer, by llama.cpp's name (llama-vocab.cpp). Ours is Qwen2's."""

ALIASES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("smollm", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), "starcoder"),
    **dict.fromkeys(("gpt2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe"), "gpt-2"),
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "pixtral"), "llama-bpe"),
    **dict.fromkeys(("stablelm2", "megrez", "deepseek-r1-qwen"), "qwen2"),
}
"""Other names in llama.cpp for the same rules."""


def steps(name: str) -> list[dict[str, Any]]:
    """Return the steps of `tokenizer.json` for llama.cpp's pre-tokenizer `name`. Raises InputError if it is unknown."""
    for rule, parts in RULES:
        if rule == ALIASES.get(name, name):
            return [_complete(part) for part in parts]
    known = sorted([*ALIASES, *(rule for rule, _ in RULES)])
    raise InputError(f"unsupported pre-tokenizer {name!r}; choose a model with one of {', '.join(known)}")


def _complete(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step with the fields that the tokenizers library requires."""
    if part["type"] == "Split":
        return {**part, "behavior": "Isolated"}
    return {**part, "trim_offsets": True} if part["type"] == "ByteLevel" else dict(part)


def name_of(tokenizer: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of the pre-tokenizer in a `tokenizer.json`.

    Raises InputError for one without a name there, and for a tokenizer that is not a byte-level BPE.
    """
    parts = tokenizer["pre_tokenizer"] or {}
    own = parts["pretokenizers"] if parts.get("type") == "Sequence" else [parts]
    words = tokenizer["model"]
    if words["type"] == "BPE" and tokenizer["normalizer"] is None and not words.get("byte_fallback"):
        for name, rules in RULES:
            if len(own) == len(rules) and all(
                rule.items() <= step.items() for rule, step in zip(rules, own, strict=True)
            ):
                return name
    raise InputError(
        f"the tokenizer's rules for splitting text are none of llama.cpp's {', '.join(name for name, _ in RULES)}; "
        "try llama.cpp's convert_hf_to_gguf.py"
    )
