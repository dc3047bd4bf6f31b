"""Public benchmarks of code completion, read from files in the formats in which they are published.

| name | file | tests |
| --- | --- | --- |
| `humaneval-infilling` | JSON lines of any of the four sets (Bavarian et al. 2022, arXiv 2207.14255) | Python |
| `safim` | JSON lines or Parquet of any of the three (Gong et al. 2024, arXiv 2403.04814) | Python, C++, Java |
| `santacoder-fim` | JSON lines or Parquet (Allal et al. 2023, arXiv 2301.03988) | Python |
| `repobench` | Parquet or JSON lines of version 1.1 (Liu et al. 2023, arXiv 2306.03091) | none |
| `crosscodeeval` | JSON lines, with or without retrieved context (Ding et al. 2023, arXiv 2310.11248) | none |
| `execrepobench` | JSON lines (Yang et al. 2024, arXiv 2412.11990) | in the repositories, not in the file |

Nothing is downloaded. Tests run in `sandbox`, in another process than the completion.
"""

import ast
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from infill import storage, syntax
from infill.errors import InputError
from infill.evaluate import humaneval, sandbox, toolchains
from infill.prompt import ContextItem, FimRequest

Row = Mapping[str, Any]

PLACEHOLDER: Final = "{{completion}}"
"""The place of the hole in the programs of SAFIM that are executed; in its prompts it is a comment."""
MARKS: Final = ("/* TODO: Your code here */", "# TODO: Your code here")
"""That comment, in all languages but Python, and in Python."""
ENDINGS: Final = {"py": ".py", "python": ".py", "js": ".js", "java": ".java", "cpp": ".cpp", "csharp": ".cs"}
"""Ending of a file by the name of its language in SAFIM and SantaCoder's set."""


@dataclass(frozen=True, kw_only=True)
class Test:
    """The execution of a task: a program with the completion in its hole, and what the sandbox checks it with."""

    before: str
    after: str
    check: str
    language: str = ""
    """One of `toolchains.languages` for a program that the check starts; "" for Python that it imports."""

    def program(self, middle: str) -> str:
        """Return the sandbox's program for the completion `middle`."""
        return self.before + middle + self.after


@dataclass(frozen=True, kw_only=True)
class PublicTask:
    """A hole with its true middle."""

    task_id: str
    language: str
    """A language of `syntax`; "" if it has no grammar for the file."""
    request: FimRequest
    middle: str
    test: Test | None = None
    """None without tests that can run here."""


def read(name: str, file: str, limit: int = 0) -> list[PublicTask]:
    """Return the tasks in `file`, which has the format of the set `name`; with a `limit`, the first ones.

    Raises InputError for an unknown set, and when the file is missing, damaged or of another format.
    """
    if name not in READERS:
        raise InputError(f"unknown benchmark set {name!r}; choose one of {', '.join(READERS)}")
    tasks = []
    for number, row in enumerate(_rows(file), 1):
        try:
            tasks.append(READERS[name](row))
        except (KeyError, TypeError, ValueError, SyntaxError) as error:
            raise InputError(
                f"row {number} of {file} is not in the format of {name} ({type(error).__name__}: {error})"
            ) from error
        if len(tasks) == limit:
            break
    if not tasks:
        raise InputError(f"{file} has no tasks")
    return tasks


def run(tasks: Sequence[PublicTask], middles: Sequence[str], *, seconds: float = 10.0) -> list[sandbox.Outcome | None]:
    """Return the outcome of each completion in the sandbox; None for a task without tests.

    Raises InputError when this machine offers no isolation.
    """
    tested = [(task.test, middle) for task, middle in zip(tasks, middles, strict=True) if task.test is not None]
    programs = [test.program(middle) for test, middle in tested]
    outcomes = iter(
        sandbox.run_all(
            programs,
            checks=[test.check for test, _ in tested],
            tools=[toolchains.commands(test.language, text) for (test, _), text in zip(tested, programs, strict=True)],
            seconds=seconds,
        )
        if tested
        else []
    )
    return [None if task.test is None else next(outcomes) for task in tasks]


def _rows(file: str) -> Iterator[Row]:
    """Yield the rows of a Parquet file, or of JSON lines that may be compressed by gzip."""
    path = storage.local_path(file)
    if not path.is_file():
        raise InputError(f"{file} is missing; name a file of the benchmark, as it was published")
    if path.suffix == ".parquet":
        yield from storage.read_table(file).to_pylist()
        return
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            yield from (json.loads(line) for line in lines if line.strip())
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{file} is damaged ({error}); fetch it again") from error


def _task(task_id: str, path: str, prefix: str, middle: str, suffix: str, **more: Any) -> PublicTask:
    context = tuple(ContextItem(path=name, text=text) for name, text in more.pop("context", ()))
    request = FimRequest(path=path, prefix=prefix, suffix=suffix, context=context)
    return PublicTask(task_id=task_id, language=syntax.language_of(path) or "", request=request, middle=middle, **more)


def _humaneval(row: Row) -> PublicTask:
    task = humaneval.HumanEvalTask(**row)
    test = Test(before=task.prompt, after=task.suffix, check=task.check)
    return _task(task.task_id, humaneval.PATH, task.prompt, task.canonical_solution, task.suffix, test=test)


def _safim(row: Row) -> PublicTask:
    """Return a task of SAFIM: a program that reads standard input, or (in `api`) a piece of one without tests."""
    language = row["lang"]
    prefix, suffix = _parted(row["prompt"], MARKS[language == "python"])
    before, after = _parted(row["eval_prompt"], PLACEHOLDER)
    tests = row.get("unit_tests") or []
    cases = json.loads(tests) if isinstance(tests, str) else tests
    test = None
    if cases and language in toolchains.languages():
        test = Test(before=before, after=after, check=_of_streams(cases), language=language)
    path = "solution" + ENDINGS[language]
    return _task(str(row["task_id"]), path, prefix, row["ground_truth"], suffix, test=test)


def _parted(text: str, mark: str) -> tuple[str, str]:
    if text.count(mark) != 1:
        raise ValueError(f"a text must have {mark!r} once, not {text.count(mark)} times")
    before, _, after = text.partition(mark)
    return before, after


ANSWERS: Final = """
import decimal
def same(word, wanted):
    if word == wanted or (word.lower() == wanted.lower() and wanted.lower() in ("yes", "no", "true", "false")):
        return True
    try:
        return abs(decimal.Decimal(word) - decimal.Decimal(wanted)) <= decimal.Decimal("1e-12")
    except decimal.InvalidOperation:
        return False
def right(written, wanted):
    return len(written) == len(wanted) and all(map(same, written, wanted))
"""
"""When two outputs are the same, as in the execution engine of SAFIM's authors: by words, numbers by their value."""


def _of_streams(cases: Sequence[Row]) -> str:
    """Return the check that each input gives one of its outputs."""
    pairs = [(case["input"], [case["output"]] if isinstance(case["output"], str) else case["output"]) for case in cases]
    return (
        f"{ANSWERS}for given, wanted in {pairs!r}:\n"
        "    written = remote('output')(given)\n"
        "    assert any(right(written.split(), text.split()) for text in wanted), (given, written, wanted)\n"
    )


def _santacoder(row: Row) -> PublicTask:
    """Return a task of SantaCoder's set, a line of a solution of HumanEval in one of three languages."""
    prefix, middle, suffix = row["prompt"], row["canonical_solution"], row["suffix"]
    test = None
    if row["language"] == "py":
        name = _function_with_the_hole(prefix, middle, suffix)
        whole = prefix + middle + suffix
        test = Test(before=prefix, after=suffix, check=f"{whole}\n{name} = remote({name!r})\n{row['tests']}")
    return _task(str(row["name"]), "solution" + ENDINGS[row["language"]], prefix, middle, suffix, test=test)


def _function_with_the_hole(prefix: str, middle: str, suffix: str) -> str:
    line = prefix.count("\n") + 1
    for node in ast.parse(prefix + middle + suffix).body:
        if isinstance(node, ast.FunctionDef) and node.lineno <= line <= (node.end_lineno or node.lineno):
            return node.name
    raise ValueError("the hole is in no function")


def _repobench(row: Row) -> PublicTask:
    """Return a task of RepoBench 1.1: the next line of a file, with pieces of others that it may use."""
    prefix = f"{row['import_statement']}\n{row['cropped_code']}\n"
    context = [(piece["path"], piece["snippet"]) for piece in row["context"]]
    return _task(
        f"{row['repo_name']}/{row['file_path']}", row["file_path"], prefix, row["next_line"], "", context=context
    )


def _crosscodeeval(row: Row) -> PublicTask:
    """Return a task of CrossCodeEval: the rest of a statement that needs a name of another file."""
    about = row["metadata"]
    pieces = (row.get("crossfile_context") or {}).get("list") or []
    context = [
        (piece["filename"], piece["retrieved_chunk"]) for piece in reversed(pieces)
    ]  # the best comes first there
    suffix = row.get("right_context") or ""
    return _task(about["task_id"], about["file"], row["prompt"], row["groundtruth"], suffix, context=context)


def _execrepobench(row: Row) -> PublicTask:
    """Return a task of ExecRepoBench: a hole in a file of a repository, with the other files."""
    path = str(PurePosixPath(row["file_name"]))
    context = [(name, text) for name, text in reversed(row["context_code"])]  # the nearest comes first there
    return _task(
        f"{row['repo_name']}/{path}", path, row["prefix_code"], row["middle_code"], row["suffix_code"], context=context
    )


READERS: Final[dict[str, Callable[[Row], PublicTask]]] = {
    "humaneval-infilling": _humaneval,
    "safim": _safim,
    "santacoder-fim": _santacoder,
    "repobench": _repobench,
    "crosscodeeval": _crosscodeeval,
    "execrepobench": _execrepobench,
}
"""Reader of a row, by the set's name."""
