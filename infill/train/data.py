"""Endless, resumable streams of micro-batches.

A global batch has one micro-batch from each lane. A lane walks through its share of the data in an order that depends
on (seed, epoch), and its state is a few numbers. Lanes are assigned to workers, so a run reads the same batches with
one worker as with three, and can continue from a checkpoint with another number of workers.
"""

import functools
import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from infill import fim, storage
from infill.artifacts.corpus import documents
from infill.config import PretrainConfig, TrainConfig
from infill.errors import InputError
from infill.prompt import Encoder, FimRequest, PromptFormat, render
from infill.train.batch import Batch, Item, joined_item, pack, plain_item

State = dict[str, Any]
"""The state from which a lane continues, as JSON values."""

WINDOW_CHARS: Final = 6
"""Characters that are encoded per token of room; code has three to four characters per token."""
LEAST_ROOM: Final = 8
"""Fewer positions than this at the end of a row stay empty."""
LEAST_HOLE: Final = 16
"""A piece of a file with fewer tokens than this is not cut into three."""
LOOK_AHEAD: Final = 64
"""Number of rendered examples from which the one that fits best is chosen."""
CUTS: Final = 4
"""Number of examples that may be cut to fill the rest of a row."""
SHORT: Final = 128
"""A rest of a row with fewer positions than this rarely fits another example."""
JOINED_CHARS: Final = 3
"""Characters per token of the context that files read together have; code has three to four per token."""


class Lane(Protocol):
    @property
    def state(self) -> State: ...

    def __call__(self) -> Batch:
        """Return the next micro-batch; afterwards `state` is the state after it."""


def draw(*key: object) -> float:
    """Return a number in [0, 1) that depends only on `key`."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def order(count: int, *key: object) -> list[int]:
    """Return a permutation of `count` numbers that depends only on `key`."""
    permuted: list[int] = np.random.default_rng(int(draw(*key) * 2**63)).permutation(count).tolist()
    return permuted


@dataclass(frozen=True, kw_only=True)
class TrainingDocument:
    repo: str
    path: str
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.repo}/{self.path}"


class TrainingDocuments:
    """One split of a corpus, read shard by shard.

    With `joined_chars`, consecutive documents of a repository, in the order of the corpus's column `order`, are read
    together, as many as have that number of characters.
    """

    def __init__(self, corpus: str, split: str, *, joined_chars: int = 0) -> None:
        self.shards = documents(corpus)
        self.split = split
        self.corpus = corpus
        self.joined_chars = joined_chars
        self.table = functools.lru_cache(maxsize=2)(self._read)
        self.units = functools.lru_cache(maxsize=2)(self._units)

    def _read(self, shard: int) -> pa.Table:
        order = ["order"] * bool(self.joined_chars)
        if order and not storage.columns(self.shards[shard]).issuperset(order):
            raise InputError(
                f"{self.corpus} is from a version without the order of documents; build it again, "
                "or set pretrain.repository_context to false"
            )
        table = storage.read_table(self.shards[shard], ["repo", "path", "language", "content", "split", *order])
        return table.filter(pc.equal(table["split"], pa.scalar(self.split)))

    def _units(self, shard: int) -> list[list[int]]:
        """Return the rows that are read together: each alone, or those of `joined_chars` of a repository, in order."""
        table = self.table(shard)
        if not self.joined_chars:
            return [[row] for row in range(table.num_rows)]
        repos, order = table["repo"].to_pylist(), table["order"].to_pylist()
        sizes = pc.utf8_length(table["content"]).to_pylist()
        units: list[list[int]] = []
        room = 0
        for row in sorted(range(len(repos)), key=lambda row: (str(repos[row]), order[row])):
            if units and repos[units[-1][0]] == repos[row] and sizes[row] <= room:
                units[-1].append(row)
            else:
                units.append([row])
                room = self.joined_chars
            room -= sizes[row]
        return units

    def get(self, shard: int, row: int) -> TrainingDocument:
        line = {name: self.table(shard)[name][row].as_py() for name in ("repo", "path", "language", "content")}
        return TrainingDocument(repo=line["repo"], path=line["path"], language=line["language"], text=line["content"])


class Walk:
    """One lane's units of documents, epoch after epoch; `state` names the current one."""

    def __init__(
        self,
        documents: TrainingDocuments,
        *,
        seed: int,
        lane: int,
        lanes: int,
        mixture: Mapping[str, float],
        state: State,
    ) -> None:
        self.documents, self.seed, self.lane, self.lanes = documents, seed, lane, lanes
        self.mixture = mixture
        self.most = max([1.0, *mixture.values()])
        self.state: State = {"epoch": 0, "shard": 0, "row": 0, **state}
        self._orders = functools.lru_cache(maxsize=4)(order)

    def current(self) -> list[TrainingDocument]:
        """Return the documents of the unit at `state`, or of the next one that belongs to this lane.

        Raises InputError when the split has no text.
        """
        started = self.state["epoch"]
        while True:
            state = self.state
            if state["epoch"] > started + self.lanes:
                raise InputError(
                    f"{self.documents.corpus} has no text in its {self.documents.split} split; add sources to it"
                )
            if state["shard"] >= len(self.documents.shards):
                self.state = {**state, "epoch": state["epoch"] + 1, "shard": 0, "row": 0}
                continue
            shard = self._orders(len(self.documents.shards), self.seed, state["epoch"])[state["shard"]]
            units = self.documents.units(shard)
            if state["row"] >= len(units):
                self.state = {**state, "shard": state["shard"] + 1, "row": 0}
                continue
            if (state["row"] + state["epoch"]) % self.lanes == self.lane:
                unit = units[self._orders(len(units), self.seed, state["epoch"], shard)[state["row"]]]
                read = (self.documents.get(shard, row) for row in unit)
                if wanted := [document for document in read if document.text.strip() and self._wanted(document)]:
                    return wanted
            self.advance()

    def advance(self) -> None:
        self.state = {**self.state, "row": self.state["row"] + 1}

    def _wanted(self, document: TrainingDocument) -> bool:
        """Return whether the mixture includes this document in this epoch."""
        weight = self.mixture.get(document.repo, self.mixture.get(document.language, 1.0))
        return draw(self.seed, self.state["epoch"], document.name) * self.most < weight


class TextLane:
    """A lane of whole files for pre-training, cut where a row or the context ends; a share gets holes.

    A file that does not fit continues in the next row, without its earlier part. Infilling is applied to each piece, so
    that suffix, prefix and middle are in the same row. Files that are read together (`TrainingDocuments`) share
    attention and begin with their paths, as the context of a prompt does; each may have a hole.
    """

    def __init__(
        self,
        documents: TrainingDocuments,
        encoder: Encoder,
        fmt: PromptFormat,
        config: PretrainConfig,
        *,
        lane: int = 0,
        lanes: int = 1,
        state: State | None = None,
    ) -> None:
        self.encoder, self.fmt, self.config = encoder, fmt, config
        self.tokens, self.context = config.train.micro_batch_tokens, config.model.context_length
        start = dict(state or {})
        self.offset: int = start.pop("offset", 0)
        self.file: int = start.pop("file", 0)
        """Number of the current file in its unit."""
        mixture = dict(config.mixture)
        self.walk = Walk(documents, seed=config.train.seed, lane=lane, lanes=lanes, mixture=mixture, state=start)

    @property
    def state(self) -> State:
        return {**self.walk.state, "offset": self.offset, "file": self.file}

    def __call__(self) -> Batch:
        items: list[Item] = []
        room = self.tokens
        while room >= LEAST_ROOM:
            item = joined_item(list(self._pieces(min(room, self.context))))
            items.append(item)
            room -= len(item.ids)
        return pack(items, self.tokens)

    def _pieces(self, room: int) -> Iterator[Item]:
        """Yield at most `room` tokens from the rest of the current unit, by file, and move on to what follows."""
        unit, is_first = self.walk.current(), True
        while is_first or (self.file and self._starts(unit[self.file], room)):
            item, length = self._piece(unit, room)
            yield item
            room, is_first = room - len(item.ids), False
            self.offset += length
            if self.offset < len(unit[self.file].text):
                return
            self.offset, self.file = 0, self.file + 1
            if self.file == len(unit):
                self.file = 0
                self.walk.advance()

    def _starts(self, document: TrainingDocument, room: int) -> bool:
        """Return whether `room` tokens are enough for the path of a further file and some of its text."""
        return room >= LEAST_ROOM and len(self._path(document)) <= room // 2

    def _path(self, document: TrainingDocument) -> list[int]:
        return [self.fmt.filename, *self.encoder.encode(f"{document.path}\n")]

    def _piece(self, unit: Sequence[TrainingDocument], room: int) -> tuple[Item, int]:
        """Return the piece of the current file from `offset` on, with at most `room` tokens, and its length."""
        document, seed, epoch = unit[self.file], self.config.train.seed, self.walk.state["epoch"]
        if draw(seed, epoch, document.name, "fim") < self.config.fim_rate:
            hole = self._hole(document, room)
            if hole is not None:
                return hole
        has_path = len(unit) > 1 or draw(seed, epoch, document.name, "path") < self.config.path_rate
        path = self._path(document) if self.offset == 0 and has_path else []
        if len(path) > room // 2:
            path = []
        ids, length = cut(self.encoder, document.text, self.offset, room - len(path))
        ids = [*path, *ids]
        text = document.text[self.offset : self.offset + length]
        if self.offset + length == len(document.text):
            end = [self.fmt.endoftext] if self.file == len(unit) - 1 else self._item_end(text)
            ids += end if len(ids) + len(end) <= room else []
        text_bytes = len(text.encode("utf-8", "surrogatepass"))
        name = f"{document.name}@{self.offset}"
        return plain_item(ids, group=f"{document.language}/plain", text_bytes=text_bytes, name=name), length

    def _item_end(self, text: str) -> list[int]:
        """Return what a context item has after `text`, unless the text ends so."""
        return [] if text.endswith(self.fmt.item_end) else self.encoder.encode(self.fmt.item_end)

    def _hole(self, document: TrainingDocument, room: int) -> tuple[Item, int] | None:
        """Return a piece cut into three random parts, and its number of characters; None if it does not fit."""
        encode = self.encoder.encode
        controls = len(encode(f"{document.path}\n")) + 5  # the file token, the three of the hole, the end of text
        ids, length = cut(self.encoder, document.text, self.offset, room - controls - 4)  # each cut may split a token
        if len(ids) < LEAST_HOLE:
            return None
        text = document.text[self.offset : self.offset + length]
        name = f"{document.name}@{self.offset}"
        start, end = fim.random_span(text, seed=self.config.train.seed, epoch=self.walk.state["epoch"], document=name)
        middle = [*encode(text[start:end]), self.fmt.endoftext]
        request = FimRequest(path=document.path, prefix=text[:start], suffix=text[end:])
        prompt = render(self.fmt, encode, request)
        if len(prompt.ids) + len(middle) > room:
            return None
        return plain_item([*prompt.ids, *middle], group=f"{document.language}/fim", name=name), length


def cut(encoder: Encoder, text: str, offset: int, room: int) -> tuple[list[int], int]:
    """Return at most `room` token ids of `text` from `offset` on, and the number of characters that they encode.

    Characters are never split: the cut moves back to the last token that ends a character.
    """
    if room < 1:
        return [], 0
    window = text[offset : offset + room * WINDOW_CHARS]
    ids = encoder.encode(window)
    if len(ids) <= room:
        return ids, len(window)
    for count in range(room, max(0, room - 4), -1):
        piece = encoder.decode(ids[:count])
        if window.startswith(piece):
            return ids[:count], len(piece)
    return ids[:room], len(window)  # a tokenizer that does not restore its text: the rest of the window is skipped


Order = Sequence[int] | NDArray[np.int64]
"""Numbers of items in the order in which they are read."""


class Items(Protocol):
    """Examples or pairs by number, rendered when they are needed."""

    what: str
    """Name of the items in messages."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item | None:
        """Return the item of that number; None if it does not fit in the context."""

    def order(self, *key: object) -> Order:
        """Return a permutation of all numbers that depends only on `key`."""

    def cut(self, index: int, room: int) -> Item | None:
        """Return the item shortened to `room` tokens; None if it would lose too much."""


class Listed:
    """Items with equally fast access to each, none of which can be cut."""

    def __len__(self) -> int:
        raise NotImplementedError

    def order(self, *key: object) -> Order:
        return order(len(self), *key)

    def cut(self, _index: int, _room: int) -> Item | None:
        return None


class ItemLane:
    """A lane of examples, packed with little padding: the oldest first, then those that fit best, then a cut one."""

    def __init__(
        self, items: Items, tokens: int, *, seed: int, lane: int, lanes: int, state: State | None = None
    ) -> None:
        self.items, self.tokens, self.seed, self.lane, self.lanes = items, tokens, seed, lane, lanes
        start = state or {"epoch": 0, "place": 0, "waiting": []}
        self.epoch, self.place = start["epoch"], start["place"]
        self.waiting: list[tuple[int, Item]] = []
        for index in start["waiting"]:
            self._admit(index)
        self._orders = functools.lru_cache(maxsize=2)(items.order)

    @property
    def state(self) -> State:
        return {"epoch": self.epoch, "place": self.place, "waiting": [index for index, _ in self.waiting]}

    def __call__(self) -> Batch:
        self._refill()
        row = [self.waiting.pop(0)[1]]
        room = self.tokens - len(row[0].ids)
        while (item := self._best(room)) is not None:
            row.append(item)
            room -= len(item.ids)
            self._refill()
        return pack(row, self.tokens)

    def _best(self, room: int) -> Item | None:
        """Remove from the queue and return the next item for a row with `room` positions; None if none fits.

        It is the longest waiting item, unless it would leave a rest that is too long to waste and too short for another
        item; then it is one of the oldest, cut to all or half of the room.
        """
        fitting = [(len(item.ids), -number) for number, (_, item) in enumerate(self.waiting) if len(item.ids) <= room]
        good = [(length, number) for length, number in fitting if self._leaves(room - length)]
        for target in () if good else (room, room // 2):
            for number, (index, _) in enumerate(self.waiting[:CUTS]):
                item = self.items.cut(index, target)
                if item is not None and self._leaves(room - len(item.ids)):
                    del self.waiting[number]
                    return item
        chosen = max(good or fitting, default=None)
        return None if chosen is None else self.waiting.pop(-chosen[1])[1]

    def _leaves(self, room: int) -> bool:
        """Return whether a rest of `room` positions is acceptable: almost nothing, or enough for another item."""
        return room <= self.tokens // 128 or room >= SHORT

    def _refill(self) -> None:
        idle = 0
        while len(self.waiting) < LOOK_AHEAD:
            places = self._orders(self.seed, self.epoch)
            mine = places[(self.lane + self.epoch) % self.lanes :: self.lanes]
            if self.place < len(mine):
                self.place += 1
                idle = 0 if self._admit(int(mine[self.place - 1])) else idle
                continue
            self.epoch, self.place, idle = self.epoch + 1, 0, idle + 1
            if idle > self.lanes:
                raise InputError(f"none of the {len(self.items)} {self.items.what} fits in a context of this length")

    def _admit(self, index: int) -> bool:
        item = self.items[index]
        if item is not None:
            self.waiting.append((index, item))
        return item is not None


OpenLane = Callable[[int, State | None], Lane]
"""A function from a lane's number and state, None at the start, to the lane."""


class Loader:
    """The micro-batches of one worker's lanes, prepared in a thread while the model computes.

    Each step has the batches of this worker's lanes, with a blank one if other workers have one more, and the states of
    those lanes after the step.
    """

    def __init__(
        self, open_lane: OpenLane, config: TrainConfig, *, rank: int, world: int, states: Mapping[str, State]
    ) -> None:
        lanes = config.batch_tokens // config.micro_batch_tokens
        self.numbers = list(range(rank, lanes, world))
        self.blanks = -(-lanes // world) - len(self.numbers)
        self.tokens = config.micro_batch_tokens
        self._open: Callable[[], list[Lane]] = lambda: [
            open_lane(number, states.get(str(number))) for number in self.numbers
        ]
        self._steps: queue.Queue[tuple[list[Batch], dict[str, State]] | BaseException] = queue.Queue(maxsize=2)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="infill-loader", daemon=True)
        self._thread.start()

    def next(self) -> tuple[list[Batch], dict[str, State]]:
        """Return the batches of the next step, and the lanes' states after it. Raises the error of reading the data."""
        step = self._steps.get()
        if isinstance(step, BaseException):
            raise step
        return step

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            lanes = self._open()
            while not self._closed.is_set():
                batches = [lane() for lane in lanes]
                batches += [pack([], self.tokens) for _ in range(self.blanks)]
                self._put(
                    (batches, {str(number): lane.state for number, lane in zip(self.numbers, lanes, strict=True)})
                )
        except BaseException as error:
            self._put(error)

    def _put(self, step: tuple[list[Batch], dict[str, State]] | BaseException) -> None:
        while not self._closed.is_set():
            try:
                self._steps.put(step, timeout=0.2)
            except queue.Full:
                continue
            return


def rows_of(items: Iterable[Item], tokens: int) -> Iterator[list[Item]]:
    """Yield all `items` once, in order, in rows of at most `tokens`."""
    row: list[Item] = []
    room = tokens
    for item in items:
        if len(item.ids) > room and row:
            yield row
            row, room = [], tokens
        row.append(item)
        room -= len(item.ids)
    if row:
        yield row
