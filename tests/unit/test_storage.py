import os
import re
import resource
from pathlib import Path

import pyarrow as pa
import pytest

import pipelines
import serving
from infill import storage
from infill.errors import InputError, StorageError


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/some/prefix"
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path}"


def test_what_is_written_is_read(folder: str) -> None:
    uri = storage.join(folder, "a", "b.bin")
    storage.write_bytes(uri, b"\x00hello")
    assert storage.read_bytes(uri) == b"\x00hello"
    assert storage.exists(uri)
    assert storage.is_file(uri)
    assert not storage.is_file(storage.join(folder, "a"))
    assert storage.size(uri) == 6


def test_json_is_stable(folder: str) -> None:
    uri = storage.join(folder, "value.json")
    storage.write_json(uri, {"b": 1, "a": "é"})
    assert storage.read_bytes(uri) == '{\n  "a": "é",\n  "b": 1\n}\n'.encode()
    assert storage.read_json(uri) == {"a": "é", "b": 1}


def test_damaged_json_is_named(folder: str) -> None:
    uri = storage.join(folder, "value.json")
    storage.write_bytes(uri, b'{"a": ')
    with pytest.raises(InputError, match=r"value\.json is not valid JSON"):
        storage.read_json(uri)


def test_files_are_listed_sorted_and_below(folder: str) -> None:
    for name in ("b/2.txt", "a.txt", "b/1.parquet"):
        storage.write_bytes(storage.join(folder, name), b"")
    assert storage.list_files(folder) == [storage.join(folder, name) for name in ("a.txt", "b/1.parquet", "b/2.txt")]
    assert storage.list_files(folder, ".parquet") == [storage.join(folder, "b/1.parquet")]
    assert storage.list_files(storage.join(folder, "nothing")) == []


def test_tables_are_concatenated_in_order(folder: str) -> None:
    for number in (1, 0):
        storage.write_table(storage.join(folder, f"part-{number}.parquet"), pa.table({"n": [number], "m": [0]}))
    assert storage.read_table(folder, ["n"]).to_pydict() == {"n": [0, 1]}


def test_damaged_table_is_named(folder: str) -> None:
    uri = storage.join(folder, "part.parquet")
    storage.write_bytes(uri, b"PAR1 no parquet PAR1")
    with pytest.raises(InputError, match=r"part\.parquet is damaged"):
        storage.read_table(uri)


def test_missing_things_are_named(folder: str) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        storage.read_bytes(storage.join(folder, "nothing"))
    with pytest.raises(InputError, match="no parquet file"):
        storage.read_table(storage.join(folder, "nothing"))
    with pytest.raises(InputError, match="nothing at"):
        storage.fetch(storage.join(folder, "nothing"))
    storage.remove(storage.join(folder, "nothing"))


def test_failed_write_leaves_the_old_file_and_nothing_else(folder: str) -> None:
    uri = storage.join(folder, "file")
    storage.write_bytes(uri, b"old")

    def fail() -> None:
        with storage.open_write(uri) as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert storage.read_bytes(uri) == b"old"
    assert storage.list_files(folder) == [uri]


def test_unknown_protocol_is_refused() -> None:
    with pytest.raises(StorageError, match="nosuch"):
        storage.read_bytes("nosuch://bucket/file")


def test_a_write_that_finds_no_room_is_a_sentence_and_leaves_the_old_file(tmp_path: Path) -> None:
    """The kernel refuses to let a file grow beyond a limit: what a full disk does, without filling one."""
    uri = str(tmp_path / "file")
    storage.write_bytes(uri, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot write .*file: File too large; check free space"):
            storage.write_bytes(uri, b"x" * 100_000)
        with pytest.raises(StorageError, match="check free space"):
            storage.write_table(str(tmp_path / "table.parquet"), pa.table({"text": [os.urandom(100_000)]}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert storage.read_bytes(uri) == b"old"
    assert storage.list_files(str(tmp_path)) == [uri]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_remote_folder_is_fetched_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remote = f"memory://{tmp_path}/model"
    storage.write_bytes(f"{remote}/sub/config.json", b"1")
    first = storage.fetch(remote)
    assert (first / "sub" / "config.json").read_bytes() == b"1"
    assert storage.fetch(remote) == first


def test_what_nobody_uses_leaves_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folders = [storage.cached("bases", name) for name in ("used", "forgotten", ".partial-killed")]
    for folder in folders:
        folder.mkdir()
        (folder / "weights").write_bytes(b"1")
        os.utime(folder, (0, 0))
    assert storage.cached("bases", "used") == folders[0]
    assert [path.name for path in folders[0].parent.iterdir()] == ["used"]
    assert (storage.cached("bases", "used") / "weights").read_bytes() == b"1"


def test_local_folder_is_fetched_in_place(tmp_path: Path) -> None:
    assert storage.fetch(str(tmp_path)) == tmp_path
    assert storage.fetch(f"file://{tmp_path}") == tmp_path


def test_fingerprint_follows_the_files(folder: str) -> None:
    storage.write_bytes(storage.join(folder, "sub", "x"), b"1")
    before = storage.fingerprint(folder)
    assert storage.fingerprint(folder) == before
    storage.write_bytes(storage.join(folder, "sub", "y"), b"2")
    assert storage.fingerprint(folder) != before


def test_fingerprint_stays_when_a_file_is_linked_or_its_rights_change(tmp_path: Path) -> None:
    """A base with added FIM tokens is made of hard links to the base: its key must not change with the first use."""
    weights = tmp_path / "base" / "weights"
    weights.parent.mkdir()
    weights.write_bytes(b"1")
    before = storage.fingerprint(str(weights.parent))
    (tmp_path / "link").hardlink_to(weights)
    weights.chmod(0o600)
    assert storage.fingerprint(str(weights.parent)) == before


def test_upload_copies_the_tree(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "sub" / "x").write_text("x")
    target = f"memory://{tmp_path}/copy"
    storage.upload(tmp_path, target)
    assert storage.read_bytes(f"{target}/sub/x") == b"x"
    assert storage.exists(f"{target}/manifest.json")


def test_no_parquet_file_is_read_by_threads_that_may_outlive_the_program() -> None:
    """`pyarrow.parquet.read_table` aborts one in sixty short programs at their end; see `storage._read_columns`."""
    folders = [Path(storage.__file__).parent, Path(serving.__file__).parent, Path(pipelines.__file__).parent]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    text = re.compile(r"\bpq\.read_table\(|pyarrow\.dataset|parquet\.read_table\(")
    assert [file.name for file in files if text.search(file.read_text(encoding="utf-8"))] == []


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.parquet")
    storage.write_table(uri, pa.table({"a": [1], "b": [2]}))
    assert storage.read_table(uri, ["b", "a"]).column_names == ["b", "a"]
    with pytest.raises(InputError, match="no column c"):
        storage.read_table(uri, ["a", "c"])
