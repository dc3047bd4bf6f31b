"""The language server with its projects' files on the server: the same completions, and nothing more is sent."""

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types

from serving.local import free_port
from tests.editor.conftest import INLINE, Backend, Editor, editing, serving_text, write
from tests.editor.test_server import COLUMN, CURRENT, FILES, LINE
from tests.serving.conftest import HTTP

SERVER = ("--workspace", "server")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a folder whose name has a blank, a letter beyond ASCII and a percent sign."""
    root = tmp_path / "my projéct 100%"
    write(root, {**FILES, "main.py": CURRENT})
    return root


def listed(backend: Backend) -> list[set[str]]:
    """The files of each workspace on the server."""
    return [{*workspace.listed} for workspace in backend.service.workspaces._open.values()]


@pytest.fixture(autouse=True)
def _no_workspaces(backend: Backend) -> None:
    for key in [*backend.service.workspaces._open]:
        backend.service.workspaces.close(*key)


async def folder(editor: Editor) -> Any:
    return (await editor.status())["folders"][0]


def test_the_prompt_is_the_one_that_is_packed_here(backend: Backend, project: Path) -> None:
    write(project, {"dos.py": "def dos_circle():\r\n    return largest_circle\r\n"})

    async def run(arguments: tuple[str, ...]) -> Any:
        async with editing(backend.url, project, arguments=arguments) as editor:
            uri = (project / "main.py").as_uri()
            editor.open(uri, CURRENT)
            assert await editor.text(uri, LINE, COLUMN) == "answer"
            return await editor.client.protocol.send_request_async("infill/lastCompletion", {}), await editor.status()

    here, _ = asyncio.run(run(()))
    assert listed(backend) == []
    there, status = asyncio.run(run(SERVER))
    assert listed(backend) == [{*FILES, "main.py", "dos.py"}]
    assert backend.asked[0] == backend.asked[1]
    assert (here.packed_by, there.packed_by) == ("client", "server")
    assert [item.path for item in there.context] == [item.path for item in here.context]
    assert there.prompt_tokens == here.prompt_tokens
    assert (there.prefix_tokens, there.suffix_tokens) == (here.prefix_tokens, here.suffix_tokens)
    assert there.timing_ms.packing > 0
    assert status["folders"][0]["workspace_state"] == "5 files on the server"


def test_secrets_and_ignored_files_are_neither_sent_nor_completed(backend: Backend, project: Path) -> None:
    secret = "def largest_circle_secret(circles):\n    best = 'hunter2'\n    return best\n"
    write(project, {".gitignore": "private/\n", "private/circle.py": secret, ".env": secret, "huge.py": "x = 1\n"})
    write(project, {"huge.py": "x = 1\n" * 200_000})

    async def run() -> list[str | None]:
        async with editing(backend.url, project, arguments=SERVER) as editor:
            main, hidden, env = ((project / name).as_uri() for name in ("main.py", "private/circle.py", ".env"))
            editor.open(hidden, secret)
            editor.open(env, secret)
            editor.open(main, CURRENT)
            return [
                await editor.text(main, LINE, COLUMN),
                await editor.text(hidden, 1, 4),
                await editor.text(env, 0, 4),
            ]

    assert asyncio.run(run()) == ["answer", None, None]
    assert listed(backend) == [{*FILES, "main.py", ".gitignore"}]
    assert len(backend.asked) == 1
    assert "hunter2" not in backend.prompt


@pytest.mark.parametrize("by_client", [False, True], ids=["watched here", "watched by the client"])
def test_what_changes_on_disk_changes_on_the_server(backend: Backend, project: Path, *, by_client: bool) -> None:
    watching = types.DidChangeWatchedFilesClientCapabilities(dynamic_registration=by_client)
    workspace = types.WorkspaceClientCapabilities(did_change_watched_files=watching)
    capabilities = types.ClientCapabilities(text_document=INLINE, workspace=workspace)

    async def run() -> None:
        async with editing(backend.url, project, capabilities=capabilities, arguments=SERVER) as editor:

            async def wait(files: set[str], written: dict[str, str] | None = None) -> None:
                async def reached() -> bool:
                    if written:  # again and again, since the system may not watch yet
                        write(project, written)
                    if by_client:
                        changes = [
                            types.FileEvent(uri=(project / name).as_uri(), type=types.FileChangeType.Changed)
                            for name in ("new.py", "shapes/read.py", "shapes/moved.py", ".gitignore")
                        ]
                        params = types.DidChangeWatchedFilesParams(changes=changes)
                        editor.client.workspace_did_change_watched_files(params)
                    return listed(backend) == [files]

                await editor.until(reached)

            everything = {*FILES, "main.py"}
            await wait(everything)
            await wait({*everything, "new.py"}, {"new.py": "x = 1\n"})
            (project / "shapes/read.py").rename(project / "shapes/moved.py")
            moved = {"main.py", "README.md", "new.py", "shapes/circle.py", "shapes/moved.py"}
            await wait(moved)
            write(project, {".gitignore": "shapes/\n"})
            await wait({"main.py", "README.md", "new.py", ".gitignore"})

    asyncio.run(run())


def test_an_unsaved_text_counts_without_being_kept(backend: Backend, project: Path) -> None:
    unsaved = FILES["shapes/circle.py"] + "    def best_unsaved_circle(self): return largest_circle\n"

    async def run() -> None:
        async with editing(backend.url, project, arguments=SERVER) as editor:
            main, circle = (project / "main.py").as_uri(), (project / "shapes/circle.py").as_uri()
            editor.open(circle, unsaved)
            editor.open(main, CURRENT)
            await editor.text(main, LINE, COLUMN)
            assert "best_unsaved_circle" in backend.prompt
            workspace = next(iter(backend.service.workspaces._open.values()))
            assert b"unsaved" not in workspace._index.files["shapes/circle.py"].data
            write(project, {"shapes/circle.py": unsaved})
            editor.client.text_document_did_save(types.DidSaveTextDocumentParams(types.TextDocumentIdentifier(circle)))

            async def arrived() -> bool:
                return b"unsaved" in workspace._index.files["shapes/circle.py"].data

            await editor.until(arrived)

    asyncio.run(run())


def test_each_folder_has_a_workspace_and_untitled_texts_need_none(backend: Backend, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, {"helper.py": "def largest_circle_of_one(): return best\n"})
    write(two, {"helper.py": "def largest_circle_of_two(): return best\n"})
    prompts = []

    async def run() -> None:
        async with editing(backend.url, one, two, arguments=SERVER) as editor:
            for uri in ((one / "main.py").as_uri(), (two / "main.py").as_uri(), "untitled:a"):
                editor.open(uri, CURRENT)
                await editor.text(uri, LINE, COLUMN)
                prompts.append(backend.prompt)

    asyncio.run(run())
    assert ["of_one" in prompt for prompt in prompts] == [True, False, False]
    assert ["of_two" in prompt for prompt in prompts] == [False, True, False]
    assert listed(backend) == [{"helper.py"}, {"helper.py"}]


def test_completions_continue_while_a_lost_workspace_is_sent_again(backend: Backend, project: Path) -> None:
    async def run() -> None:
        async with editing(backend.url, project, arguments=SERVER) as editor:
            main, circle = (project / "main.py").as_uri(), (project / "shapes/circle.py").as_uri()
            editor.open(circle, FILES["shapes/circle.py"])
            editor.open(main, CURRENT)
            backend.service.workspaces.close("", next(iter(backend.service.workspaces._open))[1])
            assert await editor.text(main, LINE, COLUMN) == "answer"
            assert "class Circle" in backend.prompt  # it is open
            assert "read_circles" not in backend.prompt

            async def again() -> bool:
                return listed(backend) == [{*FILES, "main.py"}] and (await folder(editor))["ready"]

            await editor.until(again)

            async def complete() -> bool:
                editor.replace(main, CURRENT.replace("best =", f"best{len(backend.asked)} ="))
                await editor.text(main, LINE, COLUMN + 1)
                return "read_circles" in backend.prompt

            await editor.until(complete)
            assert editor.messages == []

    asyncio.run(run())


def test_a_server_that_restarts_is_sent_everything_again(model: Path, project: Path) -> None:
    port = free_port()

    async def run() -> None:
        with serving_text(model, port=port) as first:
            context = editing(first.url, project, arguments=SERVER)
            editor = await context.__aenter__()
            main = (project / "main.py").as_uri()
            editor.open(main, CURRENT)
            assert await editor.text(main, LINE, COLUMN) == "answer"
        editor.replace(main, CURRENT + "\n")
        assert await editor.text(main, LINE, COLUMN) is None
        assert "no server answers" in editor.messages[0]
        with serving_text(model, port=port) as second:

            async def complete() -> bool:
                editor.replace(main, CURRENT + "\n" * (2 + len(second.asked)))
                answer = await editor.text(main, LINE, COLUMN)
                return answer == "answer" and "read_circles" in second.prompt

            await editor.until(complete)
            await context.__aexit__(None, None, None)

    asyncio.run(run())


def test_the_return_of_a_server_is_noticed_and_it_is_sent_everything_while_nobody_types(
    model: Path, project: Path
) -> None:
    port = free_port()
    capabilities = types.ClientCapabilities(text_document=INLINE, experimental={"infillState": True})

    async def run() -> list[bool]:
        with serving_text(model, port=port) as first:
            context = editing(first.url, project, arguments=SERVER, capabilities=capabilities)
            editor = await context.__aenter__()
        main = (project / "main.py").as_uri()
        editor.open(main, CURRENT)
        assert await editor.text(main, LINE, COLUMN) is None
        with serving_text(model, port=port) as second:

            async def back() -> bool:
                return bool(editor.states[-1].available) and listed(second) == [{*FILES, "main.py"}]

            await editor.until(back)
            await context.__aexit__(None, None, None)
        return [state.available for state in editor.states]

    states = asyncio.run(run())
    assert sum(one and not two for one, two in itertools.pairwise(states)) == 1, "it is said once"


def test_without_workspaces_the_project_is_indexed_here(model: Path, project: Path) -> None:
    async def run(backend: Backend) -> tuple[list[str], Any]:
        async with editing(backend.url, project, project / "shapes", arguments=SERVER) as editor:
            await editor.indexed()
            main = (project / "main.py").as_uri()
            editor.open(main, CURRENT)
            assert await editor.text(main, LINE, COLUMN) == "answer"
            return editor.messages, await editor.status()

    with serving_text(model, workspace_bytes=0) as backend:
        messages, status = asyncio.run(run(backend))
        assert "read_circles" in backend.prompt
    assert len(messages) == 1
    assert "its operator has turned them off; the project is indexed on this machine instead" in messages[0]
    assert [each["workspace"] for each in status["folders"]] == ["client", "client"]
    assert status["last"]["packed_by"] == "client"


def test_files_go_only_to_the_server_that_was_named_at_the_start(backend: Backend, project: Path) -> None:
    async def run() -> None:
        async with editing(backend.url, project, options={"workspace": "server"}) as editor:
            assert listed(backend) == [{*FILES, "main.py"}]
            backend.service.workspaces.close("", next(iter(backend.service.workspaces._open))[1])
            elsewhere = backend.url.replace("127.0.0.1", "localhost")
            settings = {"infill": {"url": elsewhere, "workspace": "server"}}
            editor.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings=settings))
            await editor.indexed()
            main = (project / "main.py").as_uri()
            editor.open(main, CURRENT)
            assert await editor.text(main, LINE, COLUMN) == "answer"
            assert "read_circles" in backend.prompt
            assert (await folder(editor))["workspace"] == "client"

    asyncio.run(run())
    assert listed(backend) == []


def test_the_place_may_change_while_the_editor_runs(backend: Backend, project: Path) -> None:
    capabilities = types.ClientCapabilities(text_document=INLINE, experimental={"infillState": True})

    async def run() -> list[Any]:
        async with editing(backend.url, project, capabilities=capabilities) as editor:
            for place, expected in (("server", [{*FILES, "main.py"}]), ("client", []), ("sever", [])):
                settings = {"infill": {"workspace": place}}
                editor.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings=settings))

                async def there(expected: list[set[str]] = expected) -> bool:
                    shown = editor.states[-1].workspace if editor.states else ""
                    return listed(backend) == expected and ("4 files on the server" in shown) == bool(expected)

                await editor.until(there)

            async def warned() -> bool:
                return bool(editor.messages)

            await editor.until(warned)
            assert "workspace must be client or server, got 'sever'" in editor.messages[0]
            return editor.states

    states = asyncio.run(run())
    assert states[-1].workspace == "indexed on this machine"


def test_the_key_and_the_sticky_header_go_with_every_request(backend: Backend, project: Path) -> None:
    seen: list[tuple[str, dict[str, str]]] = []
    identify = backend.service.access.identify

    async def noting(request: Any) -> Any:
        seen.append((request.url.path, dict(request.headers)))
        return await identify(request)

    object.__setattr__(backend.service.access, "identify", noting)
    try:

        async def run() -> None:
            key = {"INFILL_API_KEY": "s3cret"}
            async with editing(backend.url, project, arguments=SERVER, environment=key) as editor:
                main = (project / "main.py").as_uri()
                editor.open(main, CURRENT)
                await editor.text(main, LINE, COLUMN)

        asyncio.run(run())
    finally:
        object.__setattr__(backend.service.access, "identify", identify)
    about = [headers for path, headers in seen if "workspaces" in path or path.endswith("/completions")]
    assert len(about) >= 3
    assert {headers["authorization"] for headers in about} == {"Bearer s3cret"}
    assert len({headers["x-infill-workspace"] for headers in about}) == 1


def test_a_completion_carries_no_file_that_the_server_has(
    backend: Backend, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving.transformer.protocols.openai import OpenAI

    bodies: list[dict[str, Any]] = []
    read = OpenAI.read

    def noting(self: Any, body: dict[str, Any], limit: int) -> Any:
        bodies.append(json.loads(json.dumps(body)))
        return read(self, body, limit)

    monkeypatch.setattr(OpenAI, "read", noting)

    async def run() -> None:
        async with editing(backend.url, project, arguments=SERVER) as editor:
            for path, text in FILES.items():
                editor.open((project / path).as_uri(), text)
            editor.open((project / "main.py").as_uri(), CURRENT)
            await editor.text((project / "main.py").as_uri(), LINE, COLUMN)

    asyncio.run(run())
    (body,) = bodies
    assert body["prompt"] + body["suffix"] == CURRENT
    assert body["context"] == []
    assert {*body["recent"]} == {*FILES}
    assert HTTP.get(f"{backend.url}/v1/workspaces/{body['workspace']}").json()["missing"] == []
