"""The README's tree: a line a file, from the first line of its docstring.

`python -m tools.readme` writes it again; a test holds README and code equal.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from infill import entry

ROOT: Final = Path(__file__).parents[1]
README: Final = ROOT / "README.md"
START: Final = "<!-- tree: python -m tools.readme -->\n```\n"
END: Final = "```\n<!-- end of tree -->\n"
PACKAGES: Final = ("infill", "components", "pipelines", "serving", "benchmarks")
COLUMN: Final = 32


def about(file: Path) -> str:
    """The first sentence of a module's docstring, without its full stop. Raises ValueError when there is none."""
    text = ast.get_docstring(ast.parse(file.read_text()))
    if not text:
        raise ValueError(f"{file} has no docstring: say what the file holds")
    return " ".join(text.split("\n\n")[0].split()).removesuffix(".")


def tree() -> Iterator[str]:
    """The lines: each package, then its modules, folders after files."""
    for package in PACKAGES:
        yield from _folder(ROOT / package, 0)


def _folder(folder: Path, depth: int) -> Iterator[str]:
    indent = "  " * depth
    yield _line(f"{indent}{folder.name}/", folder / "__init__.py")
    for file in sorted(folder.glob("*.py")):
        if not file.name.startswith("__"):
            yield _line(f"{indent}  {file.name}", file)
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from _folder(inner, depth + 1)


def _line(name: str, file: Path) -> str:
    return f"{name:<{COLUMN}}{about(file)}"


def updated(text: str) -> str:
    """`text`, a README, with its tree as the code has it now."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return before + START + "\n".join(tree()) + "\n" + END + after


def main() -> None:
    """Write the README with its tree as the code has it now."""
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(entry.run("python -m tools.readme", main))
