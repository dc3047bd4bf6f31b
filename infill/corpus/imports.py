"""Read the import statements of a source file, in the languages with a grammar, and return what they name as paths.

The statements are those by which the context engine ranks files (`infill.context.caret.imports`), and Go's blocks:
`from ..shapes import area` names `../shapes/area`, `use crate::shapes::{area, side}` names `shapes/area` and
`shapes/side`, `#include "shapes/area.h"` names `shapes/area.h`. `infill.corpus.reading_order` decides whether a path is
one of the repository.
"""

import re
from collections.abc import Iterator
from typing import Final

from infill import file_kinds
from infill.context import caret

MAX_TARGETS: Final = 256
"""Maximum number of targets of one file."""
_GO_BLOCK: Final = re.compile(r"^import \(([^)]{0,8000})\)", re.MULTILINE)
_FROM: Final = re.compile(r"\s*from\s+(?P<module>[\w.]+)\s+import\s+\(?(?P<names>[\w\s,.*]*)")
_RELATIVE: Final = re.compile(r"require_relative\b")
_QUOTED: Final = re.compile(r"[\"'](?P<path>[^\"'\s]{1,200})[\"']|<(?P<system>[\w./+-]{1,200})>")
_DOTTED: Final = re.compile(
    r"\s*(?:pub )?(?:import|use|using)\s+(?:static |function |global )?"
    r"(?P<path>[\w.:\\*]+)(?:\{(?P<names>[^}]*)\})?"
)
_SEPARATOR: Final = re.compile(r"::|[.\\]")
_OWN: Final = frozenset({"crate", "self"})
"""First components of Rust's paths that name the project or the module itself."""


def targets(text: str, language: str) -> list[str]:
    """Return the paths that the imports of a file name, sorted, each once; none for a language without imports."""
    if language not in file_kinds.CODE:
        return []
    lines = caret.imports(text)
    if language == "go":
        blocks = (match[1] for match in _GO_BLOCK.finditer(text[: caret.HEAD_CHARS]))
        lines = "\n".join([lines, *blocks])
    named = {path for line in lines.split("\n") if line.strip() for path in _of_line(line, language)}
    return sorted(filter(None, named))[:MAX_TARGETS]


def _of_line(line: str, language: str) -> Iterator[str]:
    if language == "python":
        return _of_python(line)
    quoted = [match["path"] or match["system"] for match in _QUOTED.finditer(line)]
    if quoted:
        prefix = "./" if _RELATIVE.search(line) else ""
        return (f"{prefix}{path}" for path in quoted)
    match = _DOTTED.match(line)
    return iter(()) if match is None else _of_dotted(match)


def _of_python(line: str) -> Iterator[str]:
    if (match := _FROM.match(line)) is not None:
        module = match["module"]
        dots = len(module) - len(module.lstrip("."))
        above = "./" if dots == 1 else "../" * (dots - 1)
        base = above + module.lstrip(".").replace(".", "/")
        names = [part.split()[0] for part in match["names"].split(",") if part.split()]
        yield from (f"{base.rstrip('/')}/{name}" if name != "*" else base for name in names or ["*"])
    elif line.strip().startswith("import "):
        for part in line.strip().removeprefix("import ").split(","):
            yield from (word.replace(".", "/") for word in part.split()[:1])


def _of_dotted(match: re.Match[str]) -> Iterator[str]:
    """Yield the path of `use a::b::{c, d}` or `import a.b.C`, for each name in braces."""
    steps = [step for step in _SEPARATOR.split(match["path"]) if step not in ("", "*")]
    while steps and steps[0] in _OWN:
        del steps[0]
    above = "./" if steps[:1] == ["super"] else ""
    base = above + "/".join(steps[1:] if above else steps)
    names = [re.split(r"::|\s", name.strip())[0] for name in (match["names"] or "").split(",")]
    for name in names:
        yield f"{base}/{name}".lstrip("/") if name.isidentifier() and name != "self" else base
