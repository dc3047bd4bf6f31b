"""From ranked items to a prompt within a budget of tokens."""

from dataclasses import dataclass

from infill.prompt import Encode, FimRequest, Prompt, PromptFormat, render


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A prompt and what stands in it; hand it back as `previous` to keep the KV cache warm."""

    prompt: Prompt
    why_empty: str | None
    """Why no context item is in the prompt; None when one is."""


def pack(
    fmt: PromptFormat, encode: Encode, request: FimRequest, *, previous: Packed | None = None, budget: int
) -> Packed:
    """The prompt of `request`, at most `budget` tokens, with as many of its context items as fit."""
    del previous
    prompt = render(fmt, encode, request, budget=budget)
    why = None if prompt.items else "no candidates" if not request.context else "no candidate fits the budget"
    return Packed(prompt=prompt, why_empty=why)
