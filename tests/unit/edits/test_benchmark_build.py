from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pygit2
import pytest

from infill import manifest, storage
from infill.artifacts import benchmark as artifact
from infill.config import EvaluateConfig
from infill.corpus.benchmarks import _tasks
from infill.edits.benchmark_build import BenchmarkConfig, build
from infill.edits.changes import is_bot
from infill.errors import InputError
from tests import builders
from tests.builders import run_stage
from tests.unit.edits import histories


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("code") / "widgets.git"
    return folder, histories.build(folder)


@pytest.fixture(autouse=True)
def _no_public_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFILL_BENCH_DIR", raising=False)


def config_of(place: tuple[Path, dict[str, str]], **settings: Any) -> BenchmarkConfig:
    return BenchmarkConfig(sources=(f"git:{place[0]}",), after="2025-01-01", holes=100, **settings)


@pytest.fixture(scope="module")
def whole(place: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> str:
    """All holes with their answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("INFILL_BENCH_DIR", raising=False)
        output = str(tmp_path_factory.mktemp("whole"))
        build(config_of(place, held_back=0.0), output)
    return output


def rows_of(benchmark: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = storage.read_table(storage.join(benchmark, "examples", "test.parquet")).to_pylist()
    return rows


def origins(benchmark: str) -> dict[str, dict[str, str]]:
    table = storage.read_table(storage.join(benchmark, artifact.ORIGINS_FILE))
    return {row["id"]: row for row in table.to_pylist()}


def texts(repository: pygit2.Repository, tree: pygit2.Tree) -> Iterator[str]:
    for entry in tree:
        if isinstance(entry, pygit2.Tree):
            yield from texts(repository, entry)
        elif isinstance(entry, pygit2.Blob):
            yield entry.data.decode()


def text_at(tree: pygit2.Tree, path: str) -> str:
    blobs = [tree[path]] if path in tree else []
    return "".join(blob.data.decode() for blob in blobs if isinstance(blob, pygit2.Blob))


def test_an_answer_is_in_the_prompt_only_if_it_was_in_the_repository_before(
    place: tuple[Path, dict[str, str]], whole: str
) -> None:
    repository = pygit2.Repository(str(place[0]))
    where = origins(whole)
    assert len(where) > 12
    for row in rows_of(whole):
        before = list(texts(repository, repository[where[row["id"]]["parent"]].peel(pygit2.Commit).tree))
        shown = [item["text"].replace("TOKEN_1", histories.TOKEN) for item in row["context"]]
        assert all(any(text in old for old in before) for text in shown)
        if not any(row["middle"] in old for old in before):
            assert not any(row["middle"] in text for text in (*shown, row["prefix"], row["suffix"]))


def test_a_hole_is_in_the_lines_that_its_commit_added_to_the_parents_file(
    place: tuple[Path, dict[str, str]], whole: str
) -> None:
    repository = pygit2.Repository(str(place[0]))
    for row in rows_of(whole):
        origin = origins(whole)[row["id"]]
        parent, commit = (repository[origin[name]].peel(pygit2.Commit) for name in ("parent", "commit"))
        old, new = (text_at(each.tree, row["path"]) for each in (parent, commit))
        assert row["middle"] in new
        if old and not row["path"].startswith("app.py"):
            assert row["prefix"] + row["middle"] + row["suffix"] == new  # one place changed


def test_what_nobody_wrote_is_left_out_and_counted(place: tuple[Path, dict[str, str]], whole: str) -> None:
    counts = manifest.read_report(whole)["counts"]
    reasons = {reason: n for numbers in counts.values() for reason, n in numbers.items()}
    expected = {*place[1]} - {"renamed"}
    assert {reason for reason in expected if reasons.get(reason)} == expected
    used = {origin["commit"] for origin in origins(whole).values()}
    assert not used & {place[1][reason] for reason in expected}
    card = (Path(whole) / artifact.CARD_FILE).read_text()
    assert all(f"| {reason} |" in card for reason in expected)
    assert histories.TOKEN not in str(rows_of(whole))


@pytest.mark.parametrize(
    ("author", "expected"),
    [
        ("dependabot[bot] 49699333+dependabot[bot]@users.noreply.github.com", True),
        ("Renovate Bot bot@renovateapp.com", True),
        ("jenkins-ci builds@example.org", True),
        ("Build jenkins@example.org", True),
        ("Kim Jenkins kim@example.org", False),
        ("Abbott Talbot abbott@example.org", False),
    ],
)
def test_programs_are_distinguished_from_people(author: str, expected: bool) -> None:
    assert is_bot(author) is expected


def test_the_old_name_of_a_renamed_file_is_not_context(place: tuple[Path, dict[str, str]], whole: str) -> None:
    commits = {name: origin["commit"] for name, origin in origins(whole).items()}
    renamed = [row for row in rows_of(whole) if commits[row["id"]] == place[1]["renamed"]]
    assert renamed
    assert all(item["path"] != "app.py" for row in renamed for item in row["context"])


def test_the_same_seed_gives_the_same_tables_and_another_one_others(
    place: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    few = replace(config_of(place), holes=6)
    tables = [build(each, str(tmp_path / str(number))).files for number, each in enumerate((few, few))]
    other = build(replace(few, seed=1), str(tmp_path / "other")).files
    assert tables[0] == tables[1]
    assert tables[0]["examples/test.parquet"] != other["examples/test.parquet"]
    rows = rows_of(str(tmp_path / "0"))
    assert {row["language"] for row in rows} == {"python", "go"}  # balanced: the first six have both
    assert len({row["unit"] for row in rows}) >= 3


def test_held_back_answers_are_only_hashes_that_recognise_them(
    place: tuple[Path, dict[str, str]], whole: str, tmp_path: Path
) -> None:
    build(config_of(place, held_back=1.0), str(tmp_path))
    answers = {row["id"]: row["middle"] for row in rows_of(whole)}
    hidden = artifact.read_held_back(str(tmp_path), 1_000).to_pylist()
    assert {row["id"] for row in hidden} | {row["id"] for row in rows_of(str(tmp_path))} == set(answers)
    assert hidden
    assert all("middle" not in row for row in hidden)
    for row in hidden:
        assert artifact.is_answer(answers[row["id"]], row)
        assert not artifact.is_answer(answers[row["id"]] + " ", row)


def test_a_corpus_that_has_the_answers_leaves_no_hole(place: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    tip = pygit2.Repository(str(place[0]))
    known = {f"part{n}.py": text for n, text in enumerate(texts(tip, tip.revparse_single("main").peel(pygit2.Tree)))}
    known["gone.py"] = histories.function(20)
    known |= {f"{n}.go": histories.function(n, "go") for n in range(6)}
    corpus = builders.write_documents(tmp_path / "corpus", {"seen": known})
    clean = builders.write_documents(tmp_path / "clean", {"other": {"a.py": "def area(side):\n    return side**2\n"}})
    report = manifest.read_report(build(config_of(place, corpora=(clean,)), str(tmp_path / "all")).uri)
    assert report["counts"]["holes"].get("answer in a corpus", 0) == 0
    some = manifest.read_report(build(config_of(place, corpora=(corpus,)), str(tmp_path / "some")).uri)
    assert some["counts"]["holes"]["answer in a corpus"] > 0
    assert some["holes"] < report["holes"] / 2


def test_a_file_of_a_published_benchmark_gives_no_hole(place: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "task.go").write_text("package tool\n" + histories.function(0, "go") * 3)
    published = build(config_of(place, benchmarks=(str(tmp_path / "published"),)), str(tmp_path / "benchmark"))
    assert manifest.read_report(published.uri)["counts"]["holes"]["in a published benchmark"] > 0
    assert {row["language"] for row in rows_of(published.uri)} == {"python"}


def test_the_benchmark_is_evaluated_like_held_out_holes(place: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    build(replace(config_of(place, held_back=0.5), holes=12), str(tmp_path / "benchmark"))
    model = builders.tiny_model(tmp_path / "model")
    config = EvaluateConfig(max_new_tokens=8, max_prompt_tokens=160, bootstrap=50)
    run_stage("evaluate", config, str(tmp_path / "benchmark"), model, output=str(tmp_path / "evaluation"))
    record = storage.read_json(str(tmp_path / "evaluation" / "record.json"))
    hidden = artifact.read_held_back(str(tmp_path / "benchmark"), 100)
    assert record["held_back"]["holes"] == hidden.num_rows > 0
    assert record["holes"] == 12 - hidden.num_rows == sum(group["holes"] for group in record["by_unit"].values())
    assert set(record["by_language"]) <= {"python", "go"}
    table = storage.read_table(str(tmp_path / "evaluation" / "held_back_results.parquet"))
    assert table["id"].to_pylist() == hidden["id"].to_pylist()


def test_a_corpus_can_be_kept_clear_of_the_benchmark(whole: str) -> None:
    tasks = {task.texts[0] for task in _tasks(whole) if task.texts}
    assert {row["prefix"] + row["middle"] + row["suffix"] for row in rows_of(whole)} <= tasks


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sources": ("dir:/tmp",)}, "dir:/tmp has no history; name a Git repository as git:PATH"),
        ({"after": "2030-01-01"}, r"commits since 2030-01-01 \(commits: .* older.*choose an earlier date with --after"),
        ({"corpora": ("/nowhere",)}, "/nowhere is not a finished artifact"),
    ],
)
def test_mistakes_are_one_sentence(
    place: tuple[Path, dict[str, str]], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build(replace(config_of(place), **settings), str(tmp_path / "out"))
    assert not (tmp_path / "out" / "manifest.json").exists()
