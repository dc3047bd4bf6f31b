"""The server's copy of a folder: complete, up to date after every change and every loss, and nothing else is sent."""

import contextlib
import hashlib
import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.editor import mirror as mirrors
from infill.editor.local_files import LocalFiles
from infill.editor.mirror import Mirror
from infill.editor.workspace_client import WorkspaceClient, WorkspaceTarget
from infill.editor.workspace_name import number_file, workspace_name
from serving.local import free_port
from tests.editor.conftest import Backend, saved_texts, serving_text, write
from tests.properties import examples
from tests.serving.conftest import say, strange_predictor, wait_until

FILES = {"a.py": "alpha = 1\n", "lib/b.py": "beta = 2\r\nrest = 'é🌍'\r\n", "lib/c.py": "gamma = 3\n"}
HIDDEN = {".gitignore": "out/\n", "out/d.py": "hidden = 1\n", ".env": "KEY=hunter2\n", "node_modules/m.js": "x = 1;\n"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "my projéct"
    write(folder, {**FILES, **HIDDEN})
    return folder


@contextlib.contextmanager
def mirroring(root: Path, url: str, **options: Any) -> Iterator[Mirror]:
    mirror = Mirror(root, WorkspaceTarget(url=url), **options)
    mirror.start()
    yield mirror
    mirror.close()
    mirror._thread.join(20)
    assert not mirror._thread.is_alive()


def held(backend: Backend, mirror: Mirror) -> dict[str, str]:
    """The texts that the server has of a workspace."""
    workspace = backend.service.workspaces._open.get(("", mirror.name))
    return {} if workspace is None else saved_texts(workspace)


def wait_for(backend: Backend, mirror: Mirror, files: dict[str, str]) -> None:
    wait_until(lambda: held(backend, mirror) == {".gitignore": "out/\n", **files} and not mirror.waiting)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, set[str], set[str]]]:
    """Method, listed files and texts of each change that is sent."""
    changes: list[tuple[str, set[str], set[str]]] = []
    change = WorkspaceClient._change

    def noted(self: WorkspaceClient, method: str, body: Any) -> Any:
        changes.append((method, {*body["files"]}, {*body.get("texts", {})}))
        return change(self, method, body)

    monkeypatch.setattr(WorkspaceClient, "_change", noted)
    return changes


def test_only_what_the_index_would_hold_is_sent_and_only_once(
    backend: Backend, root: Path, sent: list[tuple[str, set[str], set[str]]]
) -> None:
    with mirroring(root, backend.url) as mirror:
        wait_for(backend, mirror, FILES)
    with mirroring(root, backend.url) as other:
        wait_until(lambda: other.ready)
    listed = {".gitignore", *FILES}
    assert sent == [("PUT", listed, set()), ("PATCH", set(), listed), ("PUT", listed, set())]


def test_every_change_on_disk_is_a_change_on_the_server(
    backend: Backend, root: Path, sent: list[tuple[str, set[str], set[str]]]
) -> None:
    with mirroring(root, backend.url) as mirror:
        wait_for(backend, mirror, FILES)
        sent.clear()
        write(root, {"a.py": "alpha = 'saved'\n"})
        mirror.look(["a.py"])
        wait_for(backend, mirror, {**FILES, "a.py": "alpha = 'saved'\n"})
        assert sent == [("PATCH", {"a.py"}, {"a.py"})]
        write(root, {"new.py": "new = 1\n"})
        (root / "lib/c.py").unlink()
        mirror.look(["new.py", "lib/c.py"])
        files = {"a.py": "alpha = 'saved'\n", "lib/b.py": FILES["lib/b.py"], "new.py": "new = 1\n"}
        wait_for(backend, mirror, files)
        sent.clear()
        (root / "lib").rename(root / "moved")
        mirror.look(["lib", "moved"])
        files["moved/b.py"] = files.pop("lib/b.py")
        wait_for(backend, mirror, files)
        assert sent == [("PATCH", {"lib/b.py", "moved/b.py"}, set())]
        write(root, {".gitignore": "out/\nmoved/\n"})
        mirror.look()
        wait_until(lambda: "moved/b.py" not in held(backend, mirror))


def test_a_copy_that_the_server_forgets_is_sent_again(backend: Backend, root: Path) -> None:
    with mirroring(root, backend.url) as mirror:
        wait_for(backend, mirror, FILES)
        backend.service.workspaces.close("", mirror.name)
        write(root, {"a.py": "alpha = 9\n"})
        mirror.look(["a.py"])  # the server's answer tells that it is lost
        wait_for(backend, mirror, {**FILES, "a.py": "alpha = 9\n"})
        backend.service.workspaces.close("", mirror.name)
        mirror.lost(mirror.times - 1)  # an answer from before the last list
        assert not mirror._todo
        mirror.lost(mirror.times)  # a completion tells it
        wait_for(backend, mirror, {**FILES, "a.py": "alpha = 9\n"})
        assert mirror._lost_pause >= mirrors.FIRST_PAUSE_S  # the second time within a minute waits


def test_a_server_that_restarts_gets_what_changed_meanwhile(model: Path, root: Path) -> None:
    port = free_port()
    with serving_text(model, port=port) as backend, mirroring(root, backend.url) as mirror:
        wait_for(backend, mirror, FILES)
        mirror.close()
    with mirroring(root, f"http://127.0.0.1:{port}") as mirror:
        wait_until(lambda: "no server answers" in mirror.state())
        write(root, {"a.py": "alpha = 'meanwhile'\n"})
        mirror.look(["a.py"])
        with serving_text(model, port=port) as backend:
            wait_for(backend, mirror, {**FILES, "a.py": "alpha = 'meanwhile'\n"})
            wait_until(lambda: not mirror.problem)


class Spreading(socketserver.BaseRequestHandler):
    """Joins the first connection with the first of two servers, and all others with the second."""

    def handle(self) -> None:
        server: Any = self.server
        with server.lock:
            url = server.urls.pop(0) if len(server.urls) > 1 else server.urls[0]
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as other:
            threading.Thread(target=pump, args=(other, self.request), daemon=True).start()
            pump(self.request, other)


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_a_replica_that_does_not_know_the_workspace_is_filled(backend: Backend, model: Path, root: Path) -> None:
    with (
        serving_text(model) as second,
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), Spreading) as spread,
    ):
        spread.daemon_threads = True
        vars(spread).update(lock=threading.Lock(), urls=[backend.url, second.url])
        threading.Thread(target=spread.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        with mirroring(root, f"http://127.0.0.1:{spread.server_address[1]}") as mirror:
            wait_for(backend, mirror, FILES)
            assert held(second, mirror) == {}
            mirror.lost(mirror.times)  # a completion has reached the other one
            wait_for(second, mirror, FILES)
        spread.shutdown()


def test_a_replica_that_was_filled_earlier_is_brought_up_to_date(
    backend: Backend, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "SUSPECT_S", 0.0)
    with mirroring(root, backend.url) as mirror:
        wait_for(backend, mirror, FILES)
        wait_until(lambda: not mirror._working)
        first, times = mirror.revision, mirror.times
        mirror.check(first, first, times)
        write(root, {"a.py": "alpha = 2\n"})
        mirror.look(["a.py"])
        wait_until(lambda: mirror.revision != first and not mirror._working)
        mirror.check(first, mirror.revision, times)  # a completion that was on its way meanwhile
        mirror.check(first, first, times)
        assert mirror._suspected is None
        with WorkspaceClient(WorkspaceTarget(url=backend.url), mirror.name) as other:
            stale = other.put({"a.py": hashlib.sha256(b"alpha = 0\n").digest()}).revision
        mirror.check(mirror.revision, stale, times)
        mirror.check(mirror.revision, mirror.revision, times)  # the other editor was ahead for a moment
        mirror.check(mirror.revision, stale, times)
        assert mirror.times == times
        mirror.check(mirror.revision, stale, times)
        wait_for(backend, mirror, {**FILES, "a.py": "alpha = 2\n"})
        assert mirror.times == times + 1


def test_two_clients_of_one_folder_share_a_copy(backend: Backend, root: Path) -> None:
    with mirroring(root, backend.url) as one, mirroring(root, backend.url) as two:
        assert one.name == two.name
        wait_until(lambda: one.ready and two.ready)
        files = dict(FILES)
        for number in range(5):
            write(root, {"a.py": f"alpha = {number}\n", f"n{number}.py": f"new = {number}\n"})
            files |= {"a.py": f"alpha = {number}\n", f"n{number}.py": f"new = {number}\n"}
            one.look(["a.py"])
            two.look([f"n{number}.py", "a.py"])
            one.look([f"n{number}.py"])
        wait_for(backend, one, files)
        wait_until(lambda: one._listed == two._listed)


def test_a_client_that_ends_in_the_middle_is_continued_by_the_next(
    backend: Backend, tmp_path: Path, sent: list[tuple[str, set[str], set[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "BATCH_BYTES", 1)
    files = {f"f{number}.py": f"x = {number}\n" for number in range(9)}
    write(tmp_path, files)
    first: list[Mirror] = []

    def stop(_: int | None) -> None:
        if len([each for each in sent if each[2]]) == 4:
            first[0].close()

    mirror = Mirror(tmp_path, WorkspaceTarget(url=backend.url), progress=stop)
    first.append(mirror)
    mirror.start()
    mirror._thread.join(20)
    before = {path for _, _, texts in sent for path in texts}
    sent.clear()
    with mirroring(tmp_path, backend.url) as other:
        wait_until(lambda: held(backend, other) == files)
    after = [path for _, _, texts in sent for path in texts]
    assert len(before) == 4
    assert sorted(after) == sorted(files.keys() - before)


def test_a_server_that_reads_only_small_requests_gets_small_ones(model: Path, root: Path) -> None:
    files = {f"long_name_of_a_module_{number}.py": f"x = {number}\n" * 99 for number in range(400)}
    write(root, files)
    with serving_text(model, max_body_bytes=30_000) as backend, mirroring(root, backend.url) as mirror:
        wait_for(backend, mirror, {**FILES, **files})
        text = "y = 1\n" * 9_000
        write(root, {"huge.py": text})
        mirror.look(["huge.py"])
        wait_until(lambda: "huge.py" in mirror.left_out)
        assert "larger" in mirror.left_out["huge.py"]
        assert not mirror.problem


def test_a_server_without_room_says_so(model: Path, root: Path) -> None:
    with serving_text(model, workspace_bytes=250_000) as backend, mirroring(root, backend.url) as mirror:
        write(root, {"large.py": "x = 1\n" * 20_000})
        mirror.look(["large.py"])
        wait_until(lambda: mirror.ready and "left out by the server" in mirror.state())
        assert not mirror.stands_for("large.py", "x = 1\n" * 20_000)


REFUSING: dict[str, tuple[Callable[[Any], None], str]] = {
    "an older server": (say("404 Not Found", '{"detail": "Not Found"}'), "is older than this client"),
    "another program": (say("405 Method Not Allowed", "<html>"), "is older than this client"),
    "turned off": (
        say("403 Forbidden", json.dumps({"error": {"code": "workspaces_off", "message": "no"}})),
        "its operator has turned them off",
    ),
    "another version": (say("400 Bad Request", json.dumps({"error": {"code": "x", "message": "no"}})), "does not read"),
}


@pytest.mark.parametrize("case", REFUSING)
def test_a_server_without_workspaces_ends_it_with_one_sentence(root: Path, case: str) -> None:
    behaviour, expected = REFUSING[case]
    problems: list[str] = []
    with (
        strange_predictor(behaviour) as (url, server),
        mirroring(root, url, no_workspaces=problems.append) as mirror,
    ):
        wait_until(lambda: bool(problems))
        mirror.look()
        mirror._thread.join(20)
        assert len(server.requests) == 1
    assert len(problems) == 1
    assert expected in problems[0]


TRYING: dict[str, tuple[Callable[[Any], None], str]] = {
    "busy": (say("429 Too Many Requests", json.dumps({"error": {"code": "x", "message": "later"}})), "429: later"),
    "a wrong key": (say("401 Unauthorized", "{}"), "rejects the key"),
    "no JSON": (say("200 OK", "<html>"), "does not answer like an Infill server"),
    "a broken connection": (lambda connection: connection.close(), "no server answers"),
}


@pytest.mark.parametrize("case", TRYING)
def test_other_failures_are_tried_again(
    root: Path, case: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    behaviour, expected = TRYING[case]
    monkeypatch.setattr(mirrors, "FIRST_PAUSE_S", 0.01)
    caplog.set_level(logging.DEBUG, "infill.lsp")
    with strange_predictor(behaviour) as (url, server):
        mirror = Mirror(root, WorkspaceTarget(url=url, key="s3cret"))
        mirror.start()
        wait_until(lambda: len(server.requests) >= 3)
        wait_until(lambda: expected in mirror.state())
        mirror.close()
        mirror._thread.join(20)
    head, body = server.requests[0]
    assert "authorization: Bearer s3cret" in head
    assert f"x-infill-workspace: {mirror.name}" in head
    assert json.loads(body)["files"]["a.py"] == hashlib.sha256(FILES["a.py"].encode()).hexdigest()
    assert "s3cret" not in caplog.text + repr(mirror.target)
    assert "alpha" not in caplog.text


def test_a_copy_that_is_not_wanted_any_more_is_deleted(backend: Backend, root: Path) -> None:
    with mirroring(root, backend.url) as mirror:
        wait_for(backend, mirror, FILES)
        mirror.close(forget=True)
        wait_until(lambda: ("", mirror.name) not in backend.service.workspaces._open)


def test_the_server_stands_for_a_text_only_if_it_has_it(backend: Backend, root: Path) -> None:
    with mirroring(root, backend.url) as mirror:
        assert not mirror.stands_for("a.py", FILES["a.py"]) or mirror.listed
        wait_for(backend, mirror, FILES)
        assert mirror.stands_for("a.py", FILES["a.py"])
        assert not mirror.stands_for("a.py", "alpha = 'unsaved'\n")
        assert not mirror.stands_for("out/d.py", HIDDEN["out/d.py"])
        mirror.hide("a.py")
        assert mirror.stands_for("a.py", FILES["a.py"])


# The name


def test_the_name_is_the_same_at_each_start_and_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert workspace_name(tmp_path) == workspace_name(tmp_path / "link") != workspace_name(tmp_path / "other")
    assert number_file().stat().st_mode & 0o077 == 0
    assert tmp_path.name not in workspace_name(tmp_path)


def test_a_damaged_number_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    workspace_name(tmp_path)
    number_file().write_bytes(b"short")
    assert workspace_name(tmp_path) == workspace_name(tmp_path)
    assert f"{number_file()} is damaged" in caplog.text


def test_processes_that_start_together_draw_one_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.append(workspace_name(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*names, workspace_name(tmp_path)}) == 1


def test_a_state_folder_that_cannot_be_written_costs_only_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert workspace_name(tmp_path) == workspace_name(tmp_path)
    assert "cannot keep a number" in caplog.text


# Whatever happens


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["write", "remove", "ignore", "forget", "other", "scan"]),
        st.sampled_from(["a.py", "b.py", "sub/a.py"]),
        st.integers(0, 2),
    ),
    max_size=8,
)


@given(operations=OPERATIONS)
@examples(25)
def test_the_copy_is_what_a_new_scan_would_list(
    shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, str, int]]
) -> None:
    root = tmp_path_factory.mktemp("folder")
    mirror, workspaces = Mirror(root, WorkspaceTarget(url=shared_backend.url)), shared_backend.service.workspaces
    with WorkspaceClient(mirror.target, mirror.name) as client:
        mirror.look()
        for operation, path, number in operations:
            if operation == "write":
                write(root, {path: f"x = {number}\n"})
            elif operation == "remove":
                (root / path).unlink(missing_ok=True)
            elif operation == "ignore":
                write(root, {".gitignore": f"{path}\n" * number})
            elif operation == "forget" and ("", mirror.name) in workspaces._open:
                workspaces.close("", mirror.name)
            elif operation == "other":
                client.put({path: hashlib.sha256(b"other").digest()})
            mirror.look(None if operation in ("ignore", "scan") else [path])
            settle(mirror, client)
        write(root, {"last.py": "x = 1\n"})  # at the latest now the server's answer tells that a copy is lost
        mirror.look()
        settle(mirror, client)
        files = LocalFiles(root)
        assert len([*files.scan()]) == len(files.digests)
        workspace = workspaces.find("", mirror.name)
        assert workspace.listed == files.digests
        assert not workspace.missing


def settle(mirror: Mirror, client: WorkspaceClient) -> None:
    """Do all work that waits, without its pauses."""
    for _ in range(9):
        if not mirror._todo:
            return
        mirror._until = 0.0
        todo = mirror._next()
        assert todo is not None
        mirror._attempt(client, todo)
    raise AssertionError(mirror.state())
