"""Golden files: what one version of Infill promises the next. A change to them is a visible diff.

`python -m tests.golden` writes `prompts.jsonl` again, after a deliberate change of the prompt format or of the layout.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from infill.prompt import ContextItem, FimRequest, PromptFormat, detect_format, infill_format, load_encoder

FOLDER: Final = Path(__file__).parent
PROMPTS: Final = FOLDER / "prompts.jsonl"
"""One JSON object a line: format, request, budget, ids."""

ENCODER: Final = load_encoder(FOLDER)
_QWEN: Final = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|file_sep|>")
_STARCODER: Final = ("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<file_sep>")


def _detected(tokens: tuple[str, ...]) -> PromptFormat:
    return detect_format({"added_tokens": [{"content": token, "id": number} for number, token in enumerate(tokens)]})


FORMATS: Final = {
    "infill": infill_format(),
    "starcoder2": _detected(_STARCODER),
    "qwen2.5-coder": _detected(_QWEN),
}


def request_of(value: dict[str, Any]) -> FimRequest:
    """A request as its golden line has it."""
    return FimRequest(**{**value, "context": tuple(ContextItem(**item) for item in value["context"])})


def cases() -> Iterator[dict[str, Any]]:
    """The golden lines."""
    for line in PROMPTS.read_text().splitlines():
        yield json.loads(line)
