"""The moments at which the editor asks by itself; invocations and suggestions in use are above the rules."""

import asyncio
from typing import Any

import pytest
from lsprotocol import types

from infill.editor.documents import Caret, DocumentLocation
from infill.editor.trigger import why_not
from tests.editor.conftest import Backend, editing

MOMENTS: dict[str, tuple[str, str | None]] = {
    "at the end of a line": ("x = |\ny = 1\n", None),
    "on an empty line": ("x = 1\n|\ny = 1\n", None),
    "at the end of a word": ("x = val|\n", None),
    "before closing brackets": ("x = call(val|)])\n", None),
    "before an operator": ("x = val| + 1\n", None),
    "after a bracket": ("x = call()|\n", None),
    "before a word": ("x = |val\n", None),
    "inside a word": ("x = va|lue\n", "inside a word"),
    "inside a name beyond ASCII": ("größ|e = 1\n", "inside a word"),
    "before the rest of the line": ("x = |(first + second)\n", "before code"),
    "before a carriage return": ("x = |\r\nvery_long_line = 1\r\n", None),
    "before blanks": ("x = |            \n", None),
    "in an empty file": ("|", None),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_rules_look_at_the_caret_s_line_alone(moment: str) -> None:
    text, why = MOMENTS[moment]
    prefix, _, suffix = text.partition("|")
    assert why_not(Caret(DocumentLocation(None, "a.py"), prefix, suffix)) == why


def test_only_an_automatic_request_is_left_out(backend: Backend) -> None:
    automatic: Any = {"trigger_kind": types.InlineCompletionTriggerKind.Automatic}

    async def run() -> Any:
        async with editing(backend.url) as editor:
            editor.open("untitled:a", "x = value\n")
            skipped = await editor.text("untitled:a", 0, 6, **automatic)
            asked = len(backend.asked)
            return skipped, asked, await editor.text("untitled:a", 0, 6), await editor.status()

    skipped, asked, invoked, status = asyncio.run(run())
    assert (skipped, asked, invoked) == (None, 0, "answer")
    assert status["skipped"] == {"inside a word": 1}


def test_a_suggestion_that_is_typed_through_stays(backend: Backend) -> None:
    """What is typed leads to a place where nothing would be asked."""
    backend.answer("answer = 1")
    automatic: Any = {"trigger_kind": types.InlineCompletionTriggerKind.Automatic}

    async def run() -> Any:
        async with editing(backend.url) as editor:
            editor.open("untitled:a", "x = y\n")
            first = await editor.text("untitled:a", 0, 4, **automatic)
            editor.replace("untitled:a", "x = ansy\n")
            return first, await editor.text("untitled:a", 0, 7, **automatic)

    first, rest = asyncio.run(run())
    assert (first, rest) == ("answer = 1", "wer = 1")
