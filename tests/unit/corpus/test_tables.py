"""Tables of files as a source: whatever its columns are called, on disk and in an object store."""

import datetime
import gzip
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infill import storage
from infill.config import CorpusConfig
from infill.corpus import sources
from infill.errors import InputError
from tests import object_store
from tests.builders import run_stage
from tests.unit.corpus.folders import GPL, MIT, write_files, write_repositories
from tests.unit.corpus.test_git import view

STACK: Final = CorpusConfig(columns=("the_stack_v2",))
COMMIT: Final = "a" * 40


def write(uri: str, rows: Sequence[Mapping[str, Any]], group: int = 2, **types: pa.DataType) -> str:
    table = pa.Table.from_pylist(list(rows))
    for name, kind in types.items():
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    with storage.open_write(uri) as file:
        pq.write_table(table, file, row_group_size=group)
    return uri


def listed(uri: str, config: CorpusConfig) -> dict[str, sources.Repository]:
    return {each.name: each for each in sources.repositories([f"parquet:{uri}"], config)}


def stack(
    repo: str, path: str, content: str | None, licences: Sequence[str] | None = ("MIT",), **more: Any
) -> dict[str, Any]:
    """A row as The Stack v2 has them."""
    data = (content or "").encode()
    return {
        "blob_id": hashlib.sha1(data).hexdigest(),
        "path": f"/{path}",
        "detected_licenses": licences,
        "license_type": "permissive",
        "repo_name": repo,
        "revision_id": COMMIT,
        "committer_date": datetime.datetime(2024, 2, 29, 12),
        "src_encoding": "UTF-8",
        "length_bytes": len(data),
        "content": content,
    } | more


def expression(repository: sources.Repository, path: str) -> str:
    statement = repository.coverage.of(path)
    return statement.expression if statement else ""


def test_a_table_is_read_as_the_folder_that_it_was_made_of(tmp_path: Path) -> None:
    folder = write_repositories(tmp_path / "code", 4)
    write_files(
        folder, {"repo_1/lib/COPYING": GPL, "repo_1/lib/a.py": "x", "repo_2/node_modules/a.js": "x", "repo_0/é.py": ""}
    )
    rows = [
        {
            "repo": path.relative_to(folder).parts[0],
            "path": "/".join(path.relative_to(folder).parts[1:]),
            "content": path.read_text(),
        }
        for path in sorted(folder.rglob("*"), reverse=True)
        if path.is_file()
    ]
    write(f"{tmp_path}/table/one.parquet", rows[::2], content=pa.large_string())
    write(f"{tmp_path}/table/two.parquet", rows[1::2], content=pa.binary())
    expected = {each.name: view(each) for each in sources.repositories([f"dir:{folder}"])}
    assert {name: view(each) for name, each in listed(f"{tmp_path}/table", CorpusConfig()).items()} == expected


@pytest.mark.parametrize("nested", [False, True])
def test_the_columns_of_the_stack_v2_are_known(tmp_path: Path, nested: bool) -> None:
    rows = [
        stack("o/one", "a.py", "x = 1\n"),
        stack("o/one", "b.py", "x = 2\n", ["MIT", "GPL-3.0-only"]),
        stack("o/one", "c.py", "x = 3\n", []),
        stack("o/two", "a.py", "x = 4\n", ["LicenseRef-scancode-proprietary"]),
    ]
    if nested:
        of_repository = ("repo_name", "revision_id", "committer_date")
        rows = [
            {name: rows[0][name] for name in of_repository}
            | {"repo_name": repo}
            | {
                "files": [
                    {name: row[name] for name in row if name not in of_repository}
                    for row in rows
                    if row["repo_name"] == repo
                ]
            }
            for repo in ("o/one", "o/two")
        ] + [{"repo_name": "o/empty", "files": []}, {"repo_name": "o/none", "files": None}]
    repositories = listed(write(f"{tmp_path}/t.parquet", rows), STACK)
    assert {name: [file.path for file in each.files] for name, each in repositories.items()} == {
        "o/one": ["a.py", "b.py", "c.py"],
        "o/two": ["a.py"],
    }
    assert [expression(repositories["o/one"], path) for path in ("a.py", "b.py", "c.py")] == [
        "MIT",
        "GPL-3.0-only AND MIT",
        "",
    ]
    assert expression(repositories["o/two"], "a.py") == "NOASSERTION" or "LicenseRef" in expression(
        repositories["o/two"], "a.py"
    )
    assert {(file.commit, file.date) for file in repositories["o/one"].files} == {(COMMIT, "2024-02-29T12:00:00Z")}
    assert [entry[3] for entry in view(repositories["o/one"])] == [b"x = 1\n", b"x = 2\n", b"x = 3\n"]


def test_any_columns_are_read_by_their_declared_names(tmp_path: Path) -> None:
    table = write(
        f"{tmp_path}/t.parquet",
        [{"project": "p", "file": "a.py", "text": "x = 1\n", "spdx": "mit", "when": "2024-02-29T12:00:00Z"}],
    )
    declared = CorpusConfig(columns=("repo=project", "path=file", "content=text", "licence=spdx", "date=when"))
    repository = listed(table, declared)["p"]
    assert expression(repository, "a.py") == "MIT"
    assert [(file.path, file.size, file.date) for file in repository.files] == [("a.py", 6, "2024-02-29T12:00:00Z")]


def test_a_corpus_of_ours_is_a_table_too(tmp_path: Path) -> None:
    run_stage(
        "corpus", CorpusConfig(sources=(f"dir:{write_repositories(tmp_path / 'code', 4)}",)), str(tmp_path / "first")
    )
    run_stage("corpus", CorpusConfig(sources=(f"parquet:{tmp_path}/first/documents",)), str(tmp_path / "second"))
    first, second = (storage.read_table(f"{tmp_path}/{name}/documents") for name in ("first", "second"))
    provenance = ["source", "licence_evidence"]
    assert first.drop_columns(provenance).equals(second.drop_columns(provenance))
    assert second["source"].unique().to_pylist() == ["parquet:documents"]


def test_contents_are_next_to_the_table_in_an_object_store(s3: str, tmp_path: Path) -> None:
    rows = [stack(f"o/{number % 3}", f"{number}.py", f"x = {number}\n" * 9) for number in range(9)]
    rows += [
        stack("o/latin", "a.py", "x = 'é'\n", src_encoding="ISO-8859-1"),
        stack("o/lost", "a.py", "gone"),
        stack("o/bomb", "a.py", "y"),
    ]
    for row in rows:
        data = row["content"].encode("latin-1" if row["src_encoding"] == "ISO-8859-1" else "utf-8")
        data = bytes(20_000_000) if row["repo_name"] == "o/bomb" else data
        if row["repo_name"] != "o/lost":
            storage.write_bytes(f"{s3}/content/{row['blob_id']}", gzip.compress(data))
    write(f"{s3}/table/part-0.parquet", [{name: row[name] for name in row if name != "content"} for row in rows])
    config = CorpusConfig(
        sources=(f"parquet:{s3}/table",), columns=("the_stack_v2",), blobs=f"{s3}/content", shard_bytes=300
    )
    run_stage("corpus", config, str(tmp_path / "out"))
    documents = {
        row["repo"] + "/" + row["path"]: row for row in storage.read_table(f"{tmp_path}/out/documents").to_pylist()
    }
    assert {name: row["content"] for name, row in documents.items()} == {
        f"{row['repo_name']}{row['path']}": row["content"]
        for row in rows
        if row["repo_name"] not in ("o/lost", "o/bomb")
    }
    assert {(row["commit"], row["date"], row["licence"]) for row in documents.values()} == {
        (COMMIT, "2024-02-29T12:00:00Z", "MIT")
    }
    removed = {row["repo"]: row["detail"] for row in storage.read_table(f"{tmp_path}/out/removed").to_pylist()}
    assert removed.keys() == {"o/lost", "o/bomb"}
    assert "does not exist" in removed["o/lost"]
    assert removed["o/bomb"] == "the content is larger than its row states"


def test_a_table_in_an_object_store_gives_what_the_one_on_disk_gives(s3: str, tmp_path: Path) -> None:
    rows = [stack(f"o/{number % 4}", f"{number}.py", f"x_{number} = {number}\n" * 20) for number in range(40)]
    outputs: list[dict[Path, bytes]] = []
    for place in (str(tmp_path), s3):
        write(f"{place}/table/part-0.parquet", rows[:25], group=7)
        write(f"{place}/table/part-1.parquet", rows[25:], group=7)
        output = tmp_path / f"out{len(outputs)}"
        run_stage(
            "corpus",
            CorpusConfig(sources=(f"parquet:{place}/table",), columns=("the_stack_v2",), shard_bytes=2_000),
            str(output),
        )
        outputs.append({file.relative_to(output): file.read_bytes() for file in output.rglob("*.parquet")})
    assert len(outputs[0]) > 6
    assert outputs[0] == outputs[1]
    state = sources.fingerprint([f"parquet:{s3}/table"])
    assert sources.fingerprint([f"parquet:{s3}/table"]) == state
    object_store.client().put_object(Bucket=s3.removeprefix("s3://"), Key="table/part-2.parquet", Body=b"x")
    assert sources.fingerprint([f"parquet:{s3}/table"]) != state


def test_a_damaged_file_costs_itself(tmp_path: Path) -> None:
    write(f"{tmp_path}/t/a.parquet", [stack("o/one", "a.py", "x = 1\n")])
    whole = Path(write(f"{tmp_path}/t/b.parquet", [stack("o/two", "a.py", "x = 1\n" * 500)])).read_bytes()
    (tmp_path / "t" / "b.parquet").write_bytes(whole[:-20])
    repositories = listed(f"{tmp_path}/t", STACK)
    assert {name: each.files[0].trouble for name, each in repositories.items()} == {"b": "damaged_table", "o/one": ""}
    (tmp_path / "t" / "a.parquet").unlink()
    with pytest.raises(InputError, match="not valid"):
        listed(f"{tmp_path}/t", STACK)


def test_odd_rows_cost_themselves(tmp_path: Path) -> None:
    rows = [
        stack("o", "good.py", "x"),
        stack("o", "good.py", "y"),
        stack("o", "../out.py", "x"),
        stack("o", "line\nbreak.py", "x"),
        stack("o", "null.py", None, length_bytes=9),
        stack("o", "", "x"),
        stack("o", "vendor/a.py", "x", licences=None),
        stack("o", "odd.py", "x", revision_id="not a commit", committer_date=None),
    ]
    repository = listed(write(f"{tmp_path}/t.parquet", rows), STACK)["o"]
    assert sorted((file.path, file.trouble) for file in repository.files) == [
        ("", "bad_name"),
        ("../out.py", "bad_name"),
        ("good.py", ""),
        ("good.py", "duplicate_name"),
        ("line\nbreak.py", "bad_name"),
        ("null.py", ""),
        ("odd.py", ""),
        ("vendor/", "vendored"),
    ]
    read = sources.reader(repository.root, repository.files, STACK)
    with pytest.raises(ValueError, match="its row has no content"):
        read(next(file for file in repository.files if file.path == "null.py"))
    assert [(file.commit, file.date) for file in repository.files if file.path == "odd.py"] == [("", "")]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (
            [{"name": "a", "content": "x"}],
            {},
            r"has no column 'path' for the path of a file, only name, content; set corpus.columns",
        ),
        ([{"path": "a", "text": "x"}], {}, r"has no column 'content' for the content of a file, only path, text"),
        (
            [{"repo": "r", "path": "a", "content": "x"}],
            {"columns": ("repo=project",)},
            r"has no column 'project' for the repo of a file, only repo, path, content",
        ),
        ([{"path": "a", "blob": "x"}], {}, r"set corpus.blobs to the address of the folder"),
        ([{"path": "a", "content": "x"}], {"columns": ("the_stak",)}, r"'the_stak' is not valid; write a data set"),
        (
            [{"path": "a", "content": "x"}],
            {"columns": ("paht=a",)},
            r"'paht=a' is not valid.*one of the roles repo,",
        ),
    ],
)
def test_columns_that_are_missing_are_reported(
    tmp_path: Path, rows: list[dict[str, Any]], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        listed(write(f"{tmp_path}/t.parquet", rows), CorpusConfig(**settings))


@pytest.mark.parametrize(
    ("place", "message"), [("nothing", "does not exist; name a Parquet file"), ("empty", "holds no Parquet file")]
)
def test_a_place_without_tables_is_refused(tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    for look in (lambda name: list(sources.repositories([name])), lambda name: sources.fingerprint([name])):
        with pytest.raises(InputError, match=message):
            look(f"parquet:{tmp_path / place}")


def test_a_licence_file_in_the_table_covers_its_folder(tmp_path: Path) -> None:
    rows = [
        stack("o", "LICENSE", MIT, None),
        stack("o", "a.py", "x", None),
        stack("o", "lib/COPYING", "our own words", None),
    ]
    rows += [stack("o", "lib/b.py", "x", ["MIT"])]
    repository = listed(write(f"{tmp_path}/t.parquet", rows), STACK)["o"]
    assert expression(repository, "a.py") == "MIT"
    assert expression(repository, "lib/b.py") == "NOASSERTION"
