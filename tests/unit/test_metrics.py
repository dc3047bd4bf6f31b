import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import metrics

code = st.text(alphabet="ab (){}:\n\tx1=", max_size=40)


@given(code, code, code, code, st.booleans())
def test_every_metric_is_between_zero_and_one(
    output: str, middle: str, prefix: str, suffix: str, finished: bool
) -> None:
    scores = metrics.score(output, middle, prefix=prefix, suffix=suffix, language="python", finished=finished)
    assert tuple(scores) == metrics.METRICS
    assert all(0 <= value <= 1 for value in scores.values())
    assert all(scores[name] in (0, 1) for name in metrics.SHARES)


@given(code, code, code)
def test_the_true_middle_is_perfect_and_stops_in_time(middle: str, prefix: str, suffix: str) -> None:
    scores = metrics.score(middle, middle, prefix=prefix, suffix=suffix, language="python", finished=True)
    perfect = ["exact_match", "edit_similarity", "chrf", "kk", "identifier_f1", "novel_identifier_recall", "parses"]
    assert {scores[name] for name in perfect} == {1}
    flawed = ["over_generation", "under_generation", "suffix_echo", "stub", "verbose"]
    assert {scores[name] for name in flawed} == {0}


@given(code, code)
def test_over_and_under_generation_mirror_each_other(output: str, middle: str) -> None:
    assert metrics.over_generation(output, middle) == metrics.under_generation(middle, output)
    assert metrics.over_generation(output, middle) + metrics.under_generation(output, middle) <= 1


@given(code, code)
def test_kk_does_not_pay_for_repetition_or_order(output: str, middle: str) -> None:
    value = metrics.kk(output, middle)
    reordered = "\n".join(reversed(output.split("\n")))
    assert metrics.kk(reordered, middle) == value
    assert metrics.kk(middle + "\n" + output, middle) == (1.0 if middle.strip() or not output.strip() else 0.0)


def test_kk_counts_each_line_of_the_middle_once() -> None:
    middle = "a = 1\n\n    b = 2\n    b = 2\nc = 3"
    assert metrics.kk("b = 2", middle) == 1 / 4
    assert metrics.kk("b = 2\nb = 2\nb = 2", middle) == 2 / 4
    assert metrics.kk("c = 3\nunrelated\n\n\n  a = 1  ", middle) == 2 / 4
    assert metrics.kk("anything", "\n  \n") == 0
    assert metrics.kk(" \n", "\n") == 1


def test_chrf_forgives_what_edit_similarity_punishes() -> None:
    middle = "return self.size * scale"
    output = middle + "\n\ndef unneeded(self) -> None:\n    for item in self.items:\n        print(item)\n"
    assert metrics.edit_similarity(output, middle) < 0.3
    assert metrics.chrf(output, middle) > 0.5
    assert metrics.over_generation(output, middle) == 1


def test_edit_similarity_is_levenshtein_over_the_longer_text() -> None:
    assert metrics.edit_similarity("kitten", "sitting") == 1 - 3 / 7


def test_relaxed_exact_match_completes_the_partial_lines() -> None:
    prefix, suffix = "def f(x):\n    return x +", "\n\nf(1)\n"
    assert metrics.relaxed_exact_match(" 1", " 1", prefix, suffix) == 1
    assert metrics.relaxed_exact_match(" 1\n", " 1", prefix, suffix) == 1
    assert metrics.relaxed_exact_match(" 1\n    print(x)", " 1", prefix, suffix) == 0.5
    assert metrics.relaxed_exact_match(" 2", " 1", prefix, suffix) == 0
    assert metrics.relaxed_exact_match(" 1;", " 1", prefix, suffix) == 0
    assert metrics.relaxed_exact_match(" 1;", " 1", prefix, suffix, alphanumeric=True) == 1


def test_relaxed_exact_match_accepts_a_beginning_of_what_follows() -> None:
    assert metrics.relaxed_exact_match("fo", "foo", "", "\n") == 0.5
    assert metrics.relaxed_exact_match("", "foo", "", "\n") == 0


def test_suffix_echo_needs_a_telling_line_that_the_middle_lacks() -> None:
    suffix = "\n    return total\n"
    assert metrics.suffix_echo("total += x\n    return total", "total += x", suffix) == 1
    assert metrics.suffix_echo("total += x", "total += x", suffix) == 0
    assert metrics.suffix_echo("if x:\n  return total", "if x:\n  return total", suffix) == 0
    assert metrics.suffix_echo("f(x)", "f(x", ")\n") == 0
    assert metrics.suffix_echo("a, b): pass", "a, b", "): pass\n") == 1
    assert metrics.suffix_echo("anything", "x", "") == 0
    closing = "\n}\n\nfunc Next() {\n"
    assert metrics.suffix_echo("return 1\n}\n\nfunc Next() {", "return 1", closing) == 1
    assert metrics.suffix_echo("if a {\n\treturn 1\n}", "return 1", closing) == 0


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("return area(width", 1),  # a beginning of the true middle
        ("return size(width, ", 1),
        ("return [width", 1),
        ("", 1),
        ("return area(width, height)", 0),
        ("return width * height", 0),
        ("return area(width, height)\n    for side in (", 0),  # it continues for too long, which is another fault
        ("return width ** 2)", 0),  # it is wrong, but not unfinished
    ],
)
def test_unfinished_code_ends_before_its_code_does(output: str, expected: float) -> None:
    prefix = "def f(width, height):\n    "
    assert metrics.unfinished(output, "return area(width, height)", prefix, "\n", "python") == expected


@pytest.mark.parametrize("text", ["return {};", "return nullptr;", 'throw std::logic_error("Not implemented");'])
def test_placeholders_of_other_languages_are_stubs(text: str) -> None:
    assert metrics.is_stub(text)
    assert not metrics.is_stub('throw std::out_of_range("index is " + text);')


@pytest.mark.parametrize("mark", ["\f", "\v", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_only_line_ends_end_a_line(mark: str) -> None:
    middle = f"text = 'a{mark}b'\n"
    assert metrics.kk(f"text = 'a\n{middle}", middle) == 1.0
    assert metrics.kk("b'\n", middle) == 0.0
    assert metrics.suffix_echo(f"x = 1\nb{mark}c", "x = 1", f"c{mark}b\n") == 0.0


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_ends_a_line(end: str) -> None:
    middle, output = f"a = 1{end}b = 2{end}", f"b = 2{end}c = 3{end}"
    assert metrics.kk(output, middle) == 0.5
    assert metrics.relaxed_exact_match("= 1", "= 1", f"x{end}a ", f"{end}y") == 1.0
    assert metrics.suffix_echo(f"a = 1{end}next()", "a = 1", f"{end}next(){end}") == 1.0


def test_identifiers_count_once_and_without_what_stands_around_them() -> None:
    assert metrics.identifier_f1("total = total + price", "total = price * rate") == 2 * 2 / (2 + 3)
    assert metrics.identifier_f1("1 + 2", "(3)") == 1
    assert metrics.identifier_f1("", "x") == 0
    around = ("def f(price):\n    ", "\n")
    assert metrics.novel_identifier_recall("return price * tax", "return price * tax(rate)", *around) == 2 / 3
    assert metrics.novel_identifier_recall("", "price", *around) == 1


@pytest.mark.parametrize("number", ["0xFF", "1e5", "10L", "3.5f", "2j"])
def test_the_end_of_a_number_is_not_an_identifier(number: str) -> None:
    assert metrics.identifier_f1(f"x = {number}", "x = 1") == 1


@pytest.mark.parametrize(
    ("prefix", "middle", "suffix", "right", "wrong"),
    [
        ("self.size\nsel", "f.size", "\n", "f.size", "x"),  # no part of `self` is a name of its own
        ("x = compu", "te", "(1)\n", "te", "ting"),
        ("x = ", "compu", "te(1)\n", "compu", "impu"),
        ("return", " total", "\n", " total", " sum"),  # `return` itself is not in the hole
    ],
)
def test_a_name_across_the_holes_boundary_is_one_name(
    prefix: str, middle: str, suffix: str, right: str, wrong: str
) -> None:
    assert metrics.novel_identifier_recall(right, middle, prefix, suffix) == 1
    expected = 1.0 if "self" in prefix else 0.0
    assert metrics.novel_identifier_recall(wrong, middle, prefix, suffix) == expected


@given(st.text("ab_1 .\n", max_size=12), st.text("ab_1 .\n", max_size=12), st.text("ab_1 .\n", max_size=6))
def test_the_true_middle_recalls_all_names_and_scores_stay_in_bounds(output: str, middle: str, around: str) -> None:
    assert metrics.novel_identifier_recall(middle, middle, around, around) == 1
    assert 0 <= metrics.novel_identifier_recall(output, middle, around, around) <= 1
    assert metrics.identifier_f1(output, middle) == metrics.identifier_f1(middle, output)
    assert metrics.verbose(middle, middle) == metrics.stub(middle, middle) == 0


@pytest.mark.parametrize(("output", "language", "expected"), [("1", "python", 1), ("(", "python", 0), ("(", "text", 1)])
def test_a_completion_parses_in_its_place(output: str, language: str, expected: float) -> None:
    assert metrics.parses(output, "2", "x = ", "\n", language) == expected
    assert metrics.parses(output, "2", "x = )", "\n", language) == 1, "the file did not parse before"
