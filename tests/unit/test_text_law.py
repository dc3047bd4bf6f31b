"""Text has one home: `infill.text` decodes other people's files and splits lines, and nothing else does."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("infill", "serving", "pipelines", "components", "benchmarks")
HOMES = {"infill/text.py"}
OURS = {
    "infill/cluster/logs.py": "pods' logs, shown to people",
    "infill/context/files.py": "names of files, shown to people",
    "infill/context/identity.py": "texts of the index, UTF-8 already",
    "infill/context/index.py": "texts of the index, UTF-8 already",
    "infill/context/ranking.py": "lines of a text that is encoded just before",
    "infill/corpus/sources/listing.py": "names of files, shown to people",
    "infill/evaluate/sandbox.py": "output of programs that we started",
    "infill/editor/local_files.py": "what the index's reader gave, UTF-8 already",
    "infill/llama_cpp.py": "errors of a server that we started",
    "infill/report/report_html.py": "base64",
    "infill/train/history.py": "metrics that we wrote",
    "infill/experiments/needed_names.py": "identifiers of texts that are read already",
    "benchmarks/context/projects.py": "what the index's reader gave, UTF-8 already",
    "benchmarks/keystrokes/stub_engine.py": "names that the measuring client gave its requests",
    "pipelines/service.py": "pods' logs, shown to people",
    "infill/evaluate/jail.py": "outputs of generated programs, in a process without our packages",
    "serving/client.py": "what the index's reader gave, UTF-8 already",
    "serving/http.py": "HTTP headers",
    "serving/transformer/upstream.py": "events of our predictor",
}
"""Files that may call `bytes.decode`, and what they decode: nobody's files."""
LINES = {"splitlines", "iter_lines", "aiter_lines"}


@functools.cache
def faults_of(file: Path) -> tuple[tuple[str, int], ...]:
    """Return the faults of a file, which is parsed once for all tests."""
    return tuple(faults(ast.parse(file.read_bytes())))


def faults(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """What is forbidden, and in which line."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in LINES:
            yield "lines", node.lineno
        if name == "read_text" and isinstance(node.func, ast.Attribute) and len(node.args) == 0:
            yield "text mode", node.lineno
        if name == "open" and is_text(node):
            yield "text mode", node.lineno
        if name == "decode" and isinstance(node.func, ast.Attribute) and is_of_bytes(node):
            yield "decode", node.lineno


def is_text(call: ast.Call) -> bool:
    """Whether `open(...)` or `path.open(...)` reads text, where that can be seen."""
    arguments = call.args if isinstance(call.func, ast.Attribute) else call.args[1:]
    modes = [*arguments[:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
    if any(isinstance(mode, ast.Constant) and isinstance(mode.value, int) for mode in modes):
        return False  # os.open's flags
    return not any(set(text) & set("bwax") for text in texts) and not (modes and not texts)


def is_of_bytes(call: ast.Call) -> bool:
    """Whether `x.decode(...)` decodes bytes, not token ids."""
    return not call.args or isinstance(call.args[0], ast.Constant)


def sources() -> list[Path]:
    return sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


@pytest.mark.parametrize("kind", ["lines", "text mode", "decode"])
def test_text_is_decoded_and_split_in_one_place(kind: str) -> None:
    entries = []
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        if name in HOMES or (kind == "decode" and name in OURS):
            continue
        entries += [f"{name}:{line}" for fault, line in faults_of(path) if fault == kind]
    assert entries == [], "use decode, read_text and split_lines of infill.text"


def test_exceptions_are_needed() -> None:
    decoding = {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if any(fault == "decode" for fault, _ in faults_of(path))
    }
    assert set(OURS) <= decoding


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("a.splitlines(keepends=True)", ["lines"]),
        ("response.aiter_lines()", ["lines"]),
        ("Path(a).read_text(encoding='utf-8')", ["text mode"]),
        ("open(a)", ["text mode"]),
        ("open(a, 'r', encoding='utf-8')", ["text mode"]),
        ("a.open()", ["text mode"]),
        ("gzip.open(a, 'rt')", ["text mode"]),
        ("a.decode()", ["decode"]),
        ("a.decode('utf-8', 'replace')", ["decode"]),
        ("a.decode(errors='replace')", ["decode"]),
        ("read_text(a), encoder.decode(ids), open(a, 'rb'), a.open('wb'), os.open(a, flags), fs.open(path, mode)", []),
    ],
)
def test_law_sees_the_faults(code: str, expected: list[str]) -> None:
    assert [fault for fault, _ in faults(ast.parse(code))] == expected
