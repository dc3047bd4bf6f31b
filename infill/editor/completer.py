"""From a caret to a completion: pack the project's context, ask the server, fit its answer to the document."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from infill.context.packing import Packed, pack
from infill.editor.documents import Caret
from infill.editor.mirror import Mirror
from infill.editor.project import Project
from infill.editor.remote import Answer, Model, Remote, StaleError, WorkspaceLostError
from infill.file_kinds import language_of
from infill.prompt import ContextItem, FimRequest, item_texts
from infill.text import first_line, split_lines

MAX_SIDE_CHARS: Final = 500_000
"""Characters of the current file to pack on each side of the caret; no prompt holds more."""
CLOSERS: Final = " \t)]}>\"'`;:,"
"""Characters that may follow the caret on its line if the completion may have several lines."""


@dataclass(frozen=True)
class Completion:
    """A completion of a caret, and the prompt that led to it."""

    text: str
    caret: Caret
    """The caret that it completes."""
    packed: Packed | None = None
    model: Model | None = None
    id: str = ""
    """The server's name of it."""
    typed: str = ""
    """Its beginning, which the user has typed since."""
    timing_ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds of `packing` here, of the `server`'s answer, and within that until the `first_token`.

    If the server packed the prompt, its `packing` is there, within that of the `server`.
    """
    account: Mapping[str, Any] = field(default_factory=dict)
    """The server's account of the prompt that it packed; empty if it was packed here."""

    @property
    def items(self) -> tuple[ContextItem, ...]:
        """The context items in the prompt."""
        return self.packed.prompt.items if self.packed else ()

    def after_typing(self, caret: Caret) -> "Completion | None":
        """Return the rest of the completion if the user has typed its beginning; None if the user typed other text."""
        typed = caret.prefix.removeprefix(self.caret.prefix)
        same = caret.place == self.caret.place and caret.suffix == self.caret.suffix
        if not same or len(typed) == len(caret.prefix) > 0 or not self.text.startswith(typed):
            return None
        rest = self.text[len(typed) :]
        return replace(self, text=rest, caret=caret, typed=self.typed + typed) if rest.strip() else None

    def provenance(self) -> dict[str, Any]:
        """Return the origin of the prompt's parts, the reasons, and the times, without any text of the prompt.

        The tokens of each item are counted here, so that completing does not take time for it.
        """
        assert self.model is not None
        root = self.caret.place.root
        return {
            "path": self.caret.place.path,
            "root": root and str(root),
            "model": self.model.name,
            "timing_ms": dict(self.timing_ms),
            "max_prompt_tokens": self.model.max_prompt_tokens,
            "blank": not self.text.strip(),
            "packed_by": "client" if self.packed else "server",
            **(_parts(self.packed, self.model) if self.packed else _reported_parts(self.account)),
        }


PARTS: Final = ("path", "first_line", "last_line", "score", "strategy")
COUNTS: Final = ("prompt_tokens", "prefix_tokens", "suffix_tokens")


def _parts(packed: Packed, model: Model) -> dict[str, Any]:
    """Return the origin of the parts of a prompt that was packed here, with the tokens of each."""
    prompt, fmt, encode = packed.prompt, model.fmt, model.encoder.encode
    return {
        "prompt_tokens": len(prompt.ids),
        "prefix_tokens": prompt.prefix_tokens,
        "suffix_tokens": prompt.suffix_tokens,
        "context": [
            {name: getattr(item, name) for name in PARTS}
            | {"tokens": 1 + sum(len(encode(text)) for text in item_texts(fmt, item))}
            for item in prompt.items
        ],
        "why_empty": packed.why_empty,
    }


def _reported_parts(account: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same of a prompt that the server packed, which does not count the tokens of each item."""
    items = account.get("context")
    return {
        **{name: account.get(name) for name in COUNTS},
        "context": [
            {name: item.get(name) for name in PARTS} | {"tokens": None}
            for item in (items if isinstance(items, list) else [])
            if isinstance(item, dict)
        ],
        "why_empty": account.get("why_empty"),
    }


@dataclass
class Completer:
    """The state that the completions of one editor share; nothing here belongs to one request."""

    remote: Remote
    max_tokens: int
    answered: Completion | None = None
    """The server's last answer, even if it was blank."""
    _last: dict[str, Completion] = field(default_factory=dict)
    """The last completion by path, only of the file that was completed last."""

    async def complete(self, caret: Caret, project: Project | None) -> Completion | None:
        """Return a completion that is not blank; None if the model has none or the file is ignored.

        If the server has changed its model, the prompt is packed again. Raises ServiceError.
        """
        if rest := self._rest(caret):
            return rest
        try:
            completion = await self._ask(caret, project, await self.remote.model())
        except StaleError:
            completion = await self._ask(caret, project, await self.remote.model())
        self._last = {caret.place.path: completion} if completion else {}
        return completion

    def continues(self, caret: Caret) -> bool:
        """Return whether the user types through the last completion, of which something is left."""
        return self._rest(caret) is not None

    def _rest(self, caret: Caret) -> Completion | None:
        last = self._last.get(caret.place.path)
        return last.after_typing(caret) if last else None

    async def _ask(self, caret: Caret, project: Project | None, model: Model) -> Completion | None:
        mirror = project.mirror if project is not None else None
        if project is not None and mirror is not None:
            completion = await self._packed_there(caret, project, mirror, model)
        else:
            completion = await self._packed_here(caret, project, model)
        self.answered = completion or self.answered
        return completion if completion and completion.text.strip() else None

    async def _packed_here(self, caret: Caret, project: Project | None, model: Model) -> Completion | None:
        """Pack the prompt and send it."""
        began = time.monotonic()
        packed = await asyncio.to_thread(_pack, caret, project, model)
        if packed is None:
            return None
        asked = time.monotonic()
        try:
            answer = await self.remote.complete(
                model,
                packed.prompt.ids,
                max_tokens=self.max_tokens,
                stop=_stops(caret),
                language=language_of(caret.place.path) or "",
            )
        except StaleError:
            self.remote.forget(model)
            raise
        timing = {"packing": _milliseconds(asked - began), **_server_timing(asked, answer)}
        return Completion(fitted(answer.text, caret), caret, packed, model, id=answer.id, timing_ms=timing)

    async def _packed_there(self, caret: Caret, project: Project, mirror: Mirror, model: Model) -> Completion | None:
        """Send the caret and unsaved texts; the server packs the prompt with its copy of the project.

        If the server has lost the copy, the mirror sends it again, and this request goes without it, but with all open
        files.
        """
        asked, times, revision = time.monotonic(), mirror.times, mirror.revision
        try:
            answer = await self._ask_server(caret, project, mirror, model, known=mirror.listed)
        except WorkspaceLostError:
            mirror.lost(times)
            answer = await self._ask_server(caret, project, mirror, model, known=False)
        if answer is None:
            return None
        if isinstance(answered := answer.packed.get("workspace_revision"), str):
            mirror.check(revision, answered, times)
        packing = answer.packed.get("timing_ms", {}).get("packing")
        timing = {"packing": packing if isinstance(packing, int | float) else 0.0, **_server_timing(asked, answer)}
        text = fitted(answer.text, caret)
        return Completion(text, caret, model=model, id=answer.id, timing_ms=timing, account=answer.packed)

    async def _ask_server(
        self, caret: Caret, project: Project, mirror: Mirror, model: Model, *, known: bool
    ) -> Answer | None:
        """Return the answer for a caret whose prompt the server packs; None in a private file."""
        body = await asyncio.to_thread(_request, caret, project, mirror, known=known)
        return await self.remote.complete_caret(model, body, max_tokens=self.max_tokens) if body else None


def _request(caret: Caret, project: Project, mirror: Mirror, *, known: bool) -> dict[str, Any] | None:
    """Return a request whose prompt the server packs, with its copy of the project if it is `known` to have one.

    Return None in a private file.
    """
    path = caret.place.path
    if project.is_private(caret.file or path):
        return None
    return {
        "path": path,
        "prompt": caret.prefix[-MAX_SIDE_CHARS:],
        "suffix": caret.suffix[:MAX_SIDE_CHARS],
        "context": project.unsaved(path, mirror, known=known),
        "recent": [each for each in project.recent(path) if project.left_out(each) is None],
        "session": mirror.session,
        "stop": [*_stops(caret)] or None,
        **({"workspace": mirror.name} if known else {}),
    }


def _stops(caret: Caret) -> tuple[str, ...]:
    return () if may_have_lines(caret) else ("\n",)


def _server_timing(asked: float, answer: Answer) -> dict[str, float]:
    """Return the milliseconds since the server was asked, and until the first token if the server reports them."""
    first = {} if answer.first_token_ms is None else {"first_token": answer.first_token_ms}
    return {"server": _milliseconds(time.monotonic() - asked), **first}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1_000, 1)


def _pack(caret: Caret, project: Project | None, model: Model) -> Packed | None:
    """Return the prompt for a caret, with context if it is in a project; None in a file that Git ignores."""
    request = FimRequest(
        path=caret.place.path, prefix=caret.prefix[-MAX_SIDE_CHARS:], suffix=caret.suffix[:MAX_SIDE_CHARS]
    )
    if project is not None:
        return project.pack(request, model, file=caret.file)
    return pack(model.fmt, model.encoder.encode, request, budget=model.max_prompt_tokens)


def may_have_lines(caret: Caret) -> bool:
    """Return whether a completion may have several lines: nothing but closing brackets follows on the caret's line."""
    return not first_line(caret.suffix).strip(CLOSERS)


def fitted(text: str, caret: Caret) -> str:
    """Return a completion with the line ends of the document, cut after its first line if it may have only one."""
    if not may_have_lines(caret):
        return first_line(text)
    end = line_end(caret.prefix + caret.suffix)
    lines = split_lines(text, keepends=True)
    return "".join(f"{first_line(line)}{end}" if line.endswith(("\n", "\r")) else line for line in lines)


def line_end(text: str) -> str:
    """Return the line end that a document uses first."""
    first = len(first_line(text))
    return next((end for end in ("\r\n", "\r", "\n") if text.startswith(end, first)), "\n")
