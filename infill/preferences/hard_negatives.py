"""Rejected completions that are made up: near misses of the true middle that a model writes easily.

Each has one fault: it does no work, it continues for too long, it repeats the suffix, or it uses a wrong name of the
project. One that breaks the file is not used, unless that is its fault: a parser would reject it, not a preference.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rapidfuzz import fuzz, process

from infill import metrics, syntax
from infill.fim import is_sound
from infill.preferences.candidates import Candidate
from infill.preferences.judges import rules
from infill.preferences.pairs import Pair
from infill.text import split_lines

STUBS: Final[Mapping[str, tuple[str, ...]]] = {
    "python": ("pass", "raise NotImplementedError", "return None", "None"),
    "go": ('panic("not implemented")', "return nil", "nil"),
    "rust": ("todo!()", "unimplemented!()"),
    "kotlin": ('TODO("not implemented")', "null"),
    "c": ("return 0;", "0"),
    "cpp": ("return 0;", "0"),
    "ruby": ("raise NotImplementedError", "nil"),
    "php": ('throw new Exception("not implemented");', "null"),
    "c_sharp": ("throw new NotImplementedException();", "null"),
    "java": ('throw new UnsupportedOperationException("not implemented");', "return null;", "null"),
}
_OTHERS: Final = ('throw new Error("not implemented");', "return null;", "null")
"""Stubs of the other languages, which are those of JavaScript's family."""
_NAME: Final = re.compile(r"(?P<dot>\.\s*)?\b(?P<name>[^\W\d]\w{2,})\b(?P<call>\s*\()?")
_EXTRA_LINES: Final = 3
_SUFFIX_LINES: Final = 6
"""Lines after the hole that are not taken as a continuation: that would be an echo."""
_NO_CODE: Final = re.compile(
    r'"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'|"[^"\n]*"|\'[^\'\n]*\'|`[^`]*`|/\*[\s\S]*?\*/|(?:#|//)[^\n]*'
)
"""Strings and comments, as most languages write them."""


def hard_negatives(hole: Mapping[str, Any], count: int) -> list[Pair]:
    """Return at most `count` pairs of the true middle over completions that are made up, each of another kind.

    The kinds take turns by the hole's id, so that a small `count` gives all of them over many holes.
    """
    turn = int(hashlib.sha256(str(hole["id"]).encode()).hexdigest()[:8], 16) % len(_KINDS)
    kinds = [*_KINDS[turn:], *_KINDS[:turn]]
    pairs = (make(hole) for make in kinds)
    return [pair for pair in pairs if pair is not None and pair.rejected.strip() != hole["middle"].strip()][:count]


def _stub(hole: Mapping[str, Any]) -> Pair | None:
    """Return the true middle over a placeholder with which the file parses."""
    language, middle = hole["language"], hole["middle"]
    if metrics.is_stub(middle):
        return None
    for text in STUBS.get(language, _OTHERS):
        if _fits(hole, text):
            return _pair(hole, "stub", text, "stub")
    return None


def _over(hole: Mapping[str, Any]) -> Pair | None:
    """Return the true middle over itself with lines that follow in another place."""
    lines = split_lines(hole["suffix"], keepends=True)[_SUFFIX_LINES:] or split_lines(hole["prefix"], keepends=True)
    usable = [number for number, line in enumerate(lines) if sum(map(str.isalnum, line)) > 3]
    if not usable:
        return None
    start = usable[int(hashlib.sha256(hole["middle"].encode(errors="replace")).hexdigest()[:8], 16) % len(usable)]
    extra = "".join(lines[start : start + _EXTRA_LINES]).rstrip("\r\n")
    separator = "" if hole["middle"].endswith("\n") else "\n"
    return _pair(hole, "over", hole["middle"] + separator + extra, "it continues after the gap")


def _echo(hole: Mapping[str, Any]) -> Pair | None:
    """Return the true middle over itself with the suffix up to its first line with a word."""
    lines = split_lines(hole["suffix"], keepends=True)
    words = [number for number, line in enumerate(lines) if any(map(str.isalnum, line))]
    if not words:
        return None
    text = hole["middle"] + "".join(lines[: words[0] + 1]).rstrip("\r\n")
    return _pair(hole, "echo", text, "repeats the suffix")


def _wrong_name(hole: Mapping[str, Any]) -> Pair | None:
    """Return the true middle over itself with a name replaced by the most similar one of the same role.

    The names are those of the code in the file and in the context; the role is a call, a member or another name.
    """
    project = _roles("\n".join([hole["prefix"], hole["suffix"], *(item["text"] for item in hole["context"])]))
    mine = _roles(hole["middle"])
    own = {name for names in mine.values() for name in names}
    swaps = [
        (score, name, other)
        for role, names in mine.items()
        for name in names & project[role]  # others are keywords, or names that nothing else in the project has
        for other, score in _similar(name, sorted(project[role] - own))
    ]
    for _, name, other in sorted(swaps, reverse=True):
        text = re.sub(rf"\b{re.escape(name)}\b", other, hole["middle"])
        if _fits(hole, text):
            return _pair(hole, "wrong_name", text, f"{other} in place of {name}")
    return None


def _similar(name: str, others: Sequence[str]) -> list[tuple[str, float]]:
    """Return the name among `others` that is most similar to `name`, with its similarity; empty without others."""
    best = process.extractOne(name, others, scorer=fuzz.ratio)
    return [(best[0], best[1])] if best else []


def _roles(text: str) -> dict[str, set[str]]:
    """Return the names in the code of a text by their role; those in strings and comments are left out."""
    roles: dict[str, set[str]] = {"call": set(), "member": set(), "name": set()}
    for match in _NAME.finditer(_NO_CODE.sub(" ", text)):
        roles["call" if match["call"] else "member" if match["dot"] else "name"].add(match["name"])
    return roles


def _fits(hole: Mapping[str, Any], text: str) -> bool:
    """Return whether the file parses with a text in the hole; False for a language without a grammar."""
    return hole["language"] in syntax.LANGUAGES and is_sound(hole["prefix"] + text + hole["suffix"], hole["language"])


def _pair(hole: Mapping[str, Any], kind: str, rejected: str, fault: str) -> Pair:
    (verdict,) = rules(hole, [Candidate(text=rejected, finished=True, temperature=0.0)])
    return Pair(
        kind=kind,
        chosen=hole["middle"],
        rejected=rejected,
        rejected_finished=True,
        reason=f"the true middle is chosen; rejected: made up, {fault}",
        score_chosen=1.0,
        score_rejected=verdict.score,
    )


KINDS: Final = frozenset({"stub", "over", "echo", "wrong_name"})
"""Kinds of the pairs."""
_KINDS: Final[tuple[Callable[[Mapping[str, Any]], Pair | None], ...]] = (_stub, _over, _echo, _wrong_name)
