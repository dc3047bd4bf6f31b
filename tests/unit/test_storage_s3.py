"""The store on a real S3 API; what holds for every kind of store is in test_storage.py."""

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.fs
import pytest

from infill import manifest, storage
from infill.config.stage_settings import TokenizerConfig
from infill.errors import InputError, StorageError
from infill.manifest import Manifest
from tests.builders import once
from tests.object_store import client

PART = 50 << 20
"""What s3fs gathers before it sends a part."""


def keys(store: str) -> list[str]:
    result = client().list_objects_v2(Bucket=store.removeprefix("s3://")).get("Contents", [])
    return sorted(entry["Key"] for entry in result)


def unfinished(store: str) -> list[str]:
    result = client().list_multipart_uploads(Bucket=store.removeprefix("s3://")).get("Uploads", [])
    return [entry["Key"] for entry in result]


def test_a_large_file_is_sent_in_parts_and_seen_only_when_whole(s3: str) -> None:
    uri = f"{s3}/large.bin"
    block = os.urandom(1 << 20)
    with storage.open_write(uri) as file:
        for _ in range(52):
            file.write(block)
        assert unfinished(s3) == ["large.bin"]
        assert not storage.exists(uri)
    assert storage.size(uri) == 52 << 20
    assert unfinished(s3) == []
    with storage.filesystem(uri)[0].open(uri, "rb") as file:
        file.seek(51 << 20)
        assert file.read() == block


def test_a_large_file_that_fails_leaves_nothing(s3: str) -> None:
    def fail() -> None:
        with storage.open_write(f"{s3}/large.bin") as file:
            file.write(bytes(PART + 1))
            assert unfinished(s3) == ["large.bin"]
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert keys(s3) == unfinished(s3) == []


def test_a_small_file_is_one_request(s3: str) -> None:
    storage.write_json(f"{s3}/a.json", {"a": 1})
    entity_tag = client().head_object(Bucket=s3.removeprefix("s3://"), Key="a.json")["ETag"]
    assert "-" not in entity_tag  # that of an upload in parts ends in their number


def test_what_another_process_writes_is_seen_at_once(s3: str) -> None:
    uri = f"{s3}/folder/manifest.json"
    assert not storage.exists(uri)
    assert storage.list_files(f"{s3}/folder") == []
    client().put_object(Bucket=s3.removeprefix("s3://"), Key="folder/manifest.json", Body=b"{}")
    assert storage.exists(uri)
    assert storage.is_file(uri)
    assert storage.list_files(f"{s3}/folder") == [uri]
    client().put_object(Bucket=s3.removeprefix("s3://"), Key="folder/manifest.json", Body=b'{"a": 1}')
    assert storage.read_json(uri) == {"a": 1}
    assert storage.size(uri) == 8


def test_threads_write_at_once_and_a_failure_is_nobody_elses(s3: str) -> None:
    def write(number: int) -> None:
        with storage.open_write(f"{s3}/{number:02d}") as file:
            file.write(b"x" * number)
            if number % 3 == 0:
                raise RuntimeError
            file.write(b"y")

    with ThreadPoolExecutor(8) as pool:
        errors = [future.exception() for future in [pool.submit(write, number) for number in range(24)]]
    assert [number for number, error in enumerate(errors) if error] == list(range(0, 24, 3))
    whole = [number for number in range(24) if number % 3]
    assert keys(s3) == [f"{number:02d}" for number in whole]
    assert [storage.size(f"{s3}/{number:02d}") for number in whole] == [number + 1 for number in whole]


def test_of_many_who_write_one_file_one_wins_whole(s3: str) -> None:
    texts = [bytes([number]) * 1000 * (number + 1) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: storage.write_bytes(f"{s3}/same", text), texts))
    assert storage.read_bytes(f"{s3}/same") in texts


def test_removing_a_folder_begins_with_its_manifest(s3: str, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a/manifest.json", "a/b/c", "ab/c"):
        storage.write_bytes(f"{s3}/{name}", b"")
    caplog.clear()
    storage.remove(f"{s3}/a")
    requests = "\n".join(caplog.messages)  # as the store saw them
    before, _, after = requests.partition("?delete ")
    assert "prefix=a/manifest.json" in before
    assert "prefix=a/&" not in before
    assert "?delete " in after
    storage.remove(f"{s3}/a")
    assert keys(s3) == ["ab/c"]


def test_fetchers_of_one_folder_share_a_copy(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "manifest.json").write_text("{}")
    (tmp_path / "model" / "sub" / "weights").write_bytes(b"\x00" * 3_000_000)
    storage.upload(tmp_path / "model", f"{s3}/model")
    with ThreadPoolExecutor(4) as pool:
        entries = set(pool.map(storage.fetch, [f"{s3}/model"] * 4))
    assert len(entries) == 1
    assert (entries.pop() / "sub" / "weights").stat().st_size == 3_000_000
    assert storage.fetch(f"{s3}/model/manifest.json").read_text() == "{}"
    left = [path.name for path in (tmp_path / "cache" / "infill").glob("fetched/*/*")]
    assert sorted(left) == ["manifest.json", "model"]


def test_a_missing_bucket_is_a_sentence(s3: str) -> None:
    with pytest.raises(InputError, match=r"cannot write s3://no-such-bucket-here/x: there is no such file or bucket"):
        storage.write_bytes("s3://no-such-bucket-here/x", b"1")
    with pytest.raises(InputError, match="no such file or bucket"):
        storage.read_bytes(f"{s3}/nothing")


def test_a_store_that_is_not_there_is_a_sentence(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setattr(storage, "_S3", storage._S3 | {"use_ssl": False})  # a file system of its own
        with pytest.raises(StorageError, match=r"cannot look at .*: Could not connect .*; check the store's address"):
            storage.exists(f"{s3}/x")


def stage(output: str, *, killed: bool) -> Manifest:
    """A stage of two files that is killed, if it shall be, when a part of the second one is sent."""

    def body() -> dict[str, float]:
        missing = [name for name in ("first", "second") if not storage.exists(storage.join(output, name))]
        for name in missing:
            with storage.open_write(storage.join(output, name)) as file:
                file.write(bytes(PART + 1) if name == "second" else b"1")
                if killed and name == "second":
                    os.kill(os.getpid(), signal.SIGKILL)
        return {"written": len(missing)}

    config = TokenizerConfig()
    return once(stage="toy", version=1, config=config, inputs={}, output=output, body=body)


def test_a_killed_stage_continues_where_it_was(s3: str) -> None:
    output = f"{s3}/toy/key"
    code = f"from tests.unit.test_storage_s3 import stage; stage({output!r}, killed=True)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert keys(s3) == ["toy/key/first"]
    assert unfinished(s3) == ["toy/key/second"]  # sent in part, seen by nobody
    assert manifest.find(output) is None
    for _ in range(2):  # the second time it does nothing
        assert stage(output, killed=False).metrics == {"written": 1}
    loaded = manifest.load(output)
    assert sorted(loaded.files) == ["first", "second"]
    manifest.verify(loaded)
    storage.write_bytes(f"{output}/first", b"2")
    with pytest.raises(InputError, match="is not the file that toy wrote"):
        manifest.verify(loaded)


def test_folders_that_pyarrow_marks_are_no_files(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = f"{s3}/store/pretrain/1"
    arrow, path = pyarrow.fs.FileSystem.from_uri(folder)  # as Ray writes a model
    arrow.create_dir(f"{path}/adapter", recursive=True)
    for name in ("config.json", "adapter/weights"):
        with arrow.open_output_stream(f"{path}/{name}") as file:
            file.write(name.encode())
    listed = client().list_objects_v2(Bucket=s3.removeprefix("s3://"))["Contents"]
    assert {each["Key"] for each in listed} >= {"store/pretrain/1/", "store/pretrain/1/adapter/"}
    assert storage.list_files(folder) == [f"{folder}/adapter/weights", f"{folder}/config.json"]
    assert storage.sizes(folder) == {"adapter/weights": 15, "config.json": 11}
    assert storage.list_folders(f"{s3}/store/pretrain") == [folder]
    copy = storage.fetch(folder)
    assert {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()} == set(storage.sizes(folder))
    assert storage.fetch(f"{folder}/config.json").read_text() == "config.json"
    arrow.create_dir(f"{path}/empty", recursive=True)
    with pytest.raises(InputError, match="there is nothing at"):
        storage.fetch(f"{folder}/empty")
    storage.remove(folder)
    assert not [key for key in keys(s3) if key.startswith("store/pretrain/1/")]
