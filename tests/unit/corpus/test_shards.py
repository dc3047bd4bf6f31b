"""Shards: cut by size, without losing or reordering a file; their files stream in small row groups."""

from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import storage
from infill.artifacts import corpus as artifact
from infill.config import CorpusConfig
from infill.corpus import shards, signals
from infill.corpus.licences import Statement
from infill.corpus.quality import CorpusDocument, Removal
from infill.corpus.shards import FileJob
from infill.corpus.sources import SourceFile, folders
from tests.unit.corpus.folders import write_files


def job(path: str, size: int, root: str = "", removal: Removal | None = None, licence: str = "MIT") -> FileJob:
    statement = None if licence == "NOASSERTION" else Statement(licence)
    return FileJob(repo="r", root=root, licence=statement, file=SourceFile(path=path, size=size), removal=removal)


def test_tables_are_read_in_the_order_of_their_shards_beyond_five_digits(tmp_path: Path) -> None:
    numbers = [0, 99_999, 100_000, 1_000_000]
    for number in reversed(numbers):
        storage.write_table(artifact.part(str(tmp_path), artifact.DOCUMENTS, number), pa.table({"number": [number]}))
    tables = [storage.read_table(uri)["number"][0].as_py() for uri in artifact.documents(str(tmp_path))]
    assert tables == numbers


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans())))
def test_a_shard_holds_no_more_than_it_may(files: list[tuple[int, bool]]) -> None:
    removal = Removal("data")
    jobs = [job(str(number), size, removal=removal if out else None) for number, (size, out) in enumerate(files)]
    cut = list(shards.cut(jobs, 40))
    assert [job for shard in cut for job in shard.jobs] == jobs
    assert [shard.number for shard in cut] == list(range(len(cut)))
    for shard in cut:
        sizes = [job.file.size for job in shard.jobs if job.removal is None]
        assert sum(sizes) <= 40 or len(sizes) == 1


def test_a_header_overrides_the_repository_s_licence(tmp_path: Path) -> None:
    text = "# SPDX-License-Identifier: {}\nx = 1\n"
    write_files(tmp_path, {name: text.format(name) for name in ("ISC", "GPL-2.0-only")} | {"none": "x = 1\n"})
    by_name = {}
    for path in tmp_path.iterdir():
        for licence in ("MIT", "NOASSERTION"):
            outcome = shards.examine(
                job(path.name, 100, licence=licence),
                partial(folders.read, str(tmp_path)),
                CorpusConfig(),
                signals.Store({}),
            )
            by_name[path.name, licence] = (
                outcome.licence.expression if isinstance(outcome, CorpusDocument) else outcome.reason
            )
    assert by_name == {
        ("ISC", "MIT"): "ISC",
        ("ISC", "NOASSERTION"): "ISC",
        ("GPL-2.0-only", "MIT"): "licence_not_permitted",
        ("GPL-2.0-only", "NOASSERTION"): "licence_not_permitted",
        ("none", "MIT"): "MIT",
        ("none", "NOASSERTION"): "licence_unknown",
    }


def test_row_groups_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "GROUP_BYTES", 100)
    write_files(tmp_path, {f"{number}.py": f"x = {number:040}\n" for number in range(10)})
    jobs = tuple(job(f"{number}.py", 100, root=str(tmp_path)) for number in range(10))
    shards.read(shards.Shard(number=0, jobs=jobs), CorpusConfig(), str(tmp_path / "scratch"), str(tmp_path / "out"))
    written = pq.ParquetFile(shards.candidates_uri(str(tmp_path / "scratch"), 0))
    assert [written.metadata.row_group(number).num_rows for number in range(written.num_row_groups)] == [3, 3, 3, 1]
