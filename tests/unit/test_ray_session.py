"""The Ray that stages work on."""

import socket
from pathlib import Path

import pytest

from infill import ray_session
from infill.errors import InputError, ServiceError


def test_a_ray_that_is_gone_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # another test of this process may be connected
    with pytest.raises(ServiceError, match=f"there is no Ray at RAY_ADDRESS=127.0.0.1:{port}"), ray_session.session():
        pass


@pytest.mark.parametrize("name", ["x" * 60, "with space", "é", "no such folder"])
def test_ray_gets_a_short_plain_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name
    if name != "no such folder":
        folder.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    assert ray_session.temp_folder() in {f"{usual}/ray" for usual in ray_session.USUAL}


def test_a_folder_for_ray_that_the_user_names_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/dev/shm")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert ray_session.temp_folder() == "/dev/shm/ray"


def test_no_folder_for_ray_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("x" * 60)))
    monkeypatch.setattr(ray_session, "USUAL", ())
    with pytest.raises(InputError, match="set RAY_TMPDIR"):
        ray_session.temp_folder()
