"""Write each function of the Python packages in a folder to a file of its own, with the imports that it needs.

    python -m tools.function_files out/adapter/sources out/adapter/functions

A model that completes short, self-contained files learns from files of that kind. Licence and build files are copied,
so that the corpus stage judges the functions as it judges their package; a file that states a licence in its header
loses its functions, since these would not state it. Tests and documentation are left out.
"""

import argparse
import ast
import logging
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from infill import entry
from infill.corpus import licences
from infill.errors import InfillError
from infill.text import decode, split_lines
from tools.adapter_sources import DOCUMENTATION

PROGRAM: Final = "python -m tools.function_files"
log = logging.getLogger("function_files")

LINES: Final = range(4, 61)
"""Numbers of lines of a function that is written."""
MOST_CHARS: Final = 3_000
FUNCTIONS: Final = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    """Write the functions of each package that the output does not have yet."""
    parser = entry.Parser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for package in sorted(path for path in options.packages.iterdir() if path.is_dir()):
        place = options.output / package.name
        if not place.exists():
            partial = place.with_name(f"{place.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            count = write(package, partial)
            if count:
                partial.rename(place)
            else:  # its build files alone would be a package of the corpus
                shutil.rmtree(partial, ignore_errors=True)
            log.info("%s: %d functions", package.name, count)


def write(package: Path, output: Path) -> int:
    """Write the functions of `package`, and what states its licence, to the folder `output`; return their number."""
    count = 0
    for path in sorted(path for path in package.rglob("*") if path.is_file() and not path.is_symlink()):
        name = path.relative_to(package)
        if licences.is_licence(path.name) or licences.is_build_file(path.name):
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, output / name)
        elif path.suffix == ".py" and not any("test" in part or part in DOCUMENTATION for part in name.parts):
            for function, text in functions(path):
                target = output / name.with_suffix("") / f"{function}.py"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8", newline="")
                count += 1
    return count


def functions(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each function of a Python file, methods included, and the text of a file that holds it."""
    try:
        text = decode(path.read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in old code
            tree = ast.parse(text)
    except (InfillError, SyntaxError, ValueError, RecursionError):
        return
    if licences.of_source(text) is not None:
        return
    lines = split_lines(text)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in tree.body:
        for function in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(function, FUNCTIONS) and (written := _file(function, lines, imports)):
                owner = f"{node.name}_" if isinstance(node, ast.ClassDef) else ""
                yield f"{owner}{function.name}", written


def _file(
    function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str], imports: list[ast.Import | ast.ImportFrom]
) -> str:
    """Return the text of a file with one function; empty for one that is too short, too long or has no body."""
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    last = function.end_lineno or function.lineno
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    if last - first + 1 not in LINES or len(body) < 2:
        return ""
    used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    head = [text for node in imports if (text := _import(node, used))]
    source = textwrap.dedent("\n".join(line.rstrip() for line in lines[first - 1 : last]))
    text = "\n".join([*head, "", "", source, ""] if head else [source, ""])
    return text if len(text) <= MOST_CHARS else ""


def _import(node: ast.Import | ast.ImportFrom, used: set[str]) -> str:
    """Return the statement without the names that are not `used`; empty if none is."""
    names = [name for name in node.names if (name.asname or name.name.partition(".")[0]) in used]
    return ast.unparse(type(node)(**{**vars(node), "names": names})) if names else ""


if __name__ == "__main__":
    sys.exit(entry.run(PROGRAM, main))
