"""From ranked items to a prompt within a budget of tokens, so that the next prompt can reuse this one's KV cache.

`pack` is the one layout of prompts: SFT, DPO, preferences, evaluation, the gate and serving call it, so that a model is
trained and judged on what it is served. Without a previous prompt it depends on the request and the budget alone.

A server keeps the keys and values of a prompt up to the first token that differs from the session's last prompt. So
what was packed last is kept while it serves: the suffix ends at the same place, the prefix starts at the same one (an
aligned line), and the context items stay unless what others would win pays for the tokens to be computed again. The
order of the parts and every token are `prompt.render`'s.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import Final, NamedTuple

from infill.context.identity import Current
from infill.context.memo import Memo
from infill.errors import InputError
from infill.prompt import ContextItem, Encode, FimRequest, Prompt, PromptFormat, item_texts, render
from infill.text import split_lines

CHARS_PER_TOKEN: Final = 16
"""Text beyond this many characters per token of its room is cut before it is encoded, so that 10 MB cost nothing."""
MAX_PATH_SHARE: Final = 0.25
"""A path longer than this share of the budget keeps its end."""
CONTROL_TOKENS: Final = 4
"""The current file's token and the three of the hole."""
_LINE_END: Final = re.compile(r"\n")


@dataclass(frozen=True, kw_only=True)
class Rules:
    prefix_share: float = 0.5
    """Of the room after the path, while there are context items; more when the other parts leave some."""
    suffix_share: float = 0.25
    align_lines: int = 40
    """The prefix starts at a multiple of so many lines, or of fewer when the budget is small."""
    slack: float = 1 / 32
    """Share of the budget that a new layout leaves free, so that typing does not soon change it."""
    prefill_price: float = 0.6
    """Items are replaced when the share of the candidates' score that this wins is more than this price times the share
    of the budget that is to be computed again."""

    def __post_init__(self) -> None:
        if min(self.prefix_share, self.suffix_share) <= 0 or self.prefix_share + self.suffix_share > 1:
            raise ValueError("the shares of prefix and suffix must be positive and at most 1 together")
        if self.align_lines < 1 or not 0 <= self.slack < 1 or self.prefill_price < 0:
            raise ValueError("align_lines must be positive, slack in [0, 1), prefill_price not negative")


RULES: Final = Rules()


class Layout(NamedTuple):
    """What of a request is shown."""

    start: int = 0
    """Characters of the prefix that are left out."""
    suffix: str = ""
    items: tuple[ContextItem, ...] = ()


NOTHING: Final = Layout()


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A prompt and how it came about; hand it back as `previous` to keep the KV cache warm."""

    prompt: Prompt
    why_empty: str | None
    """Why no context item is in the prompt; None when one is."""
    path: str = ""
    layout: Layout = NOTHING
    fmt: PromptFormat | None = None
    encode: Encode | None = None


def pack(
    fmt: PromptFormat,
    encode: Encode,
    request: FimRequest,
    *,
    previous: Packed | None = None,
    budget: int,
    holds: Callable[[ContextItem], bool] | None = None,
    rules: Rules = RULES,
) -> Packed:
    """Return the prompt of `request`, at most `budget` tokens; its context holds the candidates, the best last.

    `previous` is what was packed before in the same editor session; an item of it for which `holds` is false has
    changed since (`ProjectIndex.holds`) and is not kept. Raises InputError when the budget is too small for the control
    tokens.
    """
    if previous is not None and (previous.fmt != fmt or previous.encode != encode):
        previous = None
    if previous is not None and holds is not None:
        still = tuple(filter(holds, previous.layout.items))
        previous = replace(previous, layout=previous.layout._replace(items=still))
    packer = _Packer(fmt, Memo(encode), request, budget, rules)
    layout = packer.layout(previous)
    shown = replace(request, prefix=request.prefix[layout.start :], suffix=layout.suffix, context=layout.items)
    prompt = render(fmt, packer.memo, shown, path_tokens=packer.path_tokens)
    return Packed(
        prompt=prompt,
        why_empty=None if prompt.items else _why_empty(request, packer.candidates),
        path=request.path,
        layout=layout._replace(items=prompt.items),
        fmt=fmt,
        encode=encode,
    )


def _why_empty(request: FimRequest, candidates: tuple[ContextItem, ...]) -> str:
    if candidates:
        return f"none of the {len(candidates)} candidates fits into the room that prefix and suffix leave"
    if request.context:
        return "all candidates are of the current file"
    return "there are no candidates: the strategy found nothing in other files, or there are none"


class _Packer:
    """One packing: the request, and how many tokens its parts take."""

    def __init__(self, fmt: PromptFormat, memo: Memo, request: FimRequest, budget: int, rules: Rules) -> None:
        self.fmt, self.memo, self.request, self.budget, self.rules = fmt, memo, request, budget, rules
        self.current = Current(request.path, request.prefix + request.suffix)
        self.candidates = self.others(request.context)
        self.path_tokens = max(int(budget * MAX_PATH_SHARE), 1)
        path = min(self.size(f"{request.path}\n"), self.path_tokens)
        self.room = budget - path - CONTROL_TOKENS
        if self.room < 0:
            raise InputError(
                f"a budget of {budget} tokens has no room for a prompt; allow at least {CONTROL_TOKENS + path}"
            )
        self.slack = int(rules.slack * self.room)

    def others(self, items: tuple[ContextItem, ...]) -> tuple[ContextItem, ...]:
        """Return the items that are not of the current file."""
        same = self.current.named_in({item.path for item in items})
        return tuple(item for item in items if item.path not in same and not self.current.has_text(item.text))

    def size(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.memo(text))

    def item_size(self, item: ContextItem) -> int:
        """Tokens of a context item, as `render` writes it; more than the room for a text too long to be encoded."""
        heading, text = item_texts(self.fmt, item)
        if len(text) > self.room * CHARS_PER_TOKEN:
            return self.room + 1
        return 1 + len(self.memo.chunk(heading)) + len(self.memo.chunk(text))

    def layout(self, previous: Packed | None) -> Layout:
        """What to show: as before where that is possible and still good."""
        old = previous.layout if previous else NOTHING
        same_file = previous is not None and previous.path == self.request.path
        items = self.others(old.items)
        taken = sum(map(self.item_size, items))
        suffix = old.suffix if same_file and self._ends_well(old.suffix) else self._suffix_cut()
        rest = self.room - self.size(suffix)
        prefix_room = int(self.rules.prefix_share * self.room)
        if items or not self.candidates:
            prefix_room = max(prefix_room, rest - taken)
        stays = same_file and suffix is old.suffix and self._starts_well(old.start, rest - taken)
        start = old.start if stays else self._prefix_start(prefix_room - self.slack)
        frame = self.room - rest + self.size(self.request.prefix[start:])
        items = self._items(items, self.room - frame, frame if stays else 0)
        if not stays:
            start = min(start, self._prefix_start(rest - sum(map(self.item_size, items)) - self.slack))
        return Layout(start, suffix, items)

    def _ends_well(self, suffix: str) -> bool:
        """Whether the suffix may end where it did."""
        if suffix == self.request.suffix:
            return self.size(suffix) <= (1 - self.rules.prefix_share) * self.room
        share = self.rules.suffix_share * self.room
        most = max(2 * share, self._suffix_room() + self.slack)
        return self.request.suffix.startswith(suffix) and share / 2 <= self.size(suffix) <= most

    def _suffix_room(self) -> int:
        """Tokens for a new suffix: its share, and what prefix and items cannot use."""
        share = self.rules.suffix_share * self.room
        items = self.room - share - self.rules.prefix_share * self.room if self.candidates else 0
        prefix = self.request.prefix
        needed = self.size(prefix) if len(prefix) <= self.room * CHARS_PER_TOKEN else self.room
        return int(max(share, self.room - needed - items))

    def _suffix_cut(self) -> str:
        """The start of the suffix, in whole lines if possible."""
        allowed = self._suffix_room()
        text = self.request.suffix[: allowed * CHARS_PER_TOKEN]
        ends = [match.end() for match in _LINE_END.finditer(text)]
        for places in ([*ends, len(text)], range(1, ends[0] if ends else len(text))):
            fitting = _fitting(places, allowed, lambda end: self.size(text[:end]))
            if fitting:
                return text[: places[fitting - 1]]
        return ""

    def _starts_well(self, start: int, available: int) -> bool:
        """Whether the prefix may start where it did, with so many tokens for it."""
        prefix = self.request.prefix
        if start > len(prefix) or (start and prefix[start - 1] != "\n"):
            return False
        if len(prefix) - start > self.room * CHARS_PER_TOKEN:
            return False
        size = self.size(prefix[start:])
        return size <= available and (not start or size >= self.rules.prefix_share * self.room / 2)

    def _prefix_start(self, allowed: int) -> int:
        """Where the prefix starts so that it takes at most `allowed` tokens: at an aligned line if one is near."""
        prefix = self.request.prefix
        step, least = min(self.rules.align_lines, max(allowed // 32, 1)), len(prefix) - allowed * CHARS_PER_TOKEN
        aligned = [*takewhile(lambda start: start >= least, self._aligned_lines(step))]
        for places in (aligned, range(len(prefix) - 1, max(least, -1), -1)):
            fitting = _fitting(places, allowed, lambda start: self.size(prefix[start:]))
            if fitting:
                return places[fitting - 1]
        return len(prefix)

    def _aligned_lines(self, step: int) -> Iterator[int]:
        """Offsets of the prefix's lines whose number is a multiple of `step`, the last first."""
        prefix = self.request.prefix
        line, start = prefix.count("\n"), len(prefix)
        while line >= 0:
            start = prefix.rfind("\n", 0, start) + 1
            if line % step == 0:
                yield start
            line, start = line - 1, start - 1

    def _items(self, old: tuple[ContextItem, ...], left: int, frame: int) -> tuple[ContextItem, ...]:
        """The items to show within `left` tokens: the first so many of the `old` ones, then new ones, the best last.

        `frame` tokens stand behind them and need not be computed again if the items stay.
        """
        if not self.candidates or left < 0:
            return ()
        best_first = self.candidates[::-1]
        worths, sizes = _worths(best_first), [self.item_size(item) for item in best_first]
        shown = [_shown(old, item) for item in best_first]
        choices = []
        for count, taken in enumerate(accumulate(map(self.item_size, old), initial=0)):
            if taken > left:
                break
            room, worth, new = left - taken - self.slack, 0.0, []
            if count == len(old):
                kept = sum(
                    value * share for (number, share), value in zip(shown, worths, strict=True) if number < count
                )
                choices.append((kept, 0, old))
            for number, value in enumerate(worths):
                if shown[number][0] < count:
                    worth += value * shown[number][1]
                elif sizes[number] <= room:
                    worth, room = worth + value, room - sizes[number]
                    new.append(number)
            computed = frame + sum(sizes[number] for number in new)
            choices.append((worth, computed, (*old[:count], *(best_first[number] for number in reversed(new)))))
        most = max(worth for worth, _, _ in choices) or 1.0
        price = self.rules.prefill_price / self.budget if old else 0.0
        return max(choices, key=lambda choice: choice[0] / most - price * choice[1])[2]


def _fitting(places: Sequence[int], allowed: int, size: Callable[[int], int]) -> int:
    """How many of the places have at most the allowed size, where sizes grow from place to place.

    The end is doubled until it is too far: most of the text is never looked at.
    """
    end = 1
    while end <= len(places) and size(places[end - 1]) <= allowed:
        end *= 2
    return bisect_right(places, allowed, lo=end // 2, hi=min(end, len(places)), key=size)


def _worths(best_first: Sequence[ContextItem]) -> list[float]:
    """The scores, where they are sums of something; else 1, 1/2, 1/3 and so on."""
    scores = [item.score for item in best_first]
    return scores if all(score > 0 for score in scores) else [1 / (place + 1) for place in range(len(scores))]


def _shown(items: Sequence[ContextItem], other: ContextItem) -> tuple[int, float]:
    """Number of the first item that holds half of the other's lines or more, and the share of them that it holds.

    The number of items and 0 where there is none.
    """
    for number, item in enumerate(items):
        if item.path == other.path:
            lines = set(split_lines(other.text))
            share = len(lines & set(split_lines(item.text))) / max(len(lines), 1)
            if share >= 0.5:
                return number, share
    return len(items), 0.0
