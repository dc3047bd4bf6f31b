from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

from infill import manifest, storage
from infill.config import TrainConfig
from infill.errors import InputError
from tests.builders import once


@dataclass(frozen=True)
class Config:
    size: int = 1


def make(output: Path, text: str = "x", config: Config | None = None, inputs: Mapping[str, str] | None = None) -> int:
    """Run a stage that writes one file; returns how often its body ran."""
    ran = 0

    def body() -> Mapping[str, float]:
        nonlocal ran
        ran += 1
        storage.write_bytes(storage.join(str(output), "sub", "file"), text.encode())
        storage.write_bytes(storage.join(str(output), "scratch", "part"), b"")
        return {"size": 2}

    artifact = once(
        stage="toy", version=1, config=config or Config(), inputs=inputs or {}, output=str(output), body=body
    )
    assert artifact.metrics == {"size": 2.0}
    return ran


def test_second_run_does_nothing(tmp_path: Path) -> None:
    assert make(tmp_path / "a") == 1
    assert make(tmp_path / "a") == 0


def test_manifest_tells_what_is_there(tmp_path: Path) -> None:
    make(tmp_path / "a", inputs={"corpus": "d1"})
    loaded = manifest.load(str(tmp_path / "a"))
    assert loaded.files == {"sub/file": {"sha256": storage.sha256(str(tmp_path / "a/sub/file")), "bytes": 1}}
    assert loaded.inputs == {"corpus": "d1"}
    assert loaded.config == {"size": 1}
    assert not (tmp_path / "a" / "scratch").exists()
    assert manifest.load(str(tmp_path / "a" / "manifest.json")) == loaded
    manifest.verify(loaded)


def test_digest_follows_content_not_place_or_time(tmp_path: Path) -> None:
    make(tmp_path / "a")
    make(tmp_path / "b")
    make(tmp_path / "c", text="y")
    digests = [manifest.digest_of(str(tmp_path / name)) for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_logs_are_no_part_of_the_identity(tmp_path: Path) -> None:
    for name in "ab":
        storage.write_bytes(str(tmp_path / name / "history.jsonl"), name.encode())
        make(tmp_path / name)
    assert manifest.digest_of(str(tmp_path / "a")) == manifest.digest_of(str(tmp_path / "b"))
    assert "history.jsonl" in manifest.load(str(tmp_path / "a")).files


def test_key_follows_config_and_inputs() -> None:
    keys = {
        manifest.key("toy", 1, Config(), {}),
        manifest.key("toy", 2, Config(), {}),
        manifest.key("toy", 1, Config(size=2), {}),
        manifest.key("toy", 1, Config(), {"corpus": "d"}),
        manifest.key("other", 1, Config(), {}),
    }
    assert len(keys) == 5


@dataclass(frozen=True)
class Nested:
    inner: Config = field(default_factory=Config)
    workers: int = field(default=1, metadata={manifest.EXECUTION: True})


def test_how_a_stage_is_run_is_not_a_part_of_its_key(tmp_path: Path) -> None:
    keys = [manifest.key("toy", 1, Nested(workers=count), {}) for count in (1, 8)]
    assert keys[0] == keys[1] != manifest.key("toy", 1, Nested(Config(size=2)), {})
    assert manifest.config_dict(Nested(workers=8)) == {"inner": {"size": 1}, "workers": 8}


def test_the_settings_of_execution_are_those_that_change_no_result() -> None:
    left_out = {item.name for item in fields(TrainConfig) if item.metadata.get(manifest.EXECUTION)}
    assert left_out == {
        "keep_best", "keep_checkpoints", "keep_every", "launcher", "max_failures", "min_workers", "recompute",
        "sample_every", "sample_holes", "timeout_s", "workers",
    }  # fmt: skip


def test_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "a")
    with pytest.raises(InputError, match="choose another folder"):
        make(tmp_path / "a", config=Config(size=2))


def test_changed_file_is_found(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a" / "sub" / "file").write_text("z")
    with pytest.raises(InputError, match="is not the file that toy wrote"):
        manifest.verify(manifest.load(str(tmp_path / "a")))


def test_unfinished_folder_is_named(tmp_path: Path) -> None:
    assert manifest.find(str(tmp_path)) is None
    with pytest.raises(InputError, match="not a finished artifact"):
        manifest.load(str(tmp_path))


def test_foreign_manifest_is_refused(tmp_path: Path) -> None:
    storage.write_json(str(tmp_path / "manifest.json"), {"nonsense": 1})
    with pytest.raises(InputError, match="not a manifest of this version"):
        manifest.load(str(tmp_path))


def test_killed_body_runs_again(tmp_path: Path) -> None:
    def body() -> Mapping[str, float]:
        storage.write_bytes(storage.join(str(tmp_path), "sub", "file"), b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(stage="toy", version=1, config=Config(), inputs={}, output=str(tmp_path), body=body)
    assert make(tmp_path) == 1


def test_image_tells_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest.commit.cache_clear()
    monkeypatch.setenv("INFILL_COMMIT", "abc")
    assert manifest.commit() == "abc"
    manifest.commit.cache_clear()
