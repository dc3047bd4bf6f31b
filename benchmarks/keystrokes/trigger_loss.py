"""The loss of the editor's trigger: moments that its rules skip although the model's suggestion would have been right.

Most moments are from whole lines that are typed (`typed_sessions`), the others from an edit inside a line whose
end stays after the caret. A suggestion is right if all of its first line that is not blank is what is typed
next. The model sees the file alone, since the question is where it is right and not how often.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import httpx

from infill.editor.documents import Caret, DocumentLocation
from infill.editor.trigger import why_not
from infill.experiments.needed_names import HiddenLines
from infill.experiments.typed_sessions import TypedSession
from infill.text import first_line, split_lines

EVERY: Final = 7
"""Characters between two moments of a session."""
CHARS: Final = 120
TOKENS: Final = 24


class TypedMoment(NamedTuple):
    """A caret, and the text that is typed there next."""

    caret: Caret
    following: str


def moments(sessions: Sequence[TypedSession]) -> Iterator[TypedMoment]:
    """Yield the moments of all sessions, the same ones each time."""
    chance = random.Random(0)
    for session in sessions:
        hole, place = session.hole, DocumentLocation(None, session.hole.query.path)
        for prefix, middle, suffix in (_typed(hole), _edited(hole, chance)):
            for typed in range(0, min(len(middle), CHARS), EVERY):
                yield TypedMoment(Caret(place, prefix + middle[:typed], suffix), middle[typed:])


def _typed(hole: HiddenLines) -> tuple[str, str, str]:
    return hole.query.prefix, hole.middle, hole.query.suffix


def _edited(hole: HiddenLines, chance: random.Random) -> tuple[str, str, str]:
    """Return an edit inside one of the hidden lines, of at most a third of CHARS characters."""
    lines = [line for line in split_lines(hole.middle, keepends=True) if len(line.strip()) > 12]
    line = chance.choice(lines) if lines else hole.middle
    start = hole.middle.index(line) + len(line) - len(line.lstrip())
    end = hole.middle.index(line) + len(line.rstrip())
    first, last = sorted(chance.sample(range(start, end), 2))
    last = min(last, first + CHARS // 3)
    whole = hole.middle
    return hole.query.prefix + whole[:first], whole[first:last], whole[last:] + hole.query.suffix


def is_right(suggestion: str, following: str) -> bool:
    """Return whether the first line of the suggestion that is not blank, with all before it, is what is typed next."""
    shown = suggestion[: len(suggestion) - len(suggestion.lstrip())] + first_line(suggestion.lstrip()).rstrip()
    return bool(shown.strip()) and following.startswith(shown)


def measured(url: str, sessions: Sequence[TypedSession]) -> dict[str, Any]:
    """Return the share of moments that are skipped and the share of right suggestions among them, by rule."""
    total, right, wrong = Counter[str](), Counter[str](), Counter[str]()
    with httpx.Client(timeout=120, trust_env=False) as client:
        for moment in moments(sessions):
            why = why_not(moment.caret) or "asked"
            suggestion = _complete(client, url, moment.caret)
            total[why] += 1
            right[why] += is_right(suggestion, moment.following)
            wrong[why] += bool(suggestion.strip()) and not is_right(suggestion, moment.following)
    every, good = sum(total.values()), max(sum(right.values()), 1)
    return {
        "moments": every,
        "right": round(sum(right.values()) / every, 4),
        "skipped": round(1 - total["asked"] / every, 4),
        "lost": round(1 - right["asked"] / good, 4),
        "wrong_spared": round(1 - wrong["asked"] / max(sum(wrong.values()), 1), 4),
        "rules": {
            rule: {"skipped": round(total[rule] / every, 4), "lost": round(right[rule] / good, 4)}
            for rule in total
            if rule != "asked"
        },
    }


def _complete(client: httpx.Client, url: str, caret: Caret) -> str:
    body = {"prompt": caret.prefix, "suffix": caret.suffix, "path": caret.place.path, "max_tokens": TOKENS}
    answer = client.post(f"{url}/v1/completions", json={**body, "session": caret.place.path}).raise_for_status()
    text: str = answer.json()["choices"][0]["text"]
    return text
