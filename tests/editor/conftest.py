"""A real `infill lsp` process, pygls's client as the editor, a transformer whose predictor writes what a test needs."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from pygls.lsp.client import LanguageClient

from infill.prompt import Encoder, load_encoder
from serving.transformer.service import TransformerService
from serving.transformer.workspaces import Workspace
from tests.builders import tiny_model
from tests.serving.conftest import Strangers, chunk, say, strange_predictor, transforming

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "infill.cli")
BUDGET = 512
INLINE = types.TextDocumentClientCapabilities(inline_completion=types.InlineCompletionClientCapabilities())


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("editor") / "model"
    tiny_model(folder, context_length=1_024)
    return folder


@pytest.fixture(scope="package", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the number for the names of workspaces out of the user's state folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@dataclass
class Backend:
    """A transformer with a scripted predictor."""

    url: str
    predictor: Strangers
    encoder: Encoder
    service: TransformerService

    def answer(self, text: str) -> None:
        """From now on every completion is `text`."""
        done = chunk(text, "stop") + "data: [DONE]\n\n"
        self.predictor.behaviour = say("200 OK", done, "text/event-stream")

    @property
    def asked(self) -> list[dict[str, Any]]:
        """What the predictor was asked so far."""
        return [json.loads(body) for _, body in self.predictor.requests]

    @property
    def prompt(self) -> str:
        """The text of the last prompt, without its control tokens."""
        return self.encoder.decode(self.asked[-1]["prompt"])


@contextmanager
def serving_text(model: Path, text: str = "answer", **settings: Any) -> Iterator[Backend]:
    limits = {"max_prompt_tokens": BUDGET, "max_new_tokens": 64, **settings}
    with (
        strange_predictor(lambda _: None) as (address, predictor),
        transforming(model, address, **limits) as (url, service),
    ):
        backend = Backend(url, predictor, load_encoder(model), service)
        backend.answer(text)
        yield backend


@pytest.fixture(scope="module")
def shared_backend(model: Path) -> Iterator[Backend]:
    with serving_text(model) as backend:
        yield backend


@pytest.fixture
def backend(shared_backend: Backend) -> Backend:
    shared_backend.predictor.requests.clear()
    shared_backend.answer("answer")
    return shared_backend


@dataclass
class Editor:
    """What a test does with the language server, and what that said."""

    client: LanguageClient
    result: types.InitializeResult | None = None
    configuration: dict[str, Any] | None = None
    messages: list[str] = field(default_factory=list)
    progress: list[Any] = field(default_factory=list)
    registered: list[str] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)

    def open(self, uri: str, text: str, language: str = "python") -> None:
        item = types.TextDocumentItem(uri=uri, language_id=language, version=1, text=text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(text_document=item))

    def change(self, uri: str, *changes: Any) -> None:
        document = types.VersionedTextDocumentIdentifier(uri=uri, version=2)
        self.client.text_document_did_change(types.DidChangeTextDocumentParams(document, [*changes]))

    def replace(self, uri: str, text: str) -> None:
        self.change(uri, types.TextDocumentContentChangeWholeDocument(text=text))

    def close(self, uri: str) -> None:
        document = types.TextDocumentIdentifier(uri=uri)
        self.client.text_document_did_close(types.DidCloseTextDocumentParams(text_document=document))

    def inline(self, uri: str, line: int, character: int, **context: Any) -> Awaitable[Any]:
        context.setdefault("trigger_kind", types.InlineCompletionTriggerKind.Invoked)
        params = types.InlineCompletionParams(
            context=types.InlineCompletionContext(**context),
            text_document=types.TextDocumentIdentifier(uri=uri),
            position=types.Position(line=line, character=character),
        )
        return asyncio.wait_for(self.client.text_document_inline_completion_async(params), 60)

    async def text(self, uri: str, line: int, character: int, **context: Any) -> str | None:
        """The inserted text of an inline completion."""
        answer = await self.inline(uri, line, character, **context)
        return answer.items[0].insert_text if answer else None

    async def listed(self, uri: str, line: int, character: int) -> Any:
        document, position = types.TextDocumentIdentifier(uri=uri), types.Position(line=line, character=character)
        params = types.CompletionParams(text_document=document, position=position)
        return await asyncio.wait_for(self.client.text_document_completion_async(params), 60)

    async def accept(self, item: Any) -> None:
        """Run the suggestion's own command, as an editor does when it is accepted."""
        params = types.ExecuteCommandParams(command=item.command.command, arguments=item.command.arguments)
        await self.client.workspace_execute_command_async(params)

    async def status(self) -> Any:
        params = types.ExecuteCommandParams(command="infill.status")
        return await self.client.workspace_execute_command_async(params)

    async def until(self, condition: Callable[[], Awaitable[bool]], timeout_s: float = 60.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not await condition():
                await asyncio.sleep(0.05)

    async def indexed(self) -> None:
        """Wait until every folder is indexed."""

        async def ready() -> bool:
            return all(folder["ready"] for folder in (await self.status())["folders"])

        await self.until(ready)


@asynccontextmanager
async def editing(
    url: str,
    *roots: Path,
    capabilities: types.ClientCapabilities | None = None,
    options: Any = None,
    configuration: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    program: tuple[str, ...] = PROGRAM,
) -> AsyncIterator[Editor]:
    """An editor with these folders open, connected to an `infill lsp` of its own."""
    client = LanguageClient("test", "1")
    editor = Editor(client, configuration=configuration)
    _listen(editor)
    command = [*program, "lsp", "--url", url, "--debounce", "0", *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "INFILL_API_KEY": "", **(environment or {})}
    await client.start_io(*command, env=variables, cwd="/")
    try:
        folders = [types.WorkspaceFolder(uri=root.as_uri(), name=root.name) for root in roots]
        params = types.InitializeParams(
            capabilities=capabilities or types.ClientCapabilities(text_document=INLINE),
            workspace_folders=folders,
            initialization_options=options,
        )
        editor.result = await asyncio.wait_for(client.initialize_async(params), 60)
        client.initialized(types.InitializedParams())
        if roots:
            await editor.indexed()
        yield editor
        await asyncio.wait_for(client.shutdown_async(None), 60)
        client.exit(None)
        server = client._server
        assert server is not None
        assert await asyncio.wait_for(server.wait(), 60) == 0
    finally:
        if client._server is not None and client._server.returncode is None:
            client._server.kill()
        await client.stop()  # type: ignore[no-untyped-call]


def _listen(editor: Editor) -> None:
    client = editor.client

    @client.feature(types.WINDOW_SHOW_MESSAGE)
    def show(params: types.ShowMessageParams) -> None:
        editor.messages.append(params.message)

    @client.feature(types.WORKSPACE_CONFIGURATION)
    def configuration(params: types.ConfigurationParams) -> Any:
        return [editor.configuration for _ in params.items]

    @client.feature(types.WINDOW_WORK_DONE_PROGRESS_CREATE)
    def create(params: types.WorkDoneProgressCreateParams) -> None:
        return None

    @client.feature(types.PROGRESS)
    def progress(params: types.ProgressParams) -> None:
        editor.progress.append(params.value)

    @client.feature("infill/state")
    def state(params: Any) -> None:
        editor.states.append(params)

    @client.feature(types.CLIENT_REGISTER_CAPABILITY)
    def register(params: types.RegistrationParams) -> None:
        editor.registered.extend(each.method for each in params.registrations)


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text.encode())


def saved_texts(workspace: Workspace) -> dict[str, str]:
    """The texts of a workspace for a client that has no other ones."""
    with workspace.queried(()) as shown:
        return {path: shown.index.text(path) for path in shown.index.files}
