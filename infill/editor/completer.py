"""From a caret to a completion: pack the project's context, ask the server, fit its answer to the document."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from infill.context.packing import Packed, pack
from infill.editor.documents import Caret
from infill.editor.project import Project
from infill.editor.remote import Model, Remote, StaleError
from infill.prompt import ContextItem, FimRequest
from infill.text import first_line, split_lines

MAX_SIDE_CHARS: Final = 500_000
"""Of the current file so much is packed on each side of the caret; no prompt holds more."""
CLOSERS: Final = " \t)]}>\"'`;:,"
"""What may stand after the caret on its line where the completion may have several lines."""


@dataclass(frozen=True)
class Completion:
    text: str
    caret: Caret
    """Where it belongs."""
    items: tuple[ContextItem, ...] = ()
    """What of the project stood in the prompt."""
    prompt_tokens: int = 0
    why_empty: str | None = None

    def after_typing(self, caret: Caret) -> "Completion | None":
        """Return what is left of the completion where its beginning has been typed; None where something else was."""
        typed = caret.prefix.removeprefix(self.caret.prefix)
        same = caret.place == self.caret.place and caret.suffix == self.caret.suffix
        if not same or len(typed) == len(caret.prefix) > 0 or not self.text.startswith(typed):
            return None
        rest = self.text[len(typed) :]
        return Completion(rest, caret, self.items, self.prompt_tokens, self.why_empty) if rest.strip() else None


@dataclass
class Completer:
    """What completions of one editor share; nothing in it belongs to one request."""

    remote: Remote
    max_tokens: int
    _last: dict[str, Completion] = field(default_factory=dict)
    """By path, for the file that was completed last."""

    async def complete(self, caret: Caret, project: Project | None) -> Completion | None:
        """Return a completion that is not blank; None where the model has none, or the file is ignored.

        Where the server has changed its model, the prompt is packed once more. Raises ServiceError.
        """
        last = self._last.get(caret.place.path)
        if last is not None and (rest := last.after_typing(caret)):
            return rest
        try:
            completion = await self._ask(caret, project, await self.remote.model())
        except StaleError:
            completion = await self._ask(caret, project, await self.remote.model())
        self._last = {caret.place.path: completion} if completion else {}
        return completion

    async def _ask(self, caret: Caret, project: Project | None, model: Model) -> Completion | None:
        packed = await asyncio.to_thread(_pack, caret, project, model)
        if packed is None:
            return None
        stop = () if may_have_lines(caret) else ("\n",)
        try:
            answer = await self.remote.complete(model, packed.prompt.ids, max_tokens=self.max_tokens, stop=stop)
        except StaleError:
            self.remote.forget(model)
            raise
        text = fitted(answer.text, caret)
        if not text.strip():
            return None
        return Completion(text, caret, packed.prompt.items, len(packed.prompt.ids), packed.why_empty)


def _pack(caret: Caret, project: Project | None, model: Model) -> Packed | None:
    """Return the prompt of a caret, with context where it lies in a project."""
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
    """Return a completion with the line ends of the document; only its first line where there may be one alone."""
    if not may_have_lines(caret):
        return first_line(text)
    end = line_end(caret.prefix + caret.suffix)
    lines = split_lines(text, keepends=True)
    return "".join(f"{first_line(line)}{end}" if line.endswith(("\n", "\r")) else line for line in lines)


def line_end(text: str) -> str:
    """Return the line end that a document uses first."""
    first = len(first_line(text))
    return next((end for end in ("\r\n", "\r", "\n") if text.startswith(end, first)), "\n")
