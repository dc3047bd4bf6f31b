import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import examples, storage
from infill.artifacts.corpus import documents
from infill.artifacts.examples import SPLITS, read_holes, request_of
from infill.config import CorpusConfig, ExamplesConfig
from infill.errors import InfillError, InputError
from infill.prompt import ContextItem
from tests import builders
from tests.builders import run_stage

CONFIG = ExamplesConfig(holes=40, validation_holes=6, test_holes=6)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    corpus = builders.write_documents(folder / "corpus", builders.tiny_repositories())
    return corpus, builders.tiny_tokenizer(folder / "tokenizer")


@pytest.fixture(scope="module")
def built(inputs: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("examples")
    metrics = run_stage("examples", CONFIG, *inputs, output=str(output))
    assert metrics == {"holes_train": 40, "holes_validation": 6, "holes_test": 6}
    return output


def test_prefix_middle_and_suffix_are_the_file(built: Path) -> None:
    repositories = builders.tiny_repositories()
    for split in SPLITS:
        for row in storage.read_table(str(built / "examples" / f"{split}.parquet")).to_pylist():
            assert row["prefix"] + row["middle"] + row["suffix"] == repositories[row["repo"]][row["path"]]
            assert 0 < len(row["middle"]) <= CONFIG.split.max_middle_chars
            assert row["split"] == split


def test_held_out_splits_come_from_held_out_repositories_only(built: Path) -> None:
    repos = {
        split: set(storage.read_table(str(built / "examples" / f"{split}.parquet"))["repo"].to_pylist())
        for split in SPLITS
    }
    assert repos["test"] == {"repo_5"}
    assert repos["validation"] == {"repo_4"}
    assert repos["train"] == {"repo_0", "repo_1", "repo_2", "repo_3"}


def test_context_comes_from_the_same_repository_and_another_file(built: Path) -> None:
    repositories = builders.tiny_repositories()
    rows = storage.read_table(str(built / "examples" / "train.parquet")).to_pylist()
    assert {row["strategy"] for row in rows} == {name for name, _ in ExamplesConfig().strategies}
    for row in rows:
        assert bool(row["context"]) == (row["strategy"] != "none")
        for item in row["context"]:
            assert item["path"] != row["path"]
            assert item["text"] in repositories[row["repo"]][item["path"]]


def test_items_are_kept_from_the_best_on_while_there_is_room() -> None:
    items = [ContextItem(path=f"{size}.py", text="x" * size) for size in (5, 2, 90, 3)]
    assert [item.path for item in examples.within_chars(9, items)] == ["2.py", "3.py"]
    assert [*examples.within_chars(100, items)] == items
    assert [*examples.within_chars(0, items)] == []


def test_evaluation_holes_use_the_evaluation_strategy(built: Path) -> None:
    rows = storage.read_table(str(built / "examples" / "test.parquet")).to_pylist()
    assert {row["strategy"] for row in rows} == {"infill"}


def test_report_counts_every_hole(built: Path) -> None:
    report = storage.read_json(str(built / "report.json"))
    total = sum(report["holes"].values())
    assert total == sum(report["kinds"].values()) == sum(report["strategies"].values()) == 52
    assert report["empty_context"]["why"] == {"no context wanted": report["strategies"]["none"]}
    assert not (built / "scratch").exists()


def _digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*.parquet"))}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_holes(
    built: Path, inputs: tuple[str, str], tmp_path: Path
) -> None:
    run_stage("examples", CONFIG, *inputs, output=str(tmp_path / "again"))
    assert _digests(tmp_path / "again") == _digests(built)
    run_stage("examples", replace(CONFIG, seed=1), *inputs, output=str(tmp_path / "other"))
    assert _digests(tmp_path / "other")["train.parquet"] != _digests(built)["train.parquet"]


def test_a_killed_run_continues_with_the_next_shard_and_ends_the_same(
    built: Path, inputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "SHARD_BYTES", 1)
    monkeypatch.setattr(examples, "processes", lambda: 1)
    read: list[str] = []
    whole = examples.load

    def load(shard: list[examples.RepositorySplit]) -> dict[tuple[str, str], list[examples.ExampleDocument]]:
        read.append(shard[0].name)
        if len(read) == 4:
            raise KeyboardInterrupt
        return whole(shard)

    monkeypatch.setattr(examples, "load", load)
    with pytest.raises(KeyboardInterrupt):
        run_stage("examples", CONFIG, *inputs, output=str(tmp_path))
    run_stage("examples", CONFIG, *inputs, output=str(tmp_path))
    assert read == ["repo_0", "repo_1", "repo_2", "repo_3", "repo_3", "repo_4", "repo_5"]
    rows = [
        storage.read_table(str(folder / "examples" / "train.parquet")).sort_by("id") for folder in (tmp_path, built)
    ]
    assert rows[0].equals(rows[1])


def test_several_processes_give_the_same(
    built: Path, inputs: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "SHARD_BYTES", 9_000)
    monkeypatch.setattr(examples, "processes", lambda: 2)
    run_stage("examples", CONFIG, *inputs, output=str(tmp_path))
    for split in SPLITS:
        name = f"examples/{split}.parquet"
        assert storage.read_table(str(tmp_path / name)).equals(storage.read_table(str(built / name)))


def test_a_process_that_dies_is_reported_and_its_work_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "processes", lambda: 2)
    with pytest.raises(InfillError, match="was killed, most likely because memory ran out"):
        list(examples.run_all(os._exit, [(1,), (1,)]))


def test_one_repository_is_split_by_file_and_no_context_crosses(inputs: tuple[str, str], tmp_path: Path) -> None:
    source = tmp_path / "code" / "only"
    source.mkdir(parents=True)
    (source / "pyproject.toml").write_text('[project]\nname = "only"\nlicense = "MIT"\n')
    modules = [text for files in builders.tiny_repositories().values() for text in files.values()]
    for number, text in enumerate(modules):
        (source / f"module_{number}.py").write_text(f"{text}\nNUMBER_{number} = {number}\n")
    config = CorpusConfig(
        sources=(f"dir:{source.parent}",),
        near_duplicate_similarity=0.0,  # the modules are alike
        split_similarity=0.0,
        validation_share=0.3,
        test_share=0.3,
    )
    run_stage("corpus", config, str(tmp_path / "corpus"))
    split_of = {
        row["path"]: row["split"]
        for file in documents(str(tmp_path / "corpus"))
        for row in storage.read_table(file, ["path", "split"]).to_pylist()
    }
    assert set(split_of.values()) == set(SPLITS)
    output = str(tmp_path / "examples")
    run_stage("examples", CONFIG, str(tmp_path / "corpus"), inputs[1], output=output)
    for split in SPLITS:
        rows = read_holes(output, split, 40)
        assert rows.num_rows
        for row in rows.to_pylist():
            assert {split_of[path] for path in (row["path"], *(item["path"] for item in row["context"]))} == {split}


def test_a_corpus_without_source_code_is_refused_with_what_to_do(inputs: tuple[str, str], tmp_path: Path) -> None:
    corpus = builders.write_documents(tmp_path / "corpus", {"notes": {"a.md": "# text"}}, language="markdown")
    with pytest.raises(InputError, match=r"no hole could be cut .* add sources"):
        run_stage("examples", CONFIG, corpus, inputs[1], output=str(tmp_path / "out"))


def test_an_empty_test_split_is_an_empty_table(inputs: tuple[str, str], tmp_path: Path) -> None:
    corpus = builders.write_documents(tmp_path / "corpus", builders.tiny_repositories(count=1), {"repo_0": "train"})
    run_stage("examples", CONFIG, corpus, inputs[1], output=str(tmp_path / "out"))
    assert read_holes(str(tmp_path / "out"), "test", 5).num_rows == 0


def test_read_holes_takes_the_first_by_id_and_requests_round_trip(built: Path) -> None:
    rows = storage.read_table(str(built / "examples" / "train.parquet")).sort_by("id")
    few = read_holes(str(built), "train", 7)
    assert few.equals(rows.slice(0, 7).combine_chunks()) or few["id"].to_pylist() == rows["id"].to_pylist()[:7]
    row = few.to_pylist()[0]
    request = request_of(row)
    assert (request.path, request.prefix, request.suffix) == (row["path"], row["prefix"], row["suffix"])
    assert [vars(item) for item in request.context] == row["context"]


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.parquet is missing"):
        read_holes(str(tmp_path), "train", 1)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "train.parquet").write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(InputError, match=r"train\.parquet is damaged"):
        read_holes(str(tmp_path), "train", 1)


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 2_000), max_size=30), st.integers(0, 50_000))
def test_fill_spends_the_total_within_the_capacity(documents: dict[str, int], total: int) -> None:
    quota = examples.fill(documents, total)
    capacity = {name: n * examples.HOLES_PER_DOCUMENT for name, n in documents.items() if n}
    assert sum(quota.values()) == min(total, sum(capacity.values()))
    assert all(0 <= quota[name] <= capacity[name] for name in capacity)


def test_fill_keeps_the_largest_from_crowding_out_the_others() -> None:
    quota = examples.fill({"large": 10_000, "middle": 100, "small": 1}, 1_000)
    assert quota["small"] <= examples.HOLES_PER_DOCUMENT
    assert 8 < quota["large"] / quota["middle"] < 12
