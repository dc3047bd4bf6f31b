"""Texts and names in the code are plain English: no word of the old dialect, and functions begin with a verb.

`ruff` checks the imperative mood (D401) where it knows the verb; this test adds the words that it cannot know. It reads
docstrings, the texts under constants and fields, messages and comments, and the names of functions and variables; of
the tests the docstrings, the comments and the tests' names; and the pages of the documentation.
"""

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
CODE: Final = ("infill", "serving", "pipelines", "components", "benchmarks", "deploy", "examples", "tools")
WORDS: Final = {
    r"(?<!there )(?<!There )\bis no\b(?! longer)": "is not a, has no, unknown",
    r"\blies?\b(?! wholly)": "is",
    r"\blay\b": "was",
    r"\bwants\b": "must be, needs",
    r"\bmay we\b": "are we allowed to",
    r"\bso (many|much|long)\b(?! as)": "a number of, this many",
    r"\blately\b": "recently",
    r"\bbehind\b": "after",
    r"\bbeside\b": "next to, besides, in addition to",
    r"\b(is|are) to be\b": "must be",
    r"\bheeds?\b": "respects",
    r"\bobeys\b|\b(to|must|may) obey\b": "reads, follows",
    r"\bamiss\b": "wrong",
    r"\banew\b": "again",
    r"\bround (the|a|it|them|code)\b": "around",
    r"\btold\b": "reported, given",
    r"\btells? of\b": "reports, shows",
    r"\bgo(es)? on\b(?! into)": "continues",
    r"\bstands? (in|at|there|where|below|above)\b": "is",
    r"\b(is|are) passed over\b": "is skipped",
    r"'s affair\b": "is decided by",
    r"\bat hand\b": "available",
    r"\bquicker\b": "faster",
    r"\bfor ever\b": "forever",
    r"\bno number\b": "not a number, not finite",
}
"""Pattern of the old dialect, and what to write."""
STARTS: Final = frozenset(
    [
        "a",
        "all",
        "an",
        "any",
        "as",
        "at",
        "each",
        "every",
        "for",
        "from",
        "how",
        "if",
        "in",
        "most",
        "no",
        "nothing",
        "not",
        "of",
        "one",
        "only",
        "so",
        "some",
        "such",
        "that",
        "the",
        "their",
        "these",
        "this",
        "those",
        "to",
        "what",
        "when",
        "where",
        "whether",
        "which",
        "who",
        "whose",
        "why",
        "with",
    ]
)
"""Words that a function's docstring must not begin with: its first sentence is a command ("Return the ...")."""

QUESTIONS: Final = frozenset(["how", "what", "where", "which", "who", "whose", "why"])
"""Words that the text of a module, class, constant or field must not begin with: it is a noun phrase ("The ...")."""
NAMES: Final = frozenset(["found", "made", "tell", "tells", "told"])
"""Words that no name of a function, parameter or variable has: it names the thing (`licence`, `usage`)."""
THEIRS: Final = frozenset(["connection_made", "tell"])
"""Names of methods that Python gives them."""


def files() -> list[Path]:
    """Return the files that are held to plain English."""
    return sorted({path for folder in CODE for path in (ROOT / folder).rglob("*.py")})


def pages() -> list[Path]:
    """Return the pages of the documentation; the changelog and the log keep their words."""
    first = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")]
    return first + sorted(path for path in (ROOT / "docs").rglob("*.md") if path.name != "log.md")


@functools.lru_cache(maxsize=2)
def nodes(source: str) -> list[ast.AST]:
    """Return the nodes of a module, which is parsed once for all rules."""
    return list(ast.walk(ast.parse(source)))


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each string and comment of a module; a string without a space is a name, not a text."""
    for node in nodes(source):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    yield from comments(source)


def texts_of_tests(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring and comment of a module, and the words of the tests' names."""
    for node in nodes(source):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from ((text.lineno, str(text.value)) for statement in node.body if (text := _text(statement)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")
    yield from comments(source)


def texts_of_page(page: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each paragraph of a page in Markdown, blocks of code left out."""
    prose = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), page, flags=re.MULTILINE | re.DOTALL)
    for paragraph in re.finditer(r"(?:.+\n?)+", prose):
        yield prose.count("\n", 0, paragraph.start()) + 1, paragraph[0]


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each comment of a module."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


ANY_WORD: Final = re.compile("|".join(WORDS))


def odd_words(lines: Iterable[tuple[int, str]]) -> list[str]:
    """Return a sentence for each word of the old dialect in texts, names in backquotes left out."""
    plain = ((line, " ".join(re.sub(r"`[^`]*`", "``", text).split())) for line, text in lines)
    return [
        f"line {line}: {match[0]!r} in {text[max(0, match.start() - 30) : match.end() + 30]!r}; write: {better}"
        for line, text in plain
        if ANY_WORD.search(text)
        for pattern, better in WORDS.items()
        if (match := re.search(pattern, text))
    ]


def odd_starts(source: str) -> list[str]:
    """Return a sentence for each docstring of a function that does not begin with a verb."""
    sentences = []
    for node in nodes(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_property(node):
            first = (ast.get_docstring(node) or "Return").split()[0]
            if first.lower() in STARTS or not first[0].isalpha():
                sentences.append(f"line {node.lineno}: the docstring of {node.name} begins with {first!r}; use a verb")
    return sentences


def odd_headings(source: str) -> list[str]:
    """Return a sentence for each text of a module, class, constant or field that begins like a question."""
    heads: list[ast.Constant] = []
    for node in nodes(source):
        if isinstance(node, ast.Module | ast.ClassDef):
            heads += [text for statement in node.body if (text := _text(statement))]
    firsts = [(head.lineno, str(head.value).split()[0]) for head in heads]
    return [f"line {line}: a text begins with {first!r}" for line, first in firsts if first.lower() in QUESTIONS]


def _text(statement: ast.stmt) -> ast.Constant | None:
    """Return the text that is a statement: a docstring, or the text under a constant or a field."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def odd_names(source: str) -> list[str]:
    """Return a sentence for each name of a function, parameter or variable that has an odd word.

    The name of a test is a sentence, in which such words are verbs.
    """
    names = []
    for node in nodes(source):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append((node.lineno, node.id))
        elif isinstance(node, ast.arg):
            names.append((node.lineno, node.arg))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.append((node.lineno, node.name))
    return [
        f"line {line}: the name {name!r} does not say what it holds"
        for line, name in sorted(set(names))
        if name not in THEIRS and not name.startswith("test_") and NAMES.intersection(name.lower().split("_"))
    ]


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_texts_have_no_odd_words_and_docstrings_begin_with_a_verb(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert odd_words(texts(source)) + odd_starts(source) + odd_headings(source) + odd_names(source) == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_texts_and_names_of_tests_have_no_odd_words(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert odd_words(texts_of_tests(source)) + odd_names(source) == []


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_have_no_odd_words(path: Path) -> None:
    assert odd_words(texts_of_page(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("'x' is no setting", "is no"),
        ("port 0 lies not between 1 and 65535", "lies"),
        ("sft.train.steps wants int, not 16.5", "wants"),
        ("the record that serve obeys", "obeys"),
        ("a worker of so many seconds", "so many"),
        ("the tokens behind the caret", "behind"),
        ("run again to go on", "go on"),
    ],
)
def test_an_odd_word_is_reported(text: str, word: str) -> None:
    for source in (f"raise ValueError({text!r})", f'"""The {text}."""', f"x = 1  # {text}"):
        assert [repr(word) in sentence for sentence in odd_words(texts(source))] == [True]


def test_an_odd_word_in_a_test_or_a_page_is_reported() -> None:
    source = 'def test_it_is_told():\n    """Read it anew."""  # lately\n    assert f("behind the caret")\n'
    assert len(odd_words(texts_of_tests(source))) == 3
    page = "# Title\n\nThe file lies\nthere.\n\n```text\nwhat is told\n```\n\nIt is `anew`.\n"
    assert [sentence.split(":")[0] for sentence in odd_words(texts_of_page(page))] == ["line 3"]


@pytest.mark.parametrize("text", ["there is no file at /x", "the value `told` is given", "so long as it runs"])
def test_plain_words_are_not_reported(text: str) -> None:
    assert odd_words(texts(f"raise ValueError({text!r})")) == []


@pytest.mark.parametrize("docstring", ["The mean of values.", "Whether it runs.", "What is deployed.", "`x` and `y`."])
def test_a_docstring_without_a_verb_is_reported(docstring: str) -> None:
    assert len(odd_starts(f'def f():\n    """{docstring}"""\n')) == 1
    assert odd_starts(f'class C:\n    @property\n    def f(self):\n        """{docstring}"""\n') == []


@pytest.mark.parametrize("text", ["What is deployed.", "Where it runs.", "Why a file is removed."])
def test_a_heading_that_is_a_question_is_reported(text: str) -> None:
    for source in (f'"""{text}"""', f'class C:\n    """{text}"""', f'X: Final = 1\n"""{text}"""'):
        assert len(odd_headings(source)) == 1
    assert odd_headings(f'def f():\n    """{text}"""') == []


@pytest.mark.parametrize("source", ["found = 1", "def f(told): ...", "def _tell_typed(): ...", "for made in x: ..."])
def test_a_name_that_does_not_say_what_it_holds_is_reported(source: str) -> None:
    assert len(odd_names(source)) == 1


def test_a_word_inside_another_and_a_call_are_no_odd_names() -> None:
    assert odd_names("foundation = file.tell()\nremade = 1") == []
