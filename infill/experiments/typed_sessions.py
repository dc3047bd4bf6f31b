"""Typing sessions: hidden lines (`needed_names`), typed with slips, as the requests of an editor.

The caret advances by three characters between two requests. At one step in SLIPS the
user types something else and deletes it again, at one in BACKS he deletes what he has typed last and types it again.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from infill.experiments.needed_names import HiddenLines, holes
from infill.file_kinds import CODE, language_of

STEPS, CHARS = 40, 3
"""Steps of a session, and characters that each types."""
SLIPS, BACKS = 16, 24
WRONG: Final = ("tmp", "xs", "self.", "(a", "no_")
MAX_UNSAVED: Final = 20_000


class Moment(NamedTuple):
    """A moment at which an editor asks."""

    typed: str
    """Text typed since the session began."""
    rest: str
    """Text that is typed next; empty after a slip."""


class TypedSession(NamedTuple):
    """One user's typing in one file, with another file open that differs from the saved one."""

    hole: HiddenLines
    unsaved: tuple[str, str]
    moments: tuple[Moment, ...]

    def body(self, moment: Moment, **more: Any) -> dict[str, Any]:
        """Return the request of a moment: path, caret and the unsaved text, but no other file."""
        query, (path, text) = self.hole.query, self.unsaved
        return {
            "path": query.path,
            "prompt": query.prefix + moment.typed,
            "suffix": query.suffix,
            "context": [{"path": path, "text": text}],
            "temperature": 0,
            **more,
        }


def sessions(project: Mapping[str, str], count: int, seed: str) -> list[TypedSession]:
    """Return at most `count` sessions in source code, the same ones for the same seed."""
    cut = (hole for hole in holes(project, 40 * count, seed) if language_of(hole.query.path) in CODE)
    long = [hole for hole in cut if len(hole.middle) >= STEPS * CHARS]
    chance = random.Random(seed)
    others = [each for each in sorted(project.items()) if len(each[1]) <= MAX_UNSAVED]
    return [
        TypedSession(_open_line(hole), _changed(chance.choice(others)), tuple(_moments(hole.middle, chance)))
        for hole in long[:count]
    ]


def _open_line(hole: HiddenLines) -> HiddenLines:
    """Return the hole with the end of its last line after the caret, as in an editor, where the next line is below."""
    query = replace(hole.query, suffix=f"\n{hole.query.suffix}")
    return hole._replace(middle=hole.middle.removesuffix("\n"), query=query)


def _changed(file: tuple[str, str]) -> tuple[str, str]:
    return file[0], file[1] + "\nunsaved = True\n"


def _moments(middle: str, chance: random.Random) -> Iterator[Moment]:
    place = 0
    while place < STEPS * CHARS:
        if not chance.randrange(SLIPS):
            yield Moment(middle[:place] + chance.choice(WRONG), "")
        elif place > 2 * CHARS and not chance.randrange(BACKS):
            place -= 2 * CHARS
        else:
            place += CHARS
        yield Moment(middle[:place], middle[place:])
