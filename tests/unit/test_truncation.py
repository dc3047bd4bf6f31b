"""Syntax-aware truncation: where an answer ends, whatever the pieces in which it arrives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import syntax, truncation
from infill.truncation import BRACKET, ECHO, LINE, UNIT, Truncation

JAVA = ("class A {\n  void f() {\n    int x = ", "\n  }\n}\n", "java")
PYTHON = ("def f(x):\n    return ", "\n\ndef g():\n    pass\n", "python")
METHOD = ("class A:\n    def f(self):\n        pass\n\n    ", "\n\n    def last(self):\n        pass\n", "python")
TWO_METHODS = "def g(self):\n        a()\n        b()\n\n    def h(self):\n        c()"
CALL = ("total = add(first, ", ", third=wanted)\nprint(total)\n", "python")
LINES = ("def f(rows):\n    for row in rows:\n", "        print(row)\n        done(row)\n", "python")


def truncate(caret: tuple[str, str, str | None], answer: str, piece: int = 3) -> tuple[str, str | None]:
    """Return what is left of an answer that arrives in pieces of this many characters, and the rule that ended it."""
    ending = Truncation(*caret)
    text = "".join(ending.feed(answer[place : place + piece]) for place in range(0, len(answer), piece))
    return text + ending.flush(), ending.rule


@pytest.mark.parametrize(
    ("caret", "answer", "left", "rule"),
    [
        (JAVA, "1;\n    return;\n  }\n  void g() {}\n}", "1;\n    return;", BRACKET),
        (JAVA, "call(')');\n    // a bracket }\n    g();", "call(')');\n    // a bracket }\n    g();", None),
        (("f(", ")\n", "python"), "g(a))", "g(a)", BRACKET),
        (("f(", "\n", "python"), "g(a))", "g(a))", None),
        (("fn f() {\n    let x = vec![", "];\n}\n", "rust"), "1, 2];\n    g();\n}", "1, 2", BRACKET),
        (("f(() => {\n  ", "\n});\n", "javascript"), "g();\n});\nh();\n", "g();", BRACKET),
        (PYTHON, "x + 1\n\ndef h():\n    pass\n", "x + 1", UNIT),
        (METHOD, TWO_METHODS, TWO_METHODS.partition("\n\n")[0], UNIT),
        (METHOD, "def g(self):\n        def h():\n            a()\n        return h", None, None),
        (("func f() {\n\tx := 1\n", "\n", "go"), "\tg()\n}\n\nfunc h() {\n}\n", "\tg()\n}", UNIT),
        (("\n", "\n", "go"), "func f() {\n\tvar s T\n\tg(s)\n}", None, None),
        (CALL, "second, third=wanted)\nprint(total)\n", "second", LINE),
        (CALL, "second", "second", None),
        (LINES, "        total += row\n        print(row)\n        done(row)\n", "        total += row\n", ECHO),
        (LINES, "        total += row\n        print(row)", "        total += row\n", ECHO),
        (LINES, "        print(row)\n        other(row)\n", None, None),
        (("a\n", "b c d e f\n", None), "x\nb c d e f\n", "x\n", ECHO),
    ],
)  # fmt: skip
def test_an_answer_ends_where_its_syntax_does(
    caret: tuple[str, str, str | None], answer: str, left: str | None, rule: str | None
) -> None:
    for piece in (1, 3, 1_000):
        assert truncate(caret, answer, piece) == (answer if left is None else left, rule)


@pytest.mark.parametrize("language", syntax.LANGUAGES)
def test_the_brackets_of_each_grammar_are_known(language: str) -> None:
    caret = ("<?php f($a[" if language == "php" else "f(a[", "]);\n", language)
    assert truncate(caret, "1]);\n") == ("1", BRACKET)


TEXTS = st.text(alphabet=st.sampled_from(list("ab(){}[]\"'\n #:;=é\ud800")), max_size=60)


@given(TEXTS, TEXTS, TEXTS, st.integers(1, 9), st.sampled_from(["python", "java", "rust", None]))
def test_pieces_change_nothing_and_only_the_end_is_cut(
    prefix: str, suffix: str, answer: str, piece: int, language: str | None
) -> None:
    whole = truncate((prefix, suffix, language), answer, 1_000)
    assert truncate((prefix, suffix, language), answer, piece) == whole
    assert answer.startswith(whole[0])
    assert whole[1] in (*truncation.RULES, None)
    assert whole[1] or whole[0] == answer


def test_text_is_passed_on_as_soon_as_no_rule_can_remove_it() -> None:
    ending = Truncation(*JAVA)
    assert [ending.feed(piece) for piece in ("1", ";\n", "  ", "  g(", ");\n\n")] == ["1", ";", "", "\n    g(", ");"]
    assert ending.flush() == "\n\n"
    ending = Truncation(*CALL)
    assert [ending.feed(piece) for piece in ("sec", "ond, th", "ird", "; t")] == ["sec", "ond", "", ", third; t"]
    ending = Truncation(*LINES)
    assert [ending.feed(piece) for piece in ("        pri", "nt(r", "ow", "s)\n")] == [
        "",
        "",
        "",
        "        print(rows)",
    ]


def test_a_long_file_is_cut_at_repetitions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truncation, "_MAX_CHARS", 10)
    assert truncate(JAVA, "1;\n  }\n}") == ("1;\n  }\n}", None)
    assert truncate(CALL, "second, third=wanted)") == ("second", LINE)


def test_a_slow_grammar_does_not_stop_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> None:
        raise syntax.SlowParseError("60,000 bytes take too long to parse")

    monkeypatch.setattr(syntax, "parse", slow)
    assert truncate(JAVA, "1;\n  }\n}\n") == ("1;\n  }\n}\n", None)
