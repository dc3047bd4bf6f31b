"""The language server as an editor meets it: completions, what leaves the machine, and everything an editor can do."""

import asyncio
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types

from serving.local import free_port
from serving.predictor.transformers_engine import TransformersEngine
from tests.editor.conftest import INLINE, Backend, editing, write
from tests.serving.conftest import HTTP, predicting, transforming

FILES = {
    "shapes/circle.py": "class Circle:\n    size: int\n\n    def area(self):\n        return self.size\n",
    "shapes/read.py": "def read_circles(folder):\n    return [Circle() for name in folder]\n",
    "README.md": "Shapes: circles and their area.\n",
}
CURRENT = "from shapes.circle import Circle\n\ndef largest_circle(circles):\n    best = \n    return best.area()\n"
LINE, COLUMN = 3, 11


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a folder whose name has a blank, a letter beyond ASCII and a percent sign."""
    root = tmp_path / "my projéct 100%"
    write(root, {**FILES, "main.py": CURRENT})
    return root


def test_the_prompt_is_the_one_that_the_server_would_make_of_the_same_files(backend: Backend, project: Path) -> None:
    async def run() -> Any:
        async with editing(backend.url, project) as editor:
            uri = (project / "main.py").as_uri()
            editor.open(uri, CURRENT)
            answer = await editor.inline(uri, LINE, COLUMN)
            return answer, await editor.status()

    answer, status = asyncio.run(run())
    item = answer.items[0]
    assert item.insert_text == "answer"
    assert item.range == types.Range(types.Position(LINE, COLUMN), types.Position(LINE, COLUMN))
    assert {each["path"] for each in status["last"]["context"]} == {"shapes/circle.py", "shapes/read.py", "README.md"}
    place = CURRENT.index("best = ") + len("best = ")
    body = {"path": "main.py", "prompt": CURRENT[:place], "suffix": CURRENT[place:], "max_tokens": 64}
    context = [{"path": path, "text": text} for path, text in {**FILES, "main.py": CURRENT}.items()]
    HTTP.post(f"{backend.url}/v1/completions", json={**body, "context": context}).raise_for_status()
    assert backend.asked[0] == backend.asked[1]


def test_a_real_model_completes(model: Path, project: Path) -> None:
    async def run(url: str) -> Any:
        async with editing(url, project) as editor:
            uri = (project / "main.py").as_uri()
            editor.open(uri, CURRENT)
            await editor.inline(uri, LINE, COLUMN)
            return await editor.status(), editor.messages

    with (
        predicting(model, TransformersEngine(model, threads=1)) as predictor,
        transforming(model, predictor, max_prompt_tokens=512, max_new_tokens=16) as (url, service),
    ):
        status, messages = asyncio.run(run(url))
        assert service.metrics.requests.labels("200", "ok")._value.get() == 1
    assert (status["model"], status["max_prompt_tokens"], messages) == ("tiny", 512, [])


def test_what_git_ignores_stays_on_the_machine(backend: Backend, project: Path) -> None:
    secret = "def largest_circle_secret(circles):\n    best = 'hunter2'\n    return best\n"
    write(project, {".gitignore": "private/\n.env\n", "private/circle.py": secret, ".env": "KEY=hunter2\n"})

    async def run() -> list[str | None]:
        async with editing(backend.url, project) as editor:
            main, hidden, env = ((project / name).as_uri() for name in ("main.py", "private/circle.py", ".env"))
            editor.open(hidden, secret)
            editor.open(env, "KEY=hunter2\n", "dotenv")
            editor.open(main, CURRENT)
            return [
                await editor.text(main, LINE, COLUMN),
                await editor.text(hidden, 1, 4),
                await editor.text(env, 0, 4),
            ]

    assert asyncio.run(run()) == ["answer", None, None]
    assert len(backend.asked) == 1
    assert "Circle" in backend.prompt
    assert "hunter2" not in backend.prompt


def test_unsaved_texts_take_the_place_of_what_the_disk_holds(backend: Backend, project: Path) -> None:
    prompts = []

    async def run() -> None:
        async with editing(backend.url, project) as editor:
            main, circle, new = ((project / name).as_uri() for name in ("main.py", "shapes/circle.py", "shapes/new.py"))
            editor.open(main, CURRENT)
            editor.open(circle, FILES["shapes/circle.py"])
            line = types.Range(types.Position(2, 0), types.Position(2, 0))
            added = "    def circles_of_unsaved_circle(self): return best_circle\n"
            editor.change(circle, types.TextDocumentContentChangePartial(range=line, text=added))
            editor.open(new, "def largest_circle_of_new_file(circles):\n    return best_circle\n")
            backend.answer("x")
            await editor.text(main, LINE, COLUMN)
            prompts.append(backend.prompt)
            editor.close(circle)

            async def read_from_disk() -> bool:
                editor.replace(main, CURRENT + "\n" * len(backend.asked))
                await editor.text(main, LINE, COLUMN)
                return "unsaved_circle" not in backend.prompt

            await editor.until(read_from_disk)

    asyncio.run(run())
    assert "unsaved_circle" in prompts[0]
    assert "new_file" in prompts[0]


@pytest.mark.parametrize("by_client", [False, True], ids=["watched here", "told by the client"])
def test_files_that_change_on_the_disk_are_looked_at(backend: Backend, project: Path, *, by_client: bool) -> None:
    watching = types.DidChangeWatchedFilesClientCapabilities(dynamic_registration=by_client)
    workspace = types.WorkspaceClientCapabilities(did_change_watched_files=watching)
    capabilities = types.ClientCapabilities(text_document=INLINE, workspace=workspace)

    async def run() -> list[str]:
        async with editing(backend.url, project, capabilities=capabilities) as editor:

            async def wait(files: int, written: dict[str, str] | None = None) -> None:
                async def reached() -> bool:
                    if written:  # again and again, since the system may not watch yet
                        write(project, written)
                    if by_client:
                        changes = [
                            types.FileEvent(uri=(project / name).as_uri(), type=types.FileChangeType.Changed)
                            for name in ("new.py", "shapes/read.py", ".gitignore")
                        ]
                        params = types.DidChangeWatchedFilesParams(changes=changes)
                        editor.client.workspace_did_change_watched_files(params)
                    return bool((await editor.status())["folders"][0]["files"] == files)

                await editor.until(reached)

            await wait(4)
            await wait(5, {"new.py": "x = 1\n"})
            (project / "shapes/read.py").unlink()
            await wait(4)
            write(project, {".gitignore": "new.py\nshapes/\n"})
            await wait(3)  # a number that no state before the last one has
            return editor.registered

    registered = asyncio.run(run())
    assert ("workspace/didChangeWatchedFiles" in registered) is by_client


def test_a_completion_keeps_the_line_ends_of_its_document(backend: Backend) -> None:
    async def run() -> list[str | None]:
        texts = []
        async with editing(backend.url) as editor:
            backend.answer("one\n    two\n")
            for name, text in (("dos", "a = 1\r\nb = \r\n"), ("mac", "a = 1\rb = \rc"), ("unix", "a = 1\nb = \n")):
                editor.open(f"untitled:{name}", text)
                texts.append(await editor.text(f"untitled:{name}", 1, 4))
            editor.open("untitled:inside", "print( + 1)")
            texts.append(await editor.text("untitled:inside", 0, 6))
        return texts

    assert asyncio.run(run()) == ["one\r\n    two\r\n", "one\r    two\r", "one\n    two\n", "one"]
    assert "stop" not in backend.asked[0]
    assert backend.asked[-1]["stop"] == ["\n"]


ODD: dict[str, tuple[str, int, int]] = {
    "beyond the line": ("ab\ncd\n", 0, 99),
    "beyond the text": ("ab\n", 77, 3),
    "in an empty text": ("", 0, 0),
    "in a pair": ("x = '\U0001f30d'", 0, 6),
    "after half a pair": ("x = '\ud83d'", 0, 6),
    "between CR and LF": ("ab\r\ncd", 0, 3),
    "after a form feed": ("ab\x0c\u2028cd\nef", 1, 1),
    "a null character": ("ab\0cd", 0, 3),
}


def test_odd_places_and_texts_are_harmless(backend: Backend) -> None:
    async def run() -> dict[str, str | None]:
        async with editing(backend.url) as editor:
            for name, (text, _, _) in ODD.items():
                editor.open(f"untitled:{name}", text)
            result: dict[str, str | None] = {}
            for name, (_, line, character) in ODD.items():
                backend.answer(f"answer {len(result)}")
                result[name] = await editor.text(f"untitled:{name}", line, character)
            editor.change("untitled:never opened", types.TextDocumentContentChangeWholeDocument(text="x"))
            far = types.Range(types.Position(50, 50), types.Position(9, 9))
            editor.change("untitled:in a pair", types.TextDocumentContentChangePartial(range=far, text="\ude00"))
            result["never opened"] = await editor.text("untitled:never opened", 0, 0)
            assert editor.messages == []
            return result

    result = asyncio.run(run())
    assert result.pop("never opened") is None
    assert all(result.values())


def test_a_text_that_is_too_large_costs_nothing(backend: Backend) -> None:
    async def run() -> tuple[str | None, float]:
        async with editing(backend.url) as editor:
            editor.open("untitled:large", "x = 1\n" * 1_000_000)
            assert await editor.text("untitled:large", 5, 0) is None
            started = time.monotonic()
            for number in range(100):
                place = types.Range(types.Position(number, 0), types.Position(number, 0))
                editor.change("untitled:large", types.TextDocumentContentChangePartial(range=place, text="y"))
            assert await editor.text("untitled:large", 5, 0) is None
            seconds = time.monotonic() - started
            editor.replace("untitled:large", "x = ")
            return await editor.text("untitled:large", 0, 4), seconds

    text, seconds = asyncio.run(run())
    assert text == "answer"
    assert seconds < 20  # copying the text at each change takes minutes


def test_several_folders_have_their_own_context(backend: Backend, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, {"helper.py": "def largest_circle_of_one(): return best\n"})
    write(two, {"helper.py": "def largest_circle_of_two(): return best\n"})
    prompts = []

    async def run() -> None:
        async with editing(backend.url, one, two) as editor:
            for root in (one, two):
                uri = (root / "main.py").as_uri()
                editor.open(uri, CURRENT)
                await editor.text(uri, LINE, COLUMN)
                prompts.append(backend.prompt)
            gone = types.WorkspaceFoldersChangeEvent(added=[], removed=[types.WorkspaceFolder(two.as_uri(), "two")])
            editor.client.workspace_did_change_workspace_folders(types.DidChangeWorkspaceFoldersParams(gone))
            editor.replace((two / "main.py").as_uri(), CURRENT.replace("best =", "second ="))
            await editor.text((two / "main.py").as_uri(), LINE, COLUMN)
            prompts.append(backend.prompt)

    asyncio.run(run())
    assert ["of_one" in prompt for prompt in prompts] == [True, False, False]
    assert ["of_two" in prompt for prompt in prompts] == [False, True, False]
    assert str(tmp_path) not in "".join(prompts)


def test_cells_of_a_notebook_complete_each_other(backend: Backend, project: Path) -> None:
    kinds = types.NotebookCellKind.Code, types.NotebookCellKind.Markup, types.NotebookCellKind.Code
    texts = "import shapes", "Some *prose*", "circle = "
    uris = [f"vscode-notebook-cell:/analysis.ipynb#W{number}" for number in range(3)]
    cells = [types.NotebookCell(kind, uri) for kind, uri in zip(kinds, uris, strict=True)]
    items = [types.TextDocumentItem(uri, "python", 1, text) for uri, text in zip(uris, texts, strict=True)]
    notebook = types.NotebookDocument((project / "analysis.ipynb").as_uri(), "jupyter-notebook", 1, cells)
    capabilities = types.ClientCapabilities(
        text_document=INLINE,
        notebook_document=types.NotebookDocumentClientCapabilities(types.NotebookDocumentSyncClientCapabilities()),
    )

    async def run() -> str | None:
        async with editing(backend.url, project, capabilities=capabilities) as editor:
            params = types.DidOpenNotebookDocumentParams(notebook_document=notebook, cell_text_documents=items)
            editor.client.notebook_document_did_open(params)
            return await editor.text(uris[2], 0, 9)

    assert asyncio.run(run()) == "answer"
    assert "import shapes\ncircle = " in backend.prompt
    assert "prose" not in backend.prompt
    assert "analysis.ipynb.py" in backend.prompt


def test_a_server_that_is_down_is_reported_once(backend: Backend) -> None:
    async def run() -> tuple[list[str], str | None]:
        async with editing(f"http://127.0.0.1:{free_port()}") as editor:
            editor.open("untitled:a", "x = ")
            for _ in range(5):
                assert await editor.text("untitled:a", 0, 4) is None
                await asyncio.sleep(0.4)
            editor.client.workspace_did_change_configuration(
                types.DidChangeConfigurationParams(settings={"infill": {"url": backend.url}})
            )
            return editor.messages, await editor.text("untitled:a", 0, 4)

    messages, text = asyncio.run(run())
    assert len(messages) == 1
    assert "no server answers" in messages[0]
    assert text == "answer"


@pytest.fixture
def hanging(backend: Backend) -> threading.Event:
    """The predictor answers nothing; the event says when its connection was closed."""
    closed = threading.Event()

    def hang(connection: socket.socket) -> None:
        connection.settimeout(30)
        if not connection.recv(1):
            closed.set()

    backend.predictor.behaviour = hang
    return closed


@pytest.mark.parametrize("how", ["cancelled", "overtaken", "gone"])
def test_a_request_that_nobody_waits_for_ends_upstream(backend: Backend, hanging: threading.Event, how: str) -> None:
    async def run() -> float:
        async with editing(backend.url) as editor:
            editor.open("untitled:a", "x = ")
            first = asyncio.ensure_future(editor.inline("untitled:a", 0, 4))

            async def asked() -> bool:
                return bool(backend.predictor.requests)

            await editor.until(asked)
            started = time.monotonic()
            if how == "cancelled":
                identifier = next(iter(editor.client.protocol._request_futures))
                editor.client.cancel_request(types.CancelParams(id=identifier))
            elif how == "overtaken":
                editor.replace("untitled:a", "y = ")
                second = asyncio.ensure_future(editor.inline("untitled:a", 0, 4))
                assert await first is None
            assert how == "gone" or await asyncio.to_thread(hanging.wait, 20)
            seconds = time.monotonic() - started
            if how == "overtaken":
                second.cancel()
            first.cancel()
            return seconds

    seconds = asyncio.run(run())
    assert hanging.wait(20)
    assert seconds < 15  # the predictor would hang for 30


def test_settings_of_all_three_kinds_are_obeyed(backend: Backend) -> None:
    workspace = types.WorkspaceClientCapabilities(configuration=True)
    capabilities = types.ClientCapabilities(text_document=INLINE, workspace=workspace)

    async def run() -> list[str]:
        async with editing(
            f"http://127.0.0.1:{free_port()}",
            capabilities=capabilities,
            options={"url": backend.url, "maxTokens": 9, "debouceMs": 5, "timeoutMs": "soon"},
            configuration={"languages": ["go"], "maxTokens": 7},
            arguments=("--languages", "python", "--stdio"),
        ) as editor:
            editor.open("untitled:a", "x = ", "python")
            editor.open("untitled:b", "x := ", "go")
            assert await editor.text("untitled:a", 0, 4) is None
            assert await editor.text("untitled:b", 0, 5) == "answer"
            return editor.messages

    messages = asyncio.run(run())
    assert backend.asked[0]["max_tokens"] == 7
    assert any("unknown setting 'debouceMs'; did you mean 'debounceMs'?" in message for message in messages)
    assert any("timeoutMs must be an integer, got 'soon'" in message for message in messages)


def test_the_key_goes_only_to_the_server_that_was_named_at_the_start(backend: Backend) -> None:
    async def run() -> None:
        async with editing(backend.url, environment={"INFILL_API_KEY": "s3cret"}) as editor:
            editor.open("untitled:a", "x = ")
            await editor.text("untitled:a", 0, 4)
            elsewhere = backend.url.replace("127.0.0.1", "localhost")
            settings = {"infill": {"url": elsewhere}}
            editor.client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings=settings))
            editor.replace("untitled:a", "y = ")
            await editor.text("untitled:a", 0, 4)

    asyncio.run(run())
    heads = [head for head, _ in backend.predictor.requests]
    assert ["s3cret" in head for head in heads] == [True, False]


def test_an_accepted_suggestion_is_reported_by_its_number(backend: Backend) -> None:
    backend.answer("area(radius)\n")

    async def run() -> tuple[Any, list[Any]]:
        async with editing(backend.url, options={"telemetry": "metrics"}) as editor:
            editor.open("untitled:a", "x = ")
            (item,) = (await editor.inline("untitled:a", 0, 4)).items
            await editor.accept(item)
            return await editor.status(), item.command.arguments

    status, (identifier,) = asyncio.run(run())
    assert (status["shown"], status["accepted"]) == (1, 1)
    assert identifier.startswith("cmpl-")


def test_an_editor_without_inline_completion_gets_a_list(backend: Backend) -> None:
    backend.answer("ea(radius)\n")

    async def run() -> tuple[Any, Any, Any]:
        async with editing(backend.url, capabilities=types.ClientCapabilities()) as editor:
            editor.open("untitled:a", "é🌍 = circle.ar")
            listed = await editor.listed("untitled:a", 0, 15)
            await editor.accept(listed.items[0])
            status = await editor.status()
        async with editing(backend.url) as editor:
            editor.open("untitled:a", "x = ")
            return listed, status, await editor.listed("untitled:a", 0, 4)

    listed, status, other = asyncio.run(run())
    item = listed.items[0]
    assert listed.is_incomplete
    assert item.text_edit.new_text == item.filter_text == "area(radius)\n"
    assert item.text_edit.range == types.Range(types.Position(0, 13), types.Position(0, 15))
    assert (status["shown"], status["accepted"]) == (1, 1)
    assert other is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_positions_are_counted_as_the_editor_counts(backend: Backend, encoding: str) -> None:
    general = types.GeneralClientCapabilities(position_encodings=[types.PositionEncodingKind(encoding)])
    capabilities = types.ClientCapabilities(text_document=INLINE, general=general)
    column = {"utf-8": 12, "utf-16": 8, "utf-32": 7}[encoding]

    async def run() -> str | None:
        async with editing(backend.url, capabilities=capabilities) as editor:
            assert editor.result is not None
            assert editor.result.capabilities.position_encoding == encoding
            editor.open("untitled:a", "é🌍 = äb, rest")
            return await editor.text("untitled:a", 0, column)

    assert asyncio.run(run()) == "answer"
    assert backend.prompt.rstrip().endswith("é🌍 = äb")


def test_a_selected_entry_of_the_editors_list_is_continued(backend: Backend) -> None:
    async def run() -> Any:
        async with editing(backend.url) as editor:
            editor.open("untitled:a", "x = circ")
            word = types.Range(types.Position(0, 4), types.Position(0, 8))
            return await editor.inline(
                "untitled:a", 0, 8, selected_completion_info=types.SelectedCompletionInfo(word, "circle")
            )

    item = asyncio.run(run()).items[0]
    assert (item.insert_text, item.range.start.character, item.range.end.character) == ("circleanswer", 4, 8)
    assert backend.prompt.rstrip().endswith("x = circle")


def test_typing_through_a_completion_asks_once(backend: Backend) -> None:
    async def run() -> list[str | None]:
        async with editing(backend.url) as editor:
            editor.open("untitled:a", "x = \n")
            texts = [await editor.text("untitled:a", 0, 4)]
            for typed in ("an", "answ", "answe", "other"):
                editor.replace("untitled:a", f"x = {typed}\n")
                texts.append(await editor.text("untitled:a", 0, 4 + len(typed)))
            return texts

    assert asyncio.run(run()) == ["answer", "swer", "er", "r", "answer"]
    assert len(backend.asked) == 2


def test_what_the_last_prompt_held_is_reported_by_item_and_part(backend: Backend, project: Path) -> None:
    async def run() -> tuple[Any, Any, Any]:
        async with editing(backend.url, project) as editor:
            request = editor.client.protocol.send_request_async
            before = await request("infill/lastCompletion", {})
            uri = (project / "main.py").as_uri()
            editor.open(uri, CURRENT)
            await editor.text(uri, LINE, COLUMN)
            answered = await request("infill/lastCompletion", {})
            backend.answer("\n")
            editor.replace(uri, CURRENT.replace("best =", "other ="))
            assert await editor.text(uri, LINE, COLUMN + 1) is None
            return before, answered, await request("infill/lastCompletion", {})

    before, answered, blank = asyncio.run(run())
    assert before is None
    assert (answered.path, answered.model, answered.max_prompt_tokens, answered.blank) == (
        "main.py",
        "tiny",
        512,
        False,
    )
    parts = sum(item.tokens for item in answered.context) + answered.prefix_tokens + answered.suffix_tokens
    control_and_path = answered.prompt_tokens - parts
    assert 0 < control_and_path < 32
    assert answered.prompt_tokens == len(backend.asked[0]["prompt"])
    timing = answered.timing_ms
    assert 0 < timing.first_token <= timing.server
    assert answered.latency_ms >= timing.packing + timing.server - 1
    assert blank.blank


def test_a_client_that_shows_the_state_itself_is_notified(backend: Backend) -> None:
    capabilities = types.ClientCapabilities(text_document=INLINE, experimental={"infillState": True})

    async def run() -> tuple[list[Any], list[str]]:
        dead = f"http://127.0.0.1:{free_port()}"
        async with editing(dead, capabilities=capabilities) as editor:

            async def check(number: int) -> None:
                async def enough() -> bool:
                    return len(editor.states) >= number

                await editor.until(enough)

            editor.open("untitled:a", "x = ")
            assert await editor.text("untitled:a", 0, 4) is None
            await check(1)
            settings = types.DidChangeConfigurationParams(settings={"infill": {"url": backend.url}})
            editor.client.workspace_did_change_configuration(settings)
            await check(2)
            return editor.states, editor.messages

    states, messages = asyncio.run(run())
    assert messages == []
    assert [state.available for state in states] == [False, True]
    assert "no server answers" in states[0].problem
    assert (states[1].model, states[1].problem) == ("tiny", None)


def test_completions_that_are_rejected_are_counted(backend: Backend) -> None:
    async def run() -> Any:
        async with editing(backend.url) as editor:
            editor.open("untitled:a", "x = ")
            await editor.text("untitled:a", 0, 4)
            editor.client.protocol.notify("infill/rejected", {})
            return await editor.status()

    status = asyncio.run(run())
    assert (status["shown"], status["accepted"], status["rejected"]) == (1, 0, 1)


def test_indexing_is_shown(backend: Backend, tmp_path: Path) -> None:
    write(tmp_path, {f"module_{number}.py": f"x = {number}\n" for number in range(350)})
    window = types.WindowClientCapabilities(work_done_progress=True)

    async def run() -> list[Any]:
        async with editing(
            backend.url, tmp_path, capabilities=types.ClientCapabilities(text_document=INLINE, window=window)
        ) as editor:

            async def over() -> bool:
                return any(each["kind"] == "end" for each in editor.progress)

            await editor.until(over)
            return editor.progress

    shown = asyncio.run(run())
    assert "Infill: indexing" in shown[0]["title"]
    assert [each["kind"] for each in shown] == ["begin", "report", "report", "report", "end"]
    assert shown[-1]["message"] == "350 files"
