"""`infill lsp`: a server of the Language Server Protocol on standard input and output, built on pygls."""

import asyncio
import contextlib
import logging
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lsprotocol import types
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from infill import __version__, entry
from infill.api_key import api_key
from infill.editor import user_settings
from infill.editor.completer import Completer, Completion
from infill.editor.documents import Caret, EditorDocuments, caret_at, offset_at, place_of, units
from infill.editor.file_watch import Watcher
from infill.editor.mirror import Mirror
from infill.editor.project import Indexer, Project
from infill.editor.remote import AwayError, KeyRefusedError, PausedError, Remote
from infill.editor.telemetry import EditorTelemetry, Outbox
from infill.editor.trigger import why_not
from infill.editor.user_settings import Consent, UserSettings
from infill.editor.workspace_client import WorkspaceTarget
from infill.errors import InfillError
from infill.text import first_line

log = logging.getLogger("infill.lsp")

ACCEPTED: Final = "infill.accepted"
STATUS: Final = "infill.status"
LAST_COMPLETION: Final = "infill/lastCompletion"
"""Request: the contents of the last prompt, the reasons, and the latencies; null before the first."""
REJECTED: Final = "infill/rejected"
"""Notification: the user typed something other than the completion, or moved away from it."""
STATE: Final = "infill/state"
"""Notification to a client with the experimental capability `infillState`, which shows the state to the user."""
TRIGGERS: Final = (".", "(", "[", "{", "=", ":", ",")
"""Characters after which an editor without inline completion requests a completion."""
EVERYTHING: Final = types.FileSystemWatcher(glob_pattern="**/*")
MAX_LABEL: Final = 60
FIRST_PROBE_S: Final = 1.0
LONGEST_PROBE_S: Final = 30.0
"""Longest pause between two attempts to reach a server that is away while nobody types."""


class Editor:
    """One editor: its folders, its settings, and its requests."""

    def __init__(self, server: LanguageServer, given: UserSettings, key: str) -> None:
        self.server = server
        self.settings = self.base = given
        self.key = key
        self.key_origin = given.origin
        """The only server to which the key may be sent, since a project's own configuration may name another."""
        self.completer: Completer | None = None
        self.projects: dict[str, Project] = {}
        """Projects by the URI of the editor's folder."""
        self.loop: asyncio.AbstractEventLoop | None = None
        self.indexer = Indexer(self._progress)
        self.watcher: Watcher | None = None
        self.tasks: dict[str, asyncio.Task[Completion | None]] = {}
        """The newest request of each document, by URI."""
        self.tokens: dict[Project, str] = {}
        """Progress tokens of projects that are being indexed."""
        self.begun: set[str] = set()
        """Progress tokens that the client shows."""
        self.logged: dict[Project, str] = {}
        """The last line of the log about each project."""
        self.sent = ""
        """The last state of the server's copies that was sent to the client."""
        self.background: set[asyncio.Task[None]] = set()
        self.reported = False
        """Whether the user was notified that there are no completions."""
        self.missed: Remote | None = None
        """The server that is away, for whose return the background waits."""
        self.without_workspaces: WorkspaceTarget | None = None
        """The server that keeps no workspaces, so that the projects are indexed here."""
        self.shown = self.accepted = self.rejected = 0
        self.skipped = Counter[str]()
        """Number of times that nothing was asked, by rule."""
        self.outbox = Outbox(self._post)
        self.telemetry = EditorTelemetry(self.outbox.put, self._later, self.consent)
        self.latency_ms = 0.0
        """Milliseconds of the last completion, including the pause in typing."""

    # Start and settings

    def initialize(self, params: types.InitializeParams) -> None:
        """Apply the client's options; everything else waits for `initialized`."""
        old = self.server.workspace
        documents = EditorDocuments(
            old.root_uri, workspace_folders=[*old.folders.values()], position_encoding=old.position_encoding
        )
        self.server.protocol._workspace = documents
        self.loop = asyncio.get_running_loop()
        self.base, problems = user_settings.read(_plain(params.initialization_options), self.base)
        self.settings, self.key_origin = self.base, self.base.origin
        for problem in problems:
            self.warn(problem)

    async def initialized(self) -> None:
        """Fetch the configuration, index the folders, and watch them."""
        await self.configure()
        self.indexer.start()
        if _offers(self.server, "workspace.did_change_watched_files.dynamic_registration"):
            options = types.DidChangeWatchedFilesRegistrationOptions(watchers=[EVERYTHING])
            watched = types.Registration(str(uuid.uuid4()), types.WORKSPACE_DID_CHANGE_WATCHED_FILES, options)
            await self._register(watched)
        else:
            self.watcher = Watcher(self.indexer)
        if _offers(self.server, "workspace.did_change_configuration.dynamic_registration"):
            section = types.DidChangeConfigurationRegistrationOptions(section=user_settings.SECTION)
            changes = types.Registration(str(uuid.uuid4()), types.WORKSPACE_DID_CHANGE_CONFIGURATION, section)
            await self._register(changes)
        folders = [*self.documents.folders.values()]
        if not folders and self.documents.root_uri:
            folders = [types.WorkspaceFolder(uri=self.documents.root_uri, name="")]
        self.add_folders(folders)

    async def _register(self, registration: types.Registration) -> None:
        with contextlib.suppress(Exception):  # a client that refuses does without
            await self.server.client_register_capability_async(types.RegistrationParams([registration]))

    @property
    def documents(self) -> EditorDocuments:
        """The documents that are open in the editor."""
        documents = self.server.workspace
        assert isinstance(documents, EditorDocuments)
        return documents

    async def configure(self, pushed: Any = None) -> None:
        """Apply the editor's section `infill`; `pushed` is its value from a client that cannot be asked for it."""
        value = _plain(pushed)
        if _offers(self.server, "workspace.configuration"):
            item = types.ConfigurationItem(section=user_settings.SECTION)
            try:
                answer = await self.server.workspace_configuration_async(types.ConfigurationParams([item]))
                value = _plain(answer[0]) if answer else None
            except Exception as error:
                log.warning("the editor does not send its configuration: %s", type(error).__name__)
        self.settings, problems = user_settings.read(value, self.base)
        for problem in problems:
            self.warn(problem)
        await self._connect()

    async def _connect(self) -> None:
        """Connect to the server in the settings."""
        old = self.completer
        key = self.key if self.settings.origin == self.key_origin else ""
        try:
            remote = Remote(self.settings.url, key, self.settings.timeout_ms / 1000)
        except InfillError as error:
            self.warn(str(error))
            return
        self.completer = Completer(remote, self.settings.max_tokens)
        self.reported = False
        for project in self.projects.values():
            self._place(project)
        if old is not None:
            await old.remote.close()
        self._in_background(self._ask_for_model(remote))

    async def _ask_for_model(self, remote: Remote) -> None:
        """Fetch the model before the first completion needs it."""
        try:
            model = await remote.model()
        except InfillError as error:
            self._no_completions(error)
        else:
            log.info("%s serves %s, prompts of at most %d tokens", remote.url, model.name, model.max_prompt_tokens)
            self._send_state()

    def _in_background(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    # Folders and files

    def add_folders(self, folders: list[types.WorkspaceFolder]) -> None:
        """Index folders of the editor, except those that are not on this machine's disk."""
        for folder in folders:
            root = to_fs_path(folder.uri)
            if root is None or folder.uri in self.projects:
                continue
            project = self.projects[folder.uri] = Project(Path(root))
            self._place(project)
            if self.watcher is not None:
                self.watcher.add(project)
        for uri in self.documents.text_documents:
            self.show(uri)

    def remove_folders(self, folders: list[types.WorkspaceFolder]) -> None:
        """Forget folders of the editor."""
        for folder in folders:
            project = self.projects.pop(folder.uri, None)
            if project is not None and self.watcher is not None:
                self.watcher.remove(project)
            if project is not None:
                self.logged.pop(project, None)
            if project is not None and project.mirror is not None:
                project.mirror.close()

    def _place(self, project: Project) -> None:
        """Keep the project's files where the settings say: in an index here, or on the server.

        Like the key, they go only to the server that was named at the start.
        """
        target, mirror = WorkspaceTarget(url=self.settings.url, key=self.key), project.mirror
        may = self.settings.origin == self.key_origin and target != self.without_workspaces
        on_server = self.settings.workspace == "server" and may
        if on_server and mirror is not None and mirror.target == target:
            return
        if mirror is not None:
            mirror.close(forget=not on_server)
            project.mirror = None
        if on_server:
            self._mirror(project, target)
        elif not project.ready:
            self.indexer.look(project)

    def _mirror(self, project: Project, target: WorkspaceTarget) -> None:
        """Start the server's copy of a project."""

        def progress(count: int | None) -> None:
            if project.mirror is mirror:
                self._progress(project, count)

        def no_workspaces(problem: str) -> None:
            self._call(self._index_here, project, mirror, problem)

        mirror = Mirror(project.root, target, progress=progress, no_workspaces=no_workspaces)
        project.mirror = mirror
        project.reconsider()
        mirror.start()

    def _index_here(self, project: Project, mirror: Mirror, problem: str) -> None:
        """Index a project on this machine, since the server keeps no workspaces; say so once."""
        if project.mirror is not mirror:
            return
        project.mirror = None
        log.warning("%s", problem)
        if self.without_workspaces != mirror.target:
            self.without_workspaces = mirror.target
            self.warn(f"{problem}; the project is indexed on this machine instead")
        self.indexer.look(project)
        self._show_workspace()

    def project_of(self, root: Path | None) -> Project | None:
        """Return the project with this root; None if there is none."""
        return next((project for project in self.projects.values() if project.root == root), None)

    def roots(self) -> list[Path]:
        """Return the editor's folders."""
        return [project.root for project in self.projects.values()]

    def show(self, uri: str) -> None:
        """Pass the editor's text of a file to its project; ignore cells and untitled texts, which are not files."""
        if self.documents.get_notebook_document(cell_uri=uri) is not None or to_fs_path(uri) is None:
            return
        place = place_of(uri, "", self.roots())
        project = self.project_of(place.root)
        if project is not None and (text := self.documents.text(uri)):
            project.show(place.path, text)

    def look(self, uris: list[str], *, closed: bool = False) -> None:
        """Update the indexes for files on disk that may have changed; `closed` if the editor has closed them."""
        changed: dict[Project, set[str]] = {}
        for uri in uris:
            place = place_of(uri, "", self.roots())
            project = self.project_of(place.root)
            if project is not None and to_fs_path(uri) is not None:
                if closed:
                    project.hide(place.path)
                changed.setdefault(project, set()).add(place.path)
        for project, paths in changed.items():
            self.indexer.look(project, paths)

    def _progress(self, project: Project, count: int | None) -> None:
        """Show the progress of a project's index; called by the background thread."""
        self._call(self._show_progress, project, count)

    def _call(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call something on the event loop, from any thread."""
        if self.loop is not None and not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                self.loop.call_soon_threadsafe(action, *arguments)

    def _show_progress(self, project: Project, count: int | None) -> None:
        if count is None:
            mirror = project.mirror
            what = mirror.state() if mirror else project.problem or f"{len(project):,} files"
            if self.logged.get(project) != what:
                self.logged[project] = what
                log.info("%s: %s", project.root, what)
            self._show_workspace()
            if project.problem and mirror is None:
                self.warn(f"no context from {project.root.name}: {project.problem}")
            if (token := self.tokens.pop(project, "")) in self.begun:
                self.begun.discard(token)
                self.server.work_done_progress.end(token, types.WorkDoneProgressEnd(message=what))
        elif not _offers(self.server, "window.work_done_progress"):
            return
        elif project not in self.tokens:
            token = self.tokens[project] = str(uuid.uuid4())
            self._in_background(self._begin_progress(project, token))
        elif self.tokens[project] in self.begun:
            report = types.WorkDoneProgressReport(message=f"{count:,} files")
            self.server.work_done_progress.report(self.tokens[project], report)

    async def _begin_progress(self, project: Project, token: str) -> None:
        """Show the progress, unless the index is complete before the client answers."""
        with contextlib.suppress(Exception):  # a client that shows none
            await self.server.work_done_progress.create_async(token)
            doing = "sending" if project.mirror else "indexing"
            title = f"Infill: {doing} {project.root.name}"
            if self.tokens.get(project) == token:
                self.begun.add(token)
                self.server.work_done_progress.begin(token, types.WorkDoneProgressBegin(title=title, cancellable=False))

    # Telemetry

    def consent(self) -> Consent:
        """Return what user and operator agree to; nothing for another server than the one that the user named."""
        model = self.completer.remote.known if self.completer else None
        if model is None or self.settings.origin != self.key_origin:
            return "off"
        both = {self.settings.telemetry, model.telemetry}
        if both == {"feedback"}:
            return "feedback"
        return "metrics" if both <= {"metrics", "feedback"} else "off"

    async def _post(self, report: dict[str, Any]) -> bool:
        return self.completer is not None and await self.completer.remote.report(report)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        if self.loop is not None:
            self.loop.call_later(seconds, action)

    def changed(self, uri: str, changes: Sequence[types.TextDocumentContentChangeEvent]) -> None:
        """Tell the telemetry of a change of a document."""
        parts = [each.text for each in changes if isinstance(each, types.TextDocumentContentChangePartial)]
        self.telemetry.changed(uri, self.documents.text(uri), tuple(parts))

    def offer(self, uri: str, completion: Completion, place: types.Range, lead: str = "") -> None:
        """Tell the telemetry of a suggestion that is handed to the editor, which inserts it at `place`."""
        text, encoding = self.documents.text(uri), str(self.documents.position_encoding)
        start, end = (offset_at(text, each, encoding) for each in (place.start, place.end))
        self.telemetry.offered(uri, completion, text, (start, end), lead)

    # Completions

    async def complete(self, uri: str, caret: Callable[[], Caret | None], *, waits: bool) -> Completion | None:
        """Return a completion for the newest caret of a document; None if a newer request has replaced this one.

        With `waits` the server is asked only after the pause in typing that is set as `debounce_ms`, and only where a
        suggestion is likely to be accepted.
        """
        if (older := self.tasks.get(uri)) is not None:
            older.cancel()
        task = asyncio.ensure_future(self._complete(caret, waits=waits))
        self.tasks[uri] = task
        try:
            return await task
        except asyncio.CancelledError:
            if (current := asyncio.current_task()) is not None and current.cancelling():
                task.cancel()
                raise
            return None
        finally:
            if self.tasks.get(uri) is task:
                del self.tasks[uri]

    async def _complete(self, caret: Callable[[], Caret | None], *, waits: bool) -> Completion | None:
        started = time.monotonic()
        if waits:
            await asyncio.sleep(self.settings.debounce_ms / 1000)
        place, completer = caret(), self.completer
        if place is None or completer is None:
            return None
        if waits and not completer.continues(place) and (why := why_not(place)):
            self.skipped[why] += 1
            return None
        try:
            completion = await completer.complete(place, self.project_of(place.place.root))
        except PausedError:
            return None
        except InfillError as error:
            self._no_completions(error)
            return None
        except Exception as error:  # our own defect must not cause an error at each keystroke
            log.error("a completion failed: %s; INFILL_DEBUG=1 shows more", type(error).__name__, exc_info=_debug())
            return None
        if self.reported:
            self.reported = False
            self._send_state()
        if completion is not None:
            self.shown += 1
            self.latency_ms = round((time.monotonic() - started) * 1000, 1)
        return completion

    def last_completion(self) -> dict[str, Any] | None:
        """Return the contents of the last prompt and the latencies; None before the first."""
        answered = self.completer.answered if self.completer else None
        return None if answered is None else answered.provenance() | {"latency_ms": self.latency_ms}

    def completes(self, uri: str) -> bool:
        """Return whether the settings enable completions in a document."""
        language = self.documents.get_text_document(uri).language_id
        return self.settings.enabled and (not self.settings.languages or language in self.settings.languages)

    def caret(self, uri: str, position: types.Position) -> Caret | None:
        """Return the caret at a position of the current text; None if the document is not open or too large."""
        return caret_at(self.documents, uri, position, self.roots())

    # Messages to the user

    def _no_completions(self, error: InfillError) -> None:
        """Report why there are no completions, once until there are completions again."""
        log.warning("%s", error)
        if isinstance(error, AwayError):
            self._await_return()
        if self.reported:
            return
        self.reported = True
        if _offers_state(self.server):
            self._send_state(error)
        else:
            self.warn(str(error))

    def _await_return(self) -> None:
        """Wait in the background for a server that is away."""
        if self.completer is not None and self.missed is not self.completer.remote:
            self.missed = self.completer.remote
            self._in_background(self._returned(self.missed))

    async def _returned(self, remote: Remote) -> None:
        """Probe a server until it answers or completions come from it again; then show that, and bring its copies of
        the projects up to date, since it may have lost them."""
        pause = FIRST_PROBE_S
        while self.missed is remote and self.completer is not None and self.completer.remote is remote:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PROBE_S)
            if not self.reported or await _is_back(remote):
                self.missed, self.reported = None, False
                await self._ask_for_model(remote)
                for project in self.projects.values():
                    if project.mirror is not None:
                        project.mirror.doubt()

    def _show_workspace(self) -> None:
        """Send the state of the server's copies, if it has changed and completions work."""
        if not self.reported and self.completer and self.completer.remote.known and self._workspace() != self.sent:
            self._send_state()

    def _workspace(self) -> str:
        """Return where the projects are kept, for people."""
        states = [f"{each.root.name}: {each.mirror.state()}" for each in self.projects.values() if each.mirror]
        return "\n".join(states) or "indexed on this machine"

    def _send_state(self, error: InfillError | None = None) -> None:
        """Send the state of completions to a client that shows it."""
        self.sent = self._workspace()
        if _offers_state(self.server):
            model = self.completer.remote.known if self.completer else None
            state = {
                "available": error is None,
                "url": self.settings.url,
                "model": model.name if model else None,
                "problem": str(error) if error else None,
                "keyRefused": isinstance(error, KeyRefusedError),
                "workspace": self.sent,
            }
            self.server.protocol.notify(STATE, state)

    def warn(self, sentence: str) -> None:
        """Show a warning to the user."""
        params = types.ShowMessageParams(type=types.MessageType.Warning, message=f"Infill: {sentence}")
        self.server.window_show_message(params)

    def status(self) -> dict[str, Any]:
        """Return the state of the language server, for people and for extensions of editors."""
        model = self.completer.remote.known if self.completer else None
        return {
            "version": __version__,
            "url": self.settings.url,
            "enabled": self.settings.enabled,
            "model": model.name if model else None,
            "max_prompt_tokens": model.max_prompt_tokens if model else None,
            "workspace": self.settings.workspace,
            "folders": [each.state() for each in self.projects.values()],
            "shown": self.shown,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "skipped": dict(self.skipped),
            "telemetry": {"consent": self.consent(), "sent": self.outbox.sent, "dropped": self.outbox.dropped},
            "last": self.last_completion(),
        }


class InfillLanguageServer(LanguageServer):
    """pygls's server, but with its own errors in the log instead of the editor."""

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Log an error by its type only, since its message may contain text of a document."""
        what = type(error).__name__
        log.error("cannot handle a message of the editor (%s): %s", source.__name__, what, exc_info=_debug() and error)


async def _is_back(remote: Remote) -> bool:
    """Return whether a server that was away answers, perhaps with an error of its own."""
    try:
        await remote.probe()
    except AwayError:
        return False
    except InfillError as error:
        log.info("%s answers again: %s", remote.url, error)
    return True


def _debug() -> bool:
    return os.environ.get(entry.DEBUG) == "1"


def _offers(server: LanguageServer, name: str) -> bool:
    """Return whether the client has a capability such as `workspace.configuration`."""
    value: Any = server.client_capabilities
    for part in name.split("."):
        value = getattr(value, part, None)
    return bool(value)


def _offers_state(server: LanguageServer) -> bool:
    """Return whether the client itself shows the state of completions to the user."""
    experimental = _plain(server.client_capabilities.experimental)
    return isinstance(experimental, dict) and experimental.get("infillState") is True


def _plain(value: Any) -> Any:
    """Return a JSON value in plain types, which pygls may have wrapped in its own."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


NOTEBOOKS: Final = types.NotebookDocumentSyncOptions(
    notebook_selector=[types.NotebookDocumentFilterWithNotebook(notebook="*")]
)


def create(given: UserSettings, key: str) -> InfillLanguageServer:
    """Return the language server with its features, not yet started."""
    server = InfillLanguageServer("infill", __version__, notebook_document_sync=NOTEBOOKS)
    editor = Editor(server, given, key)

    @server.feature(types.INITIALIZE)
    def initialize(params: types.InitializeParams) -> None:
        editor.initialize(params)

    @server.feature(types.INITIALIZED)
    async def initialized(_: types.InitializedParams) -> None:
        await editor.initialized()

    _add_files(server, editor)
    _add_completions(server, editor)

    @server.command(STATUS)
    def status() -> dict[str, Any]:
        return editor.status()

    @server.command(ACCEPTED)
    def accepted(identifier: str = "") -> None:
        editor.accepted += 1
        editor.telemetry.accepted(identifier)

    @server.feature(REJECTED)
    def rejected(_: Any) -> None:
        editor.rejected += 1
        editor.telemetry.rejected()

    @server.feature(LAST_COMPLETION)
    def last_completion(_: Any) -> dict[str, Any] | None:
        return editor.last_completion()

    return server


def _add_files(server: InfillLanguageServer, editor: Editor) -> None:
    @server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)
    async def configuration(params: types.DidChangeConfigurationParams) -> None:
        await editor.configure(params.settings)

    @server.feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)
    def folders(params: types.DidChangeWorkspaceFoldersParams) -> None:
        editor.remove_folders([*params.event.removed])
        editor.add_folders([*params.event.added])

    @server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)
    def watched(params: types.DidChangeWatchedFilesParams) -> None:
        editor.look([change.uri for change in params.changes])

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        editor.show(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: types.DidChangeTextDocumentParams) -> None:
        editor.show(params.text_document.uri)
        editor.changed(params.text_document.uri, params.content_changes)

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    def saved(params: types.DidSaveTextDocumentParams) -> None:
        editor.look([params.text_document.uri])

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        editor.look([params.text_document.uri], closed=True)


def _add_completions(server: InfillLanguageServer, editor: Editor) -> None:
    @server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
    async def inline(params: types.InlineCompletionParams) -> types.InlineCompletionList | None:
        uri, position, selected = params.text_document.uri, params.position, params.context.selected_completion_info
        if not editor.completes(uri):
            return None

        def caret() -> Caret | None:
            place = editor.caret(uri, selected.range.start if selected else position)
            rest = editor.caret(uri, selected.range.end if selected else position)
            if place is None or rest is None:
                return None
            return Caret(place.place, place.prefix + (selected.text if selected else ""), rest.suffix)

        waits = params.context.trigger_kind == types.InlineCompletionTriggerKind.Automatic
        completion = await editor.complete(uri, caret, waits=waits)
        if completion is None:
            return None
        lead, place = (selected.text, selected.range) if selected else ("", types.Range(position, position))
        item = types.InlineCompletionItem(
            insert_text=lead + completion.text, range=place, command=_report_acceptance(completion)
        )
        editor.offer(uri, completion, place, lead)
        return types.InlineCompletionList([item])

    @server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=TRIGGERS))
    async def fallback(params: types.CompletionParams) -> types.CompletionList | None:
        uri, position = params.text_document.uri, params.position
        has_inline = _offers(server, "text_document.inline_completion")
        if not editor.completes(uri) or {"auto": has_inline, "never": True}.get(editor.settings.fallback, False):
            return None
        invoked = params.context is None or params.context.trigger_kind == types.CompletionTriggerKind.Invoked
        completion = await editor.complete(uri, lambda: editor.caret(uri, position), waits=not invoked)
        items = [] if completion is None else [_item(completion, position, str(editor.documents.position_encoding))]
        if completion is not None:
            editor.offer(uri, completion, types.Range(position, position))
        return types.CompletionList(is_incomplete=True, items=items)


def _item(completion: Completion, position: types.Position, encoding: str) -> types.CompletionItem:
    """Return a completion as a list item that includes the word before the caret, with which editors compare it."""
    word = _word(completion.caret.prefix)
    text = word + completion.text
    start = types.Position(position.line, position.character - units(word, encoding))
    label = first_line(text).strip() or first_line(text.strip())
    return types.CompletionItem(
        label=label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…",
        kind=types.CompletionItemKind.Snippet,
        detail="Infill",
        documentation=text,
        sort_text="!",
        filter_text=text,
        insert_text_format=types.InsertTextFormat.PlainText,
        text_edit=types.TextEdit(range=types.Range(start, position), new_text=text),
        command=_report_acceptance(completion),
    )


def _report_acceptance(completion: Completion) -> types.Command:
    """Return the command by which the editor reports that a completion was accepted."""
    return types.Command(title="Infill: accepted", command=ACCEPTED, arguments=[completion.id])


def _word(prefix: str) -> str:
    """Return the identifier that ends at the caret."""
    end = prefix[-MAX_LABEL:]
    start = len(end)
    while start and (end[start - 1].isalnum() or end[start - 1] == "_"):
        start -= 1
    return end[start:]


def serve(given: UserSettings) -> None:
    """Serve the editor on standard input and output until it ends. Raises InputError for an invalid key."""
    key = api_key()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="infill lsp: %(message)s")
    for name in ("pygls", "httpx", "httpcore", "watchfiles"):  # pygls logs what the editor sends: the user's code
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Other writes to standard output would break the protocol, so they go to the log.
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        create(given, key).start_io(sys.stdin.buffer, out)
