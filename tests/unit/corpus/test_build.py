"""The corpus stage as a whole: what it keeps, what it says about the rest, and that it survives being killed."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from infill import manifest, storage
from infill.artifacts import corpus_tables
from infill.config import CorpusConfig
from infill.corpus import corpus_stage, dedup, shards, sources
from infill.errors import InputError
from tests.builders import once, run_stage
from tests.unit.corpus.folders import GPL, MIT, write_files, write_repositories
from tests.unit.corpus.privacy_cases import KINDS


def rows(output: Path, part: str) -> list[dict[str, Any]]:
    return storage.read_table(str(output / part)).to_pylist()


def digests(output: Path) -> dict[str, Any]:
    return manifest.load(str(output)).files


def config(folder: Path, **changes: Any) -> CorpusConfig:
    return CorpusConfig(sources=(f"dir:{folder}",), **changes)


def test_documents_and_removed_files_add_up_to_what_is_there(tmp_path: Path) -> None:
    source, output = write_repositories(tmp_path / "code", 5), tmp_path / "out"
    write_files(source, {"gpl/COPYING": GPL, "gpl/a.py": "x = 1\n", "nobody/a.py": "x = 2\n"})
    write_files(source / "repo_0", {"bad.py": "é".encode()[:1], "bin.py": b"\0", "copy.py": "x = 3\n"})
    write_files(source / "repo_1", {"copy.py": "x = 3\n", "gpl.py": "# SPDX-License-Identifier: GPL-3.0-only\n"})
    (source / "empty").mkdir()
    metrics = run_stage("corpus", config(source), str(output))
    documents, removed = rows(output, "documents"), rows(output, "removed")
    for folder in ("documents", "redacted", "removed", "signatures"):
        schema = getattr(corpus_tables, folder.upper())
        assert storage.read_table(str(output / folder)).schema.equals(schema)
    listed = [path for path in source.rglob("*") if path.is_file()]
    assert {f"{row['repo']}/{row['path']}" for row in documents + removed} == {
        path.relative_to(source).as_posix() for path in listed
    }
    assert {(row["repo"], row["path"]): row["reason"] for row in removed if not row["path"].endswith("LICENSE")} == {
        ("gpl", "COPYING"): "licence_not_permitted",
        ("gpl", "a.py"): "licence_not_permitted",
        ("nobody", "a.py"): "licence_unknown",
        ("repo_0", "bad.py"): "invalid_utf8",
        ("repo_0", "bin.py"): "binary",
        ("repo_1", "copy.py"): "duplicate",
        ("repo_1", "gpl.py"): "licence_not_permitted",
    }
    assert next(row["detail"] for row in removed if row["reason"] == "duplicate") == "repo_0/copy.py"
    for row in documents:
        assert (source / row["repo"] / row["path"]).read_text() == row["content"]
        assert hashlib.sha256(row["content"].encode()).hexdigest() == row["sha256"]
    assert metrics["documents_kept"] == len(documents) == 16
    assert metrics["documents_removed"] == len(removed)
    assert metrics["bytes_kept"] == sum(len(row["content"].encode()) for row in documents)
    assert (metrics["repositories"], metrics["repositories_empty"]) == (5, 1)
    report = storage.read_json(str(output / "report.json"))
    assert report["empty_repositories"] == ["empty"]
    assert {split: entry["repositories"] for split, entry in report["by_split"].items()} == {
        "train": 3,
        "test": 1,
        "validation": 1,
    }
    assert sum(entry["documents"] for entry in report["by_language"].values()) == 16
    assert "| MIT | 16 |" in (output / "DATASHEET.md").read_text()


def test_secrets_and_personal_data_are_replaced_before_copies_are_looked_for(tmp_path: Path) -> None:
    source, output = write_repositories(tmp_path / "code", 4), tmp_path / "out"
    keys = [KINDS["github_pat"](Random(seed)) for seed in range(2)]
    about = '"""The settings of the tool that builds and publishes the site of the whole group."""'
    for number, key in enumerate(keys):
        text = f'{about}\n\nTOKEN = "{key}"\nMAIL = "jane{number}@blueharbor.io"\n'
        write_files(source / f"repo_{number}", {"settings.py": text})
    pem = KINDS["pem_rsa"](Random(1))
    write_files(source / "repo_2", {"key.txt": pem})
    run_stage("corpus", config(source), str(output))
    documents = {(row["repo"], row["path"]): row["content"] for row in rows(output, "documents")}
    assert documents["repo_0", "settings.py"].endswith('\nTOKEN = "TOKEN_1"\nMAIL = "user1@example.com"\n')
    reasons = {(row["repo"], row["path"]): row["reason"] for row in rows(output, "removed")}
    assert reasons["repo_1", "settings.py"] == "duplicate"
    assert reasons["repo_2", "key.txt"] == "mostly_secrets"
    assert [(row["path"], row["kind"], row["line"], row["column"]) for row in rows(output, "redacted")] == [
        ("settings.py", "token", 3, 10),
        ("settings.py", "email", 4, 9),
    ]
    report = storage.read_json(str(output / "report.json"))
    assert report["redacted"] == {"email": {"places": 1, "documents": 1}, "token": {"places": 1, "documents": 1}}
    assert "| token | 1 | 1 |" in (output / "DATASHEET.md").read_text()
    secrets = [*keys, pem.split("\n")[1], "jane0"]
    for file in output.rglob("*"):
        assert file.is_dir() or not any(secret.encode() in content(file) for secret in secrets), file


def content(file: Path) -> bytes:
    """What a file holds; of a table, its values."""
    return str(storage.read_table(str(file)).to_pylist()).encode() if file.suffix == ".parquet" else file.read_bytes()


def test_nothing_is_replaced_where_no_kind_is_named(tmp_path: Path) -> None:
    source, output = write_repositories(tmp_path / "code", 4), tmp_path / "out"
    write_files(source / "repo_0", {"mail.py": 'MAIL = "jane@blueharbor.io"\n'})
    run_stage("corpus", config(source, redact=()), str(output))
    assert 'MAIL = "jane@blueharbor.io"\n' in [row["content"] for row in rows(output, "documents")]
    assert storage.read_json(str(output / "report.json"))["redacted"] == {}
    assert "They were not searched for" in (output / "DATASHEET.md").read_text()


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"corpus\.redact: unknown kind 'names'; choose from private_key, token"):
        CorpusConfig(redact=("names",))


def test_no_text_is_in_two_splits_and_no_repository_either(tmp_path: Path) -> None:
    source = write_repositories(tmp_path / "code", 12, files=2)
    for number in range(12):
        write_files(source / f"repo_{number}", {"shared.py": f"x = {number // 4}\n"})
    run_stage("corpus", config(source), str(tmp_path / "out"))
    documents = rows(tmp_path / "out", "documents")
    for column in ("sha256", "repo"):
        splits = {(row[column], row["split"]) for row in documents}
        assert len(splits) == len({row[column] for row in documents})


def module(seed: int, lines: int = 40, changed: int = 0) -> str:
    """A file of `lines` random lines, of which the last `changed` differ from those of the same seed."""
    words, other = random.Random(seed), random.Random(f"{seed} {changed}")
    rows = [" ".join(f"name_{words.randrange(5_000)}" for _ in range(8)) for _ in range(lines)]
    rows[lines - changed :] = [" ".join(f"name_{other.randrange(5_000)}" for _ in range(8)) for _ in range(changed)]
    return "\n".join(rows) + "\n"


def similarity(first: str, second: str) -> float:
    return dedup.jaccard(first.encode(), second.encode())


def test_a_near_duplicate_is_removed_for_the_one_in_fewer_folders(tmp_path: Path) -> None:
    source = write_repositories(tmp_path / "code", 5)
    write_files(source / "repo_0", {"lib/deep/area.py": module(1), "own.py": module(2)})
    write_files(source / "repo_3", {"area.py": module(1, changed=3)})
    run_stage("corpus", config(source), str(tmp_path / "out"))
    (row,) = [row for row in rows(tmp_path / "out", "removed") if row["reason"] == "near_duplicate"]
    assert (row["repo"], row["path"]) == ("repo_0", "lib/deep/area.py")
    assert row["detail"] == f"repo_3/area.py, similarity {similarity(module(1), module(1, changed=3)):.3f}"
    run_stage("corpus", config(source, near_duplicate_similarity=0), str(tmp_path / "all"))
    assert not [row for row in rows(tmp_path / "all", "removed") if row["reason"] == "near_duplicate"]


def test_no_close_documents_are_in_two_splits(tmp_path: Path) -> None:
    """Every repository has a file that some resemble to 0.5 to 1; half of the others are forks."""
    source = write_repositories(tmp_path / "code", 24, files=2)
    for number in range(24):
        files = {"shared.py": module(number % 3, changed=number % 12), "own.py": module(100 + number)}
        files |= {f"fork_{each}.py": module(200 + number // 2 * 10 + each, changed=number % 2) for each in range(3)}
        write_files(source / f"repo_{number}", files)
    run_stage("corpus", config(source, test_share=0.3, validation_share=0.2), str(tmp_path / "out"))
    documents, removed = rows(tmp_path / "out", "documents"), rows(tmp_path / "out", "removed")
    for first, second in combinations(documents, 2):
        if first["split"] != second["split"]:
            assert similarity(first["content"], second["content"]) < 0.6
    assert len({row["split"] for row in documents}) == 3
    assert {row["reason"] for row in removed} >= {"near_duplicate", "near_held_out"}
    split_of = {row["repo"]: row["split"] for row in documents}
    assert all(split_of[f"repo_{number}"] == split_of[f"repo_{number + 1}"] for number in range(0, 24, 2))
    texts = {f"{row['repo']}/{row['path']}": row["content"] for row in documents}
    for row in removed:
        if row["reason"] in ("near_duplicate", "near_held_out"):
            kept, _, line = row["detail"].partition(", similarity ")
            text = texts[kept.partition(" in the ")[0]]
            result = similarity((source / row["repo"] / row["path"]).read_text(), text)
            assert float(line) == pytest.approx(result, abs=6e-4)
            assert result >= (0.7 if row["reason"] == "near_duplicate" else 0.6)


def test_a_new_batch_is_compared_with_earlier_corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_repositories(tmp_path / "first", 8)
    write_files(first / "repo_0", {"deep/down/area.py": module(1), "close.py": module(2)})
    run_stage("corpus", config(first), str(tmp_path / "corpus"))
    second = write_files(tmp_path / "second", {f"{name}/LICENSE": MIT for name in ("new", "repo_0", "fork")})
    write_files(
        second,
        {"new/area.py": module(1, changed=1), "new/own.py": module(3), "fork/b.py": module(2, changed=10)}
        | {"new/exact.py": (first / "repo_1" / "package" / "module_0.py").read_bytes(), "repo_0/more.py": module(4)},
    )
    read: list[str] = []
    monkeypatch.setattr(sources, "reader", _recording(sources.reader, read))
    run_stage("corpus", config(second, earlier=(str(tmp_path / "corpus"),)), str(tmp_path / "batch"))
    assert {Path(root).parent.name for root in read} == {"second"}  # nothing of the first is read again
    removed = {f"{row['repo']}/{row['path']}": row for row in rows(tmp_path / "batch", "removed")}
    assert removed["new/area.py"]["reason"] == "near_duplicate"
    assert removed["new/area.py"]["detail"].startswith("repo_0/deep/down/area.py, similarity 0.9")
    assert (removed["new/exact.py"]["reason"], removed["new/exact.py"]["detail"]) == (
        "duplicate",
        "repo_1/package/module_0.py",
    )
    documents = {f"{row['repo']}/{row['path']}": row["split"] for row in rows(tmp_path / "batch", "documents")}
    assert documents.keys() == {"new/own.py", "repo_0/more.py", "fork/b.py"}
    before = {row["repo"]: row["split"] for row in rows(tmp_path / "corpus", "documents")}
    assert documents["repo_0/more.py"] == documents["fork/b.py"] == before["repo_0"]


def test_copies_of_what_an_earlier_corpus_should_no_longer_have_are_withdrawn_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = write_repositories(tmp_path / "first", 8)
    write_files(first / "repo_0", {"deep/area.py": module(1), "other.py": module(2)})
    run_stage("corpus", config(first), str(tmp_path / "corpus"))
    files = {"new/exact.py": module(1), "new/near.py": module(1, changed=1), "new/other.py": module(2)}
    second = write_files(tmp_path / "second", {"new/LICENSE": MIT, "new/own.py": module(3), **files})
    asked = tmp_path / "opt-out.toml"
    asked.write_text('[[opt_out]]\nrepository = "REPO_0"\npath = "deep/"\nreason = "ticket 7"\n')
    wanted = config(second, earlier=(str(tmp_path / "corpus"),), opt_out=str(asked))
    run_stage("corpus", wanted, str(tmp_path / "batch"))
    removed = {row["path"]: (row["reason"], row["detail"]) for row in rows(tmp_path / "batch", "removed")}
    assert {path: reason for path, (reason, _) in removed.items() if path.endswith(".py")} == {
        "exact.py": "opted_out",
        "near.py": "opted_out",
        "other.py": "duplicate",
    }
    assert removed["exact.py"][1] == "REPO_0: deep/ (ticket 7); a copy of repo_0/deep/area.py"
    assert removed["near.py"][1].startswith("REPO_0: deep/ (ticket 7); a copy of repo_0/deep/area.py, similarity 0.9")
    report = storage.read_json(str(tmp_path / "batch" / "report.json"))
    assert report["earlier_opted_out"] == {"REPO_0: deep/ (ticket 7)": 1}
    assert "still have 1 documents" in (tmp_path / "batch" / "DATASHEET.md").read_text()
    assert "1 documents of" in caplog.text


def test_what_holds_a_passage_of_a_benchmark_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_repositories(tmp_path / "code", 6)
    for number in (1, 2):
        write_files(source / f"repo_{number}", {f"leak_{number}.py": f"{module(50 + number)}{module(number)}"})
    task = {"task_id": "own/1", "prompt": module(1), "canonical_solution": "", "suffix": ""}
    folder = write_files(tmp_path / "a folder", {"tasks.jsonl": json.dumps(task)})
    write_files(tmp_path / "env", {"deep/second.py": module(2)})
    monkeypatch.delenv("INFILL_BENCH_DIR", raising=False)
    before = corpus_stage.outside(config(source), {})
    monkeypatch.setenv("INFILL_BENCH_DIR", str(tmp_path / "env"))
    wanted = config(source, benchmarks=(str(folder),), shard_bytes=4_000)
    assert corpus_stage.outside(wanted, {}).keys() - before.keys() == {"benchmarks"}
    run_stage("corpus", wanted, str(tmp_path / "out"))
    removed = {row["path"]: row for row in rows(tmp_path / "out", "removed") if row["reason"] == "benchmark_overlap"}
    first_words = module(1)[:60]
    assert removed.keys() == {"leak_1.py", "leak_2.py"}
    assert removed["leak_1.py"]["detail"].startswith(f'own/1 (tasks.jsonl): "{first_words}')
    assert removed["leak_2.py"]["detail"].startswith('deep/second.py: "')
    assert storage.read_json(str(tmp_path / "out" / "report.json"))["removed"]["benchmark_overlap"]["documents"] == 2


@pytest.mark.parametrize("stage", ["corpus", "examples"])
def test_an_artifact_stands_for_what_it_holds_out(tmp_path: Path, stage: str) -> None:
    source = write_repositories(tmp_path / "code", 6)
    run_stage("corpus", config(source), str(tmp_path / "first"))
    held = {row["content"] for row in rows(tmp_path / "first", "documents") if row["split"] != "train"}
    place = tmp_path / "first"
    if stage == "examples":
        holes = [{"id": "h", "prefix": text[:40], "middle": text[40:60], "suffix": text[60:]} for text in held]
        for name in ("test", "train"):
            rows_ = holes if name == "test" else [{"id": "t", "prefix": module(9), "middle": "", "suffix": ""}]
            storage.write_table(str(tmp_path / "holes" / "examples" / f"{name}.parquet"), pa.Table.from_pylist(rows_))
        place = tmp_path / "holes"
        once(stage=stage, version=1, config=CorpusConfig(), inputs={}, output=str(place), body=dict)
    write_files(source / "repo_0", {"trained_on.py": module(9)})
    run_stage("corpus", config(source, benchmarks=(str(place),)), str(tmp_path / "second"))
    kept = {row["content"] for row in rows(tmp_path / "second", "documents")}
    assert held
    assert kept.isdisjoint(held)
    assert module(9) in kept


def test_a_folder_that_is_not_a_corpus_with_signatures_is_refused(tmp_path: Path) -> None:
    source = write_repositories(tmp_path / "code", 2)
    with pytest.raises(InputError, match="not a finished artifact"):
        run_stage("corpus", config(source, earlier=(str(tmp_path),)), str(tmp_path / "out"))


def _recording(function: Callable[..., Any], roots: list[str]) -> Callable[..., Any]:
    def record(root: str, *arguments: Any) -> Any:
        roots.append(root)
        return function(root, *arguments)

    return record


def test_a_huge_file_is_removed_by_its_size_and_a_fifo_does_not_block(tmp_path: Path) -> None:
    source = write_repositories(tmp_path / "code", 1)
    os.truncate(write_files(source / "repo_0", {"huge.py": "x"}) / "huge.py", 500_000_000)  # a sparse file
    os.mkfifo(source / "repo_0" / "pipe.py")
    metrics = run_stage("corpus", config(source), str(tmp_path / "out"))
    removed = {row["path"]: row for row in rows(tmp_path / "out", "removed")}
    assert removed["huge.py"]["reason"] == "too_large"
    assert removed["huge.py"]["bytes"] == 500_000_000
    assert removed["pipe.py"]["reason"] == "special_file"
    assert metrics["bytes_read"] < 10_000


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"gpl/COPYING": GPL, "gpl/a.py": "x"}, r"can be used \(2 licence_not_permitted\)"),
        ({"a/LICENSE": MIT, "a/x.bin": "x", "b/LICENSE": MIT}, r"1 binary_name"),
        ({"empty/.git/HEAD": "x"}, "1 repositories without a file"),
    ],
)
def test_nothing_to_train_on_is_said_with_the_reasons(
    tmp_path: Path, files: dict[str, str | bytes], message: str
) -> None:
    source = write_files(tmp_path / "code", files)
    with pytest.raises(InputError, match=message):
        run_stage("corpus", config(source), str(tmp_path / "out"))


def test_with_few_repositories_files_are_split_and_the_report_says_so(tmp_path: Path) -> None:
    source = write_repositories(tmp_path / "code", 2, files=4)
    (source / "empty").mkdir()
    run_stage("corpus", config(source), str(tmp_path / "out"))
    assert {row["split"] for row in rows(tmp_path / "out", "documents")} == {"train", "validation", "test"}
    assert storage.read_json(str(tmp_path / "out" / "report.json"))["split_unit"] == "file"
    assert "may be in the test split" in (tmp_path / "out" / "DATASHEET.md").read_text()


def test_a_limit_takes_whole_repositories(tmp_path: Path) -> None:
    source = write_repositories(tmp_path / "code", 8)
    size = sum(path.stat().st_size for path in (source / "repo_0").rglob("*.py"))
    metrics = run_stage("corpus", config(source, max_total_bytes=4 * size), str(tmp_path / "out"))
    assert metrics["bytes_kept"] <= 4 * size
    assert metrics["repositories"] >= 3
    by_repository = storage.read_json(str(tmp_path / "out" / "report.json"))["by_repository"]
    assert {entry["documents"] for entry in by_repository.values()} == {3}
    assert metrics["removed_over_limit"] == (8 - metrics["repositories"]) * 3


def test_a_finished_corpus_is_not_built_again_until_the_sources_change(tmp_path: Path) -> None:
    source = write_repositories(tmp_path / "code", 4)
    metrics = run_stage("corpus", config(source), str(tmp_path / "out"))
    written = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    assert run_stage("corpus", config(source), str(tmp_path / "out")) == metrics
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == written
    write_files(source / "repo_0", {"new.py": "x = 1\n"})
    with pytest.raises(InputError, match="another corpus artifact"):
        run_stage("corpus", config(source), str(tmp_path / "out"))


def test_the_folder_holds_the_same_whatever_the_order_on_disk(tmp_path: Path) -> None:
    first = write_repositories(tmp_path / "a" / "code", 5)
    second = tmp_path / "b" / "code"
    for path in sorted((path for path in first.rglob("*") if path.is_file()), reverse=True):
        write_files(second, {path.relative_to(first).as_posix(): path.read_bytes()})
    run_stage("corpus", config(first, shard_bytes=2_000), str(tmp_path / "out_a"))
    run_stage("corpus", config(second, shard_bytes=2_000), str(tmp_path / "out_b"))
    wanted = [name for name in digests(tmp_path / "out_a") if name.endswith(".parquet")]
    assert len(wanted) > 4
    assert {name: digests(tmp_path / "out_b")[name] for name in wanted} == {
        name: digests(tmp_path / "out_a")[name] for name in wanted
    }


def test_the_order_covers_a_repository_in_many_shards_whatever_their_size_and_the_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_repositories(tmp_path / "code", 5)
    names = ["a", "k", "m", "t", "z"]  # each imports the next, so the last is read first
    lines = {name: f"from .{after} import x as {after}_x\n" for name, after in pairwise(names)}
    write_files(source / "repo_2", {f"core/{name}.py": f"{lines.get(name, '')}x = '{name}'\n" * 9 for name in names})
    write_files(source / "repo_2", {"core/t_copy.py": (source / "repo_2" / "core" / "t.py").read_bytes()})
    order: dict[tuple[int, int], Any] = {}
    for threads, size in ((1, 400), (4, 400), (2, 10_000_000)):
        with monkeypatch.context() as patch:
            patch.setattr(corpus_stage, "MAX_THREADS", threads)
            patch.setattr(os, "cpu_count", lambda: 8)
            output = tmp_path / f"{threads}-{size}"
            run_stage("corpus", config(source, shard_bytes=size), str(output))
        order[threads, size] = {(row["repo"], row["path"]): row["order"] for row in rows(output, "documents")}
    assert digests(tmp_path / "1-400") == digests(tmp_path / "4-400")
    assert len(list((tmp_path / "1-400" / "documents").iterdir())) > 10
    assert order[1, 400] == order[2, 10_000_000]
    places = [order[1, 400]["repo_2", f"core/{name}.py"] for name in names]
    assert places == sorted(places, reverse=True)
    assert len(set(places)) == 5


def _stop_after(count: int, function: Callable[..., int], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let `shards.<name>` fail after `count` calls."""
    calls = iter(range(count))

    def limited(*args: Any, **kwargs: Any) -> int:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    monkeypatch.setattr(shards, name, limited)


@pytest.mark.parametrize("phase", ["read", "finish"])
def test_an_interrupted_run_continues_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    source = write_repositories(tmp_path / "code", 6)
    wanted = config(source, shard_bytes=2_000)
    run_stage("corpus", wanted, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        _stop_after(3, getattr(shards, phase), patch, phase)
        with pytest.raises(KeyboardInterrupt):
            run_stage("corpus", wanted, str(tmp_path / "killed"))
    assert not (tmp_path / "killed" / "manifest.json").exists()
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("part-*.parquet")}
    assert len(done) >= 6
    run_stage("corpus", wanted, str(tmp_path / "killed"))
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
    kept = [path for path in done if path.exists()]
    assert all(path.stat().st_mtime_ns == done[path] for path in kept)
    assert not (tmp_path / "killed" / manifest.SCRATCH).exists()


def test_what_another_configuration_left_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_repositories(tmp_path / "code", 6)
    with monkeypatch.context() as patch:
        _stop_after(2, shards.finish, patch, "finish")
        with pytest.raises(KeyboardInterrupt):
            run_stage("corpus", config(source, shard_bytes=2_000), str(tmp_path / "out"))
    run_stage("corpus", config(source, shard_bytes=2_000, seed=1), str(tmp_path / "out"))
    run_stage("corpus", config(source, shard_bytes=2_000, seed=1), str(tmp_path / "fresh"))
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


def test_a_killed_process_leaves_nothing_that_spoils_the_next_run(tmp_path: Path) -> None:
    source = write_repositories(tmp_path / "code", 30, files=6)
    wanted = config(source, shard_bytes=4_000)
    run_stage("corpus", wanted, str(tmp_path / "whole"))
    script = (
        "from infill.config import CorpusConfig; from tests.builders import run_stage; "
        f"wanted = CorpusConfig(sources={wanted.sources!r}, shard_bytes=4_000); "
        f"run_stage('corpus', wanted, {str(tmp_path / 'killed')!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(corpus_stage.__file__).parents[2])
    candidates = tmp_path / "killed" / manifest.SCRATCH
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(candidates.rglob("part-*.parquet"))) < 5:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    run_stage("corpus", wanted, str(tmp_path / "killed"))
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.partial"))


def test_packages_are_read_with_their_licences(tmp_path: Path) -> None:
    wanted = CorpusConfig(sources=("packages:",), max_total_bytes=3_000_000, languages=("python",))
    metrics = run_stage("corpus", wanted, str(tmp_path / "out"))
    assert metrics["bytes_kept"] > 500_000
    assert {row["language"] for row in rows(tmp_path / "out", "documents")} == {"python"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "MIT" in report["by_licence"]
    held = {split: entry["bytes"] for split, entry in report["by_split"].items()}
    assert held["train"] > held["test"] + held["validation"]
    assert all(entry["documents"] for entry in report["by_split"].values())


def _killed_at_first(phase: str, work: Callable[..., int]) -> Callable[..., int]:
    """Return `work`, but the first process that has done shard 1 is killed before it tells so."""

    def dying(item: Any, **where: Any) -> int:
        marker = Path(where["output"]).with_name(f"{phase}.killed")
        done = work(item, **where)
        if item.number == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return dying


@pytest.mark.slow
@pytest.mark.usefixtures("ray_address")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ray.data's own settings are deprecated by ray.data
def test_ray_makes_the_same_corpus_though_its_workers_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_repositories(tmp_path / "code", 6)
    run_stage("corpus", config(source, shard_bytes=2_000), str(tmp_path / "local"))
    for phase in ("read", "finish"):
        monkeypatch.setattr(shards, phase, _killed_at_first(phase, getattr(shards, phase)))
    run_stage("corpus", config(source, shard_bytes=2_000, runtime="ray"), str(tmp_path / "ray"))
    assert {file.name for file in tmp_path.glob("*.killed")} == {"read.killed", "finish.killed"}
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
