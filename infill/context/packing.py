"""The layout of prompts: ranked items are packed into a token budget so that the next prompt can reuse the KV cache.

`pack` is the only layout: SFT, DPO, preferences, evaluation, the gate and serving call it, so that a model is trained
and evaluated on the prompts that are served. Without a previous prompt, the result depends only on the request and the
budget.

A server reuses the keys and values of a session's last prompt up to the first token that differs. So the last layout is
kept as long as it is useful: the suffix ends at the same place, the prefix starts at the same place (an aligned line),
and the context items stay unless better ones are worth the tokens that must be computed again. `prompt.render` defines
the order of the parts and every token.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, chain, takewhile
from typing import Final, NamedTuple

from infill.context.identity import Current
from infill.context.memo import Memo
from infill.errors import InputError
from infill.prompt import ContextItem, Encode, FimRequest, Prompt, PromptFormat, item_texts, render
from infill.text import split_lines

CHARS_PER_TOKEN: Final = 16
"""Text beyond this many characters per token of its room is cut before it is encoded, so that 10 MB cost no time."""
MAX_PATH_SHARE: Final = 0.25
"""Maximum share of the budget for the path; of a longer path, the end is kept."""
CONTROL_TOKENS: Final = 4
"""Number of control tokens: the current file's and the three of the hole."""
_SIZES: Final = 4_096
"""Number of context items whose sizes are remembered."""
_LINE_END: Final = re.compile(r"\n")


@dataclass(frozen=True, kw_only=True)
class PackingRules:
    prefix_share: float = 0.5
    """Share of the room after the path while there are context items; more if the other parts leave room."""
    suffix_share: float = 0.25
    align_lines: int = 40
    """The prefix starts at a line whose number is a multiple of this, or of less if the budget is small."""
    slack: float = 1 / 32
    """Share of the budget that a new layout leaves free, so that typing does not change it soon."""
    prefill_price: float = 0.6
    """Items are replaced if the gain, as a share of the candidates' score, exceeds this price times the share of the
    budget that must be computed again."""

    def __post_init__(self) -> None:
        if min(self.prefix_share, self.suffix_share) <= 0 or self.prefix_share + self.suffix_share > 1:
            raise ValueError("the shares of prefix and suffix must be positive and at most 1 together")
        if self.align_lines < 1 or not 0 <= self.slack < 1 or self.prefill_price < 0:
            raise ValueError("align_lines must be positive, slack in [0, 1), prefill_price not negative")


RULES: Final = PackingRules()


class Layout(NamedTuple):
    """The part of a request that the prompt shows."""

    start: int = 0
    """Number of characters at the start of the prefix that are left out."""
    suffix: str = ""
    items: tuple[ContextItem, ...] = ()


NOTHING: Final = Layout()


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A prompt and its layout; pass it as `previous` to the next call of `pack` to reuse the KV cache."""

    prompt: Prompt
    why_empty: str | None
    """Reason why the prompt has no context items; None if it has some."""
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
    rules: PackingRules = RULES,
    current: Current | None = None,
) -> Packed:
    """Return the prompt of `request` with at most `budget` tokens; the request's context has the candidates, best last.

    `previous` is the last result in the same editor session; its items for which `holds` is false have changed since
    (`ProjectIndex.holds`) and are dropped. `current` is the request's file, if the caller has it. Raises InputError
    when the budget is too small for path and control tokens.
    """
    if previous is not None and (previous.fmt != fmt or previous.encode != encode):
        previous = None
    if previous is not None and holds is not None:
        still = tuple(filter(holds, previous.layout.items))
        if len(still) < len(previous.layout.items):
            previous = replace(previous, layout=previous.layout._replace(items=still))
    current = current or Current(request.path, request.prefix + request.suffix)
    packer = _Packer(fmt, Memo(encode), request, budget, rules, current)
    layout = packer.layout(previous)
    prefix = request.prefix[layout.start :]
    shown = FimRequest(path=request.path, prefix=prefix, suffix=layout.suffix, context=layout.items)
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
        return f"none of the {len(candidates)} candidates fits in the room that prefix and suffix leave"
    if request.context:
        return "all candidates are from the current file"
    return "there are no candidates: the strategy found nothing in other files, or there are none"


class _Packer:
    """The packing of one request, with the token counts of its parts."""

    def __init__(
        self, fmt: PromptFormat, memo: Memo, request: FimRequest, budget: int, rules: PackingRules, current: Current
    ) -> None:
        self.fmt, self.memo, self.request, self.budget, self.rules = fmt, memo, request, budget, rules
        self.current = current
        self.candidates = self.others(request.context)
        self.prefix_size = self.memo.ends(request.prefix)
        """The number of tokens of the prefix from a start on."""
        self.path_tokens = max(int(budget * MAX_PATH_SHARE), 1)
        path = min(self.size(f"{request.path}\n"), self.path_tokens)
        self.room = budget - path - CONTROL_TOKENS
        if self.room < 0:
            raise InputError(
                f"a budget of {budget} tokens is too small for a prompt; allow at least {CONTROL_TOKENS + path}"
            )
        self.slack = int(rules.slack * self.room)
        self.item_sizes = _item_sizes(memo.encode, fmt.item_end)

    def others(self, items: tuple[ContextItem, ...]) -> tuple[ContextItem, ...]:
        """Return the items that are not from the current file."""
        same = self.current.named_in({item.path for item in items})
        return tuple(item for item in items if item.path not in same and not self.current.has_text(item.text))

    def size(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return len(self.memo(text))

    def item_size(self, item: ContextItem, room: int | None = None) -> int:
        """Return the number of tokens of a context item in `render`; any number above `room` if it does not fit."""
        room = self.room if room is None else room
        key = item.path, item.text
        known = self.item_sizes.get(key)
        if known is None or (not known.exact and known.tokens <= room):
            size = self._count_item(item, room)
            self.item_sizes[key] = known = _ItemSize(size, size <= room)
        return known.tokens

    def _count_item(self, item: ContextItem, room: int) -> int:
        heading, text = item_texts(self.fmt, item)
        if len(text) > self.room * CHARS_PER_TOKEN:
            return self.room + 1
        size = 1 + self.memo.count(text, room - 1, again=True)
        return size if size > room else size + self.memo.count(heading, room - size, again=True)

    def layout(self, previous: Packed | None) -> Layout:
        """Return the layout: as before if that is possible and still good."""
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
        frame = self.room - rest + (self.size(self.request.prefix[start:]) if stays else self.prefix_size(start))
        items = self._items(items, self.room - frame, frame if stays else 0)
        left = rest - sum(map(self.item_size, items)) - self.slack
        if not stays and self.prefix_size(start) <= left:
            start = min(start, self._prefix_start(left))
        return Layout(start, suffix, items)

    def _ends_well(self, suffix: str) -> bool:
        """Return whether the suffix may end where it did before."""
        if suffix == self.request.suffix:
            return self.size(suffix) <= (1 - self.rules.prefix_share) * self.room
        share, size = self.rules.suffix_share * self.room, self.size(suffix)
        if not self.request.suffix.startswith(suffix) or size < share / 2:
            return False
        return size <= 2 * share or size <= self._suffix_room() + self.slack

    def _suffix_room(self) -> int:
        """Return the tokens for a new suffix: its share, and what prefix and items cannot use."""
        share = self.rules.suffix_share * self.room
        items = self.room - share - self.rules.prefix_share * self.room if self.candidates else 0
        prefix, most = self.request.prefix, self.room - share - items
        needed = self.memo.count(prefix, most) if len(prefix) <= self.room * CHARS_PER_TOKEN else self.room
        return int(max(share, self.room - needed - items))

    def _suffix_cut(self) -> str:
        """Return the start of the suffix that fits in its room, in whole lines if possible."""
        allowed = self._suffix_room()
        text = self.request.suffix[: allowed * CHARS_PER_TOKEN]
        size, ends = self.memo.beginnings(text), (match.end() for match in _LINE_END.finditer(text))
        first_line = range(1, text.find("\n") + 1 or len(text))
        for places in (chain(ends, (len(text),)), first_line):
            end = _last_fitting(places, allowed, size)
            if end is not None:
                return text[:end]
        return ""

    def _starts_well(self, start: int, available: int) -> bool:
        """Return whether the prefix may start where it did before, with `available` tokens for it."""
        prefix = self.request.prefix
        if start > len(prefix) or (start and prefix[start - 1] != "\n"):
            return False
        if len(prefix) - start > self.room * CHARS_PER_TOKEN:
            return False
        size = self.size(prefix[start:])
        return size <= available and (not start or size >= self.rules.prefix_share * self.room / 2)

    def _prefix_start(self, allowed: int) -> int:
        """Return the start of a prefix of at most `allowed` tokens: an aligned line if one is near."""
        prefix = self.request.prefix
        step, least = min(self.rules.align_lines, max(allowed // 32, 1)), len(prefix) - allowed * CHARS_PER_TOKEN
        aligned = takewhile(lambda start: start >= least, self._aligned_lines(step))
        for places in (aligned, range(len(prefix) - 1, max(least, -1), -1)):
            start = _last_fitting(places, allowed, self.prefix_size)
            if start is not None:
                return start
        return len(prefix)

    def _aligned_lines(self, step: int) -> Iterator[int]:
        """Yield the offsets of the prefix's lines whose number is a multiple of `step`, the last first."""
        prefix = self.request.prefix
        line, start = prefix.count("\n"), len(prefix)
        while line >= 0:
            start = prefix.rfind("\n", 0, start) + 1
            if line % step == 0:
                yield start
            line, start = line - 1, start - 1

    def _items(self, old: tuple[ContextItem, ...], left: int, frame: int) -> tuple[ContextItem, ...]:
        """Return the items to show in `left` tokens: some first items of `old`, then new ones, the best last.

        The `frame` tokens after them need not be computed again if the items stay.
        """
        if not self.candidates or left < 0:
            return ()
        best_first = self.candidates[::-1]
        worths, shown = _worths(best_first), _shown(old, best_first)
        kept = sum(value * share for (number, share), value in zip(shown, worths, strict=True) if number < len(old))
        price = self.rules.prefill_price / self.budget if old else 0.0
        if _surely_stay(sum(worths), kept, price * frame) and sum(map(self.item_size, old)) <= left:
            return old
        choices = self._choices(old, _Candidates(best_first, worths, shown), kept, left, frame)
        most = max(worth for worth, _, _ in choices) or 1.0
        return max(choices, key=lambda choice: choice[0] / most - price * choice[1])[2]

    def _choices(
        self, old: tuple[ContextItem, ...], candidates: "_Candidates", kept: float, left: int, frame: int
    ) -> list[tuple[float, int, tuple[ContextItem, ...]]]:
        """Return worth, tokens to compute and items of each choice: none of `old`, its first one, and so on to all.

        All are worth `kept`. The other arguments are those of `_items`.
        """
        best_first, worths, shown = candidates
        least, exact, choices = [0] * len(best_first), set[int](), []
        for count, taken in enumerate(accumulate(map(self.item_size, old), initial=0)):
            if taken > left:
                break
            room, worth, new = left - taken - self.slack, 0.0, []
            if count == len(old):
                choices.append((kept, 0, old))
            for number, value in enumerate(worths):
                if shown[number][0] < count:
                    worth += value * shown[number][1]
                elif least[number] <= room:
                    if number not in exact:
                        least[number] = self.item_size(best_first[number], room)
                    if least[number] <= room:
                        exact.add(number)
                        worth, room = worth + value, room - least[number]
                        new.append(number)
            computed = frame + left - taken - self.slack - room
            choices.append((worth, computed, (*old[:count], *(best_first[number] for number in reversed(new)))))
        return choices


class _Candidates(NamedTuple):
    """The ranked items, best first."""

    items: tuple[ContextItem, ...]
    worths: list[float]
    shown: list[tuple[int, float]]
    """The places of each in the last layout, as `_shown` returns them."""


class _ItemSize(NamedTuple):
    tokens: int
    exact: bool
    """False if counting stopped at `tokens` because more did not fit."""


class _ItemSizes(dict[tuple[str, str], _ItemSize]):
    """The sizes of context items by path and text; emptied when there are too many."""

    def __setitem__(self, item: tuple[str, str], size: _ItemSize) -> None:
        if len(self) >= _SIZES:
            self.clear()
        super().__setitem__(item, size)


@lru_cache(maxsize=8)
def _item_sizes(encode: Encode, item_end: str) -> _ItemSizes:  # noqa: ARG001 (their sizes differ)
    return _ItemSizes()


def _last_fitting(places: Iterable[int], allowed: int, size: Callable[[int], int]) -> int | None:
    """Return the last place with at most the allowed size, where sizes grow from place to place; None without one.

    The search doubles the end until it is too far, so most of the text is never encoded.
    """
    looked_at, end = list[int](), 1
    for place in places:
        looked_at.append(place)
        if len(looked_at) == end:
            if size(place) > allowed:
                break
            end *= 2
    fitting = bisect_right(looked_at, allowed, lo=end // 2, hi=min(end, len(looked_at)), key=size)
    return looked_at[fitting - 1] if fitting else None


def _surely_stay(most: float, kept: float, price: float) -> bool:
    """Return whether the old items, worth `kept`, are the best choice, whatever the others are.

    No other choice is worth more than `most` or costs less than `price`, as a share of the highest worth of all, which
    is at least `kept`. It holds for most keystrokes, and spares the account of each choice.
    """
    return most - kept < price * kept


def _worths(best_first: Sequence[ContextItem]) -> list[float]:
    """Return the scores if all are positive; else 1, 1/2, 1/3 and so on."""
    scores = [item.score for item in best_first]
    return scores if all(score > 0 for score in scores) else [1 / (place + 1) for place in range(len(scores))]


def _shown(items: Sequence[ContextItem], others: Iterable[ContextItem]) -> list[tuple[int, float]]:
    """Return for each other item the number of the first item with at least half of its lines, and its share of them.

    Where there is none, return the number of items and 0.
    """
    by_path = defaultdict[str, list[int]](list)
    for number, item in enumerate(items):
        by_path[item.path].append(number)
    nowhere = len(items), 0.0
    return [
        next(_sharing(items, by_path[other.path], other.text), nowhere) if other.path in by_path else nowhere
        for other in others
    ]


def _sharing(items: Sequence[ContextItem], numbers: Iterable[int], text: str) -> Iterator[tuple[int, float]]:
    """Yield the number of each item with at least half of the lines of `text`, and its share of them."""
    lines = set(split_lines(text))
    for number in numbers:
        share = len(lines & set(split_lines(items[number].text))) / max(len(lines), 1)
        if share >= 0.5:
            yield number, share
