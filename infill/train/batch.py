"""Micro-batches: documents packed into one row of tokens, with the targets to predict.

T = positions of the row, N = targets, S = segments (what a loss is summed over: a document, or one completion)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from infill.train.attention import AttentionSpan


@dataclass(frozen=True, kw_only=True)
class Item:
    """A document as token ids, before it is packed."""

    ids: list[int]
    positions: list[int]
    picks: list[int]
    """Positions (within the item) whose next token is a target."""
    targets: list[int]
    """The token to predict at each pick."""
    segments: list[int]
    """The segment of each pick, counted within the item."""
    spans: tuple[AttentionSpan, ...]
    groups: tuple[str, ...]
    """The group of each segment in the log: `python/fim`, `chosen`."""
    weight: float
    """The count by which the loss is divided: targets, or pairs."""
    numbers: tuple[float, ...] = ()
    """A number per segment for the objective: the reference's log-probability."""
    text_bytes: int = 0
    """Bytes of text that the targets encode, for bits per byte."""
    name: str = ""
    """The item's origin, for people who inspect a bad batch."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    ids: Tensor  # [T]
    positions: Tensor  # [T]
    picks: Tensor  # [N]
    targets: Tensor  # [N]
    segments: Tensor  # [N]
    numbers: Tensor  # [S]
    spans: tuple[AttentionSpan, ...]
    groups: tuple[str, ...]  # S
    weight: float
    used: int
    """Number of positions that are not padding."""
    text_bytes: int = 0
    names: tuple[str, ...] = ()
    """The origins of its items."""

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with its tensors on `device`."""
        moved = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if torch.is_tensor(value)
        }
        return Batch(**{**vars(self), **moved})


@dataclass
class Row:
    """Packed items, as plain lists."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    picks: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    spans: list[AttentionSpan] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    weight: float = 0.0
    text_bytes: int = 0

    def add(self, item: Item) -> None:
        self.picks += [pick + len(self.ids) for pick in item.picks]
        self.segments += [segment + len(self.groups) for segment in item.segments]
        self.ids += item.ids
        self.positions += item.positions
        self.targets += item.targets
        self.numbers += item.numbers
        self.spans += item.spans
        self.groups += item.groups
        self.weight += item.weight
        self.text_bytes += item.text_bytes


def pack(items: Sequence[Item], tokens: int) -> Batch:
    """Return `items` packed into a row of `tokens` positions; the rest is padding without targets.

    Raises ValueError when they do not fit.
    """
    row = Row()
    for item in items:
        row.add(item)
    used = len(row.ids)
    padding = tokens - used
    if padding < 0:
        raise ValueError(f"{used} tokens do not fit in a row of {tokens}")
    spans = [*row.spans, AttentionSpan(padding)] if padding else row.spans
    return Batch(
        ids=torch.tensor(row.ids + [0] * padding),
        positions=torch.tensor(row.positions + list(range(padding))),
        picks=torch.tensor(row.picks, dtype=torch.long),
        targets=torch.tensor(row.targets, dtype=torch.long),
        segments=torch.tensor(row.segments, dtype=torch.long),
        numbers=torch.tensor(row.numbers, dtype=torch.float32),
        spans=tuple(spans),
        groups=tuple(row.groups),
        weight=row.weight,
        used=used,
        text_bytes=row.text_bytes,
        names=tuple(item.name for item in items),
    )


def plain_item(ids: list[int], *, start: int = 0, group: str, text_bytes: int = 0, name: str = "") -> Item:
    """Return a document in which every token after position `start` is a target: 0 predicts all but the first."""
    picks = list(range(start, len(ids) - 1))
    return Item(
        ids=ids,
        positions=list(range(len(ids))),
        picks=picks,
        targets=ids[start + 1 :],
        segments=[0] * len(picks),
        spans=(AttentionSpan(len(ids)),),
        groups=(group,),
        weight=float(len(picks)),
        text_bytes=text_bytes,
        name=name,
    )


def joined_item(items: Sequence[Item]) -> Item:
    """Return plain documents as one that attends to all of them; a document's first token is a target, too."""
    if len(items) == 1:
        return items[0]
    ids = [token for item in items for token in item.ids]
    segments = [number for number, item in enumerate(items) for _ in item.ids]
    picks = list(range(len(ids) - 1))
    return Item(
        ids=ids,
        positions=list(range(len(ids))),
        picks=picks,
        targets=ids[1:],
        segments=segments[1:],
        spans=(AttentionSpan(len(ids)),),
        groups=tuple(group for item in items for group in item.groups),
        weight=float(len(picks)),
        text_bytes=sum(item.text_bytes for item in items),
        name=" ".join(item.name for item in items),
    )


def pair_item(
    prompt: list[int], chosen: list[int], rejected: list[int], *, numbers: tuple[float, ...] = (), name: str = ""
) -> Item:
    """Return a preference pair after one prompt: two segments, chosen and rejected.

    The prompt's last token is repeated before each completion, because it predicts the completion's first token; the
    rest of the prompt occurs once. The positions of both completions continue the prompt's.
    """
    shared = len(prompt) - 1
    first = [prompt[-1], *chosen]
    second = [prompt[-1], *rejected]
    middle = shared + len(first)
    return Item(
        ids=[*prompt[:-1], *first, *second],
        positions=[*range(middle), *range(shared, shared + len(second))],
        picks=[*range(shared, middle - 1), *range(middle, middle + len(second) - 1)],
        targets=[*chosen, *rejected],
        segments=[0] * len(chosen) + [1] * len(rejected),
        spans=(AttentionSpan(middle), AttentionSpan(len(second), shared)),
        groups=("chosen", "rejected"),
        weight=1.0,
        numbers=numbers or (0.0, 0.0),
        name=name,
    )
