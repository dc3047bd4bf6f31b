"""Streams: reproducible, resumable, the same for any number of workers, with little padding, and with no text lost."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import pyarrow.parquet as pq
import pytest
import torch

from infill import prompt
from infill.config import PretrainConfig, TrainConfig, debug
from infill.errors import InputError
from infill.train import pretrain
from infill.train.batch import Batch, Item, pack, plain_item
from infill.train.data import ItemLane, Listed, Loader, State, TextLane, TrainingDocuments, cut, draw, rows_of
from tests.builders import tiny_repositories, tiny_tokenizer, write_documents

CONFIG = replace(debug().pretrain, fim_rate=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_documents(root / "corpus", tiny_repositories(8))
    tiny_tokenizer(root / "tokenizer")
    return root


@pytest.fixture(scope="module")
def encoder(folder: Path) -> prompt.Encoder:
    return prompt.load_encoder(folder / "tokenizer")


def lane(folder: Path, encoder: prompt.Encoder, config: PretrainConfig = CONFIG, **arguments: Any) -> TextLane:
    documents = TrainingDocuments(str(folder / "corpus"), "train")
    return TextLane(documents, encoder, prompt.infill_format(), config, **arguments)


def same(first: Batch, second: Batch) -> bool:
    return torch.equal(first.ids, second.ids) and torch.equal(first.picks, second.picks) and first.spans == second.spans


def test_resuming_twice_gives_the_undisturbed_stream(folder: Path, encoder: prompt.Encoder) -> None:
    undisturbed = lane(folder, encoder)
    expected = [undisturbed() for _ in range(40)]
    assert undisturbed.state["epoch"] >= 1
    entries: list[Batch] = []
    state: State | None = None
    for count in (7, 12, 21):
        part = lane(folder, encoder, state=state)
        entries += [part() for _ in range(count)]
        state = part.state
    assert all(map(same, expected, entries))


def test_rows_are_full_and_half_of_the_files_are_cut(folder: Path, encoder: prompt.Encoder) -> None:
    stream = lane(folder, encoder)
    batches = [stream() for _ in range(60)]
    assert sum(batch.used for batch in batches) >= 0.98 * sum(len(batch.ids) for batch in batches)
    cut_tokens = sum(int((batch.ids == prompt.infill_format().fim_middle).sum()) for batch in batches)
    files = sum(len(batch.groups) for batch in batches)
    assert 0.3 < cut_tokens / files < 0.7


def test_no_text_is_lost_and_no_span_exceeds_the_context(folder: Path, encoder: prompt.Encoder) -> None:
    plain = replace(CONFIG, fim_rate=0.0, path_rate=0.0)
    stream = lane(folder, encoder, plain)
    texts: list[str] = []
    while stream.state["epoch"] == 0:
        batch = stream()
        start = 0
        for span in batch.spans:
            assert span.length <= plain.model.context_length
            texts.append(encoder.decode(batch.ids[start : start + span.length].tolist()))
            start += span.length
    everything = "".join(texts)
    repositories = tiny_repositories(8)
    for repo in list(repositories)[:-2]:
        assert all(text in everything for text in repositories[repo].values())


def test_a_cut_file_can_be_put_together_again(folder: Path, encoder: prompt.Encoder) -> None:
    fmt = prompt.infill_format()
    batch = lane(folder, encoder, replace(CONFIG, fim_rate=1.0))()
    ids = batch.ids[: batch.spans[0].length].tolist()
    assert ids[0] == fmt.filename
    assert ids[-1] == fmt.endoftext
    suffix, prefix, middle = (ids.index(token) for token in (fmt.fim_suffix, fmt.fim_prefix, fmt.fim_middle))
    parts = [ids[prefix + 1 : middle], ids[middle + 1 : -1], ids[suffix + 1 : prefix]]
    text = "".join(map(encoder.decode, parts))
    assert any(text in other for files in tiny_repositories(8).values() for other in files.values())


JOINED: Final = replace(CONFIG, repository_context=True)


def short_files() -> dict[str, dict[str, str]]:
    """Repositories of five files of which a few fit in a context; the last file of each does not."""
    line = "def area_{repo}_{file}(radius):\n    return {file} * radius\n"
    return {
        f"repo_{repo}": {
            f"file_{file}.py": line.format(repo=repo, file=file) * (30 if file == 4 else 1 + repo % 2)
            for file in range(5)
        }
        for repo in range(6)
    }


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("short")
    write_documents(root / "corpus", short_files(), dict.fromkeys(short_files(), "train"))
    return root


def joined_lane(folder: Path, encoder: prompt.Encoder, config: PretrainConfig = JOINED, **arguments: Any) -> TextLane:
    documents = TrainingDocuments(str(folder / "corpus"), "train", joined_chars=300)
    return TextLane(documents, encoder, prompt.infill_format(), config, **arguments)


def test_files_of_a_repository_are_read_together_in_their_order_and_no_token_is_lost_or_doubled(
    short: Path, encoder: prompt.Encoder
) -> None:
    files = {f"{repo}/{path}": text for repo, texts in short_files().items() for path, text in texts.items()}
    texts = dict.fromkeys(files, "")
    joined = 0
    for names, pieces in first_epoch(joined_lane(short, encoder, replace(JOINED, fim_rate=0.0))):
        places = [int(name.removesuffix(".py")[-1]) for name, _ in names]
        assert places == list(range(places[0], places[0] + len(places)))
        assert len({name.partition("/")[0] for name, _ in names}) == 1
        joined += len(names) > 1
        for (name, offset), piece in zip(names, pieces, strict=True):
            assert len(texts[name]) == offset
            heading = [prompt.infill_format().filename, *encoder.encode(name.partition("/")[2] + "\n")]
            assert len(names) == 1 or offset or piece[: len(heading)] == heading
            texts[name] += encoder.decode(piece[len(heading) if piece[: len(heading)] == heading else 0 :])
    assert joined >= 6
    assert texts == files


def first_epoch(stream: TextLane) -> Iterator[tuple[list[tuple[str, int]], list[list[int]]]]:
    """Yield the names and offsets of the files in each document of the first epoch, and the tokens of each file."""
    seen, fmt = set[str](), prompt.infill_format()
    while True:
        batch, start = stream(), 0
        for span, name in zip(batch.spans, batch.names, strict=False):
            ids = [token for token in batch.ids[start : start + span.length].tolist() if token != fmt.endoftext]
            start += span.length
            names = [(file, int(offset)) for file, _, offset in (part.rpartition("@") for part in name.split())]
            beginning = {file for file, offset in names if offset == 0}
            if beginning & seen:
                return
            seen |= beginning
            starts = [place for place, token in enumerate(ids) if token == fmt.filename][1 - len(names) :]
            yield names, [ids[first:last] for first, last in pairwise([0, *starts * (len(names) > 1), len(ids)])]


def test_files_that_are_read_together_resume_twice_with_any_number_of_lanes(
    short: Path, encoder: prompt.Encoder
) -> None:
    for lanes in (1, 3):
        undisturbed = joined_lane(short, encoder, lane=lanes - 1, lanes=lanes)
        expected = [undisturbed() for _ in range(40)]
        entries: list[Batch] = []
        state: State | None = None
        for count in (7, 12, 21):
            part = joined_lane(short, encoder, state=json.loads(json.dumps(state)), lane=lanes - 1, lanes=lanes)
            entries += [part() for _ in range(count)]
            state = part.state
        assert all(map(same, expected, entries))
        assert any(len(batch.groups) > len(batch.names) for batch in entries)


def test_a_hole_in_a_file_among_others_is_rendered_as_the_prompt_of_a_completion(
    short: Path, encoder: prompt.Encoder
) -> None:
    fmt = prompt.infill_format()
    stream = joined_lane(short, encoder, replace(JOINED, fim_rate=1.0))
    documents = (document for _ in range(20) for document in whole_documents(stream()))
    names, ids = next((names, ids) for names, ids in documents if len(names) == ids.count(fmt.fim_middle) == 2)
    start = ids.index(fmt.filename, 1)
    for name, part in zip(names, (ids[:start], ids[start:]), strict=True):
        order = (fmt.filename, fmt.fim_suffix, fmt.fim_prefix, fmt.fim_middle, fmt.endoftext)
        places = [part.index(token) for token in order]
        assert places == sorted(places)
        assert places[0] == 0
        assert places[-1] == len(part) - 1
        path, after_path, prefix, middle, end = places
        named, _, offset = name.rpartition("@")
        repo, _, file = named.partition("/")
        assert encoder.decode(part[path + 1 : after_path]) == f"{file}\n"
        pieces = [part[prefix + 1 : middle], part[middle + 1 : end], part[after_path + 1 : prefix]]
        assert "".join(map(encoder.decode, pieces)) == short_files()[repo][file][int(offset) :]


def whole_documents(batch: Batch) -> Iterator[tuple[list[str], list[int]]]:
    """Yield the names of the files in each document of a batch, and its tokens; all but the first are targets."""
    targets, start = dict(zip(batch.picks.tolist(), batch.targets.tolist(), strict=True)), 0
    for span, name in zip(batch.spans, batch.names, strict=False):
        ids = batch.ids[start : start + span.length].tolist()
        assert [targets[start + place] for place in range(span.length - 1)] == ids[1:]
        start += span.length
        yield name.split(), ids


def test_the_setting_decides_whether_pretraining_joins_files_and_validation_never_does(
    folder: Path, short: Path
) -> None:
    splits = {repo: "validation" if repo == "repo_5" else "train" for repo in short_files()}
    write_documents(short / "split", short_files(), splits)
    for joins in (False, True):
        engine = cast(Any, SimpleNamespace(rank=0, world=1, device=torch.device("cpu"), batches=[]))
        engine.score = lambda batch, engine=engine: engine.batches.append(batch) or torch.zeros(1)
        engine.sum = list
        config = replace(CONFIG, repository_context=joins)
        work = pretrain._work(config, str(short / "split"), str(folder / "tokenizer"), "key", engine)
        stream = work.open_lane(0, None)
        assert any(" " in name for batch in (stream() for _ in range(8)) for name in batch.names) is joins
        assert work.validate(engine)["validation_loss"] == 0
        validated = [name for batch in engine.batches for name in batch.names]
        assert validated
        assert not any(" " in name for name in validated)


def test_a_corpus_without_an_order_cannot_be_joined(tmp_path: Path, encoder: prompt.Encoder) -> None:
    write_documents(tmp_path / "corpus", {"only": {"a.py": "x = 1\n"}}, {"only": "train"})
    (file,) = (tmp_path / "corpus" / "documents").iterdir()
    pq.write_table(pq.read_table(file).drop_columns(["order"]), file)
    assert lane(tmp_path, encoder)().used
    with pytest.raises(InputError, match="without the order of documents; build it again, or set"):
        joined_lane(tmp_path, encoder)()
    file.write_bytes(b"damaged")
    with pytest.raises(InputError, match="is damaged"):
        joined_lane(tmp_path, encoder)()


def test_a_corpus_smaller_than_a_batch_goes_round(tmp_path: Path, encoder: prompt.Encoder) -> None:
    write_documents(tmp_path / "corpus", {"only": {"a.py": "x = 1\n"}}, {"only": "train"})
    streams = [lane(tmp_path, encoder, lane=number, lanes=3) for number in range(3)]
    assert all(stream().used >= 1_000 for stream in streams)


def test_a_corpus_without_text_is_refused(tmp_path: Path, encoder: prompt.Encoder) -> None:
    write_documents(tmp_path / "corpus", {"only": {"a.py": " \n"}}, {"only": "train"})
    with pytest.raises(InputError, match="has no text in its train split"):
        lane(tmp_path, encoder)()


def test_the_mixture_takes_fewer_of_what_weighs_less(folder: Path, encoder: prompt.Encoder) -> None:
    mixture = tuple((f"repo_{number}", 0.0) for number in range(1, 6))
    stream = lane(folder, encoder, replace(CONFIG, fim_rate=0.0, mixture=mixture))
    text = encoder.decode(stream().ids.tolist())
    assert "of repo_0:" in text
    assert not any(f"of repo_{number}:" in text for number in range(1, 6))


@pytest.mark.parametrize("room", range(1, 12))
def test_cutting_never_splits_a_character(encoder: prompt.Encoder, room: int) -> None:
    text = "é漢字😀 = '\ufffd' # ünï\n" * 3
    place = 0
    pieces = []
    while place < len(text):
        ids, length = cut(encoder, text, place, room)
        assert len(ids) <= room
        assert length > 0
        pieces.append((encoder.decode(ids), text[place : place + length]))
        place += length
    if room >= 4:
        assert all(hit == expected for hit, expected in pieces)


class Numbers(Listed):
    """Items of known lengths."""

    what = "numbers"

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Item | None:
        length = self.lengths[index]
        return plain_item([index] * length, group="any") if length > 1 else None


def test_every_example_is_read_once_an_epoch_and_rows_are_full() -> None:
    items = Numbers([int(20 + 200 * draw("length", number)) for number in range(400)])
    stream = ItemLane(items, 1_024, seed=1, lane=0, lanes=1)
    seen: list[int] = []
    used = positions = 0
    while len(seen) < 400:
        batch = stream()
        seen += sorted(set(batch.ids[: batch.used].tolist()))
        used, positions = used + batch.used, positions + 1_024
    assert len(set(seen[:300])) == 300
    assert used >= 0.98 * positions


def test_packed_examples_resume_twice() -> None:
    items = Numbers([int(20 + 200 * draw("length", number)) for number in range(50)])
    undisturbed = ItemLane(items, 512, seed=1, lane=1, lanes=2)
    expected = [undisturbed() for _ in range(30)]
    entries: list[Batch] = []
    state: State | None = None
    for count in (4, 11, 15):
        part = ItemLane(items, 512, seed=1, lane=1, lanes=2, state=state)
        entries += [part() for _ in range(count)]
        state = part.state
    assert all(map(same, expected, entries))


def test_examples_of_which_none_fits_are_refused() -> None:
    with pytest.raises(InputError, match="none of the 3 numbers fits"):
        ItemLane(Numbers([1, 1, 1]), 64, seed=0, lane=1, lanes=4)()


def test_rows_of_keeps_order() -> None:
    rows = rows_of([plain_item([n] * 5, group="any") for n in range(5)], 12)
    assert [[item.ids[0] for item in row] for row in rows] == [[0, 1], [2, 3], [4]]


def test_too_many_tokens_for_a_row_is_an_error() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        pack([plain_item([1] * 5, group="any")], 4)


def steps_of(world: int, states: Mapping[str, State], count: int) -> Iterator[tuple[list[list[int]], dict[str, State]]]:
    """The lanes' first tokens at each of `count` steps, gathered from `world` loaders, and all states."""
    items = Numbers([10 + number for number in range(30)])
    config = TrainConfig(batch_tokens=4 * 128, micro_batch_tokens=128)

    def open_lane(number: int, state: State | None) -> ItemLane:
        return ItemLane(items, 128, seed=3, lane=number, lanes=4, state=state)

    loaders = [Loader(open_lane, config, rank=rank, world=world, states=states) for rank in range(world)]
    for _ in range(count):
        entries = [loader.next() for loader in loaders]
        assert {len(batches) for batches, _ in entries} == {-(-4 // world)}
        rows = [batch.ids.tolist() for batches, _ in entries for batch in batches if batch.used]
        yield sorted(rows), {name: state for _, part in entries for name, state in part.items()}
    for loader in loaders:
        loader.close()


def test_any_number_of_workers_reads_the_same_batches() -> None:
    expected = [rows for rows, _ in steps_of(1, {}, 6)]
    first = list(steps_of(2, {}, 3))
    then = list(steps_of(3, first[-1][1], 3))
    assert [rows for rows, _ in [*first, *then]] == expected


def test_an_error_in_the_data_reaches_the_training() -> None:
    def broken(_number: int, _state: State | None) -> ItemLane:
        raise InputError("cannot be read")

    loader = Loader(broken, TrainConfig(), rank=0, world=1, states={})
    with pytest.raises(InputError, match="cannot be read"):
        loader.next()
    loader.close()
