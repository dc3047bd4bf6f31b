import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tree_sitter import Node

from infill import syntax
from infill.errors import InputError
from tests.golden.splits import samples

SAMPLES = {language: text for _, language, text in samples()}
BROKEN = "def f(x):\n    return x + 1\n\ndef g(:\n    y = = 3\n\nclass A:\n    z = [1, 2, 3]\n"


def nodes(root: Node) -> Iterator[Node]:
    """All nodes of a small tree."""
    yield root
    for child in root.children:
        yield from nodes(child)


def test_each_language_has_a_sample_that_parses() -> None:
    assert set(SAMPLES) == set(syntax.LANGUAGES)
    for language, text in SAMPLES.items():
        assert syntax.ParsedSource(text, language).sound, language


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "python"),
        ("stubs/b.pyi", "python"),
        ("A.JAVA", "java"),
        ("build.gradle.kts", "kotlin"),
        ("a.jsx", "javascript"),
        ("a.mts", "typescript"),
        ("a.d.ts", "typescript"),
        ("a.tsx", "tsx"),
        ("main.go", "go"),
        ("lib.rs", "rust"),
        ("a.h", "c"),
        ("a.hpp", "cpp"),
        ("Program.cs", "c_sharp"),
        ("index.php", "php"),
        ("Rakefile", "ruby"),
        ("dir\\a.rb", "ruby"),
        ("README.md", None),
        ("py", None),
        (".py", "python"),
        ("", None),
    ],
)
def test_language_of_a_path(path: str, language: str | None) -> None:
    assert syntax.language_of(path) == language


def test_unknown_language_is_an_error_of_the_user() -> None:
    with pytest.raises(InputError, match="no grammar for 'cobol'; choose one of python, "):
        syntax.parse(b"", "cobol")


def test_parse_counts_bytes() -> None:
    assert syntax.parse("x = 'é'\n".encode(), "python").root_node.end_byte == 9


def test_each_kind_in_the_table_of_roles_is_in_a_grammar() -> None:
    """A grammar that renames a node must not take a unit away unseen."""
    grammars = [syntax.grammar(language) for language in syntax.LANGUAGES]
    for role, names in syntax.ROLES.items():
        missing = {name for name in names.split() if not any(g.id_for_node_kind(name, True) for g in grammars)}
        assert not missing, role


@pytest.mark.parametrize("language", syntax.LANGUAGES)
def test_each_language_has_each_role(language: str) -> None:
    """In its sample there are functions, blocks, arguments and statements."""
    source = syntax.ParsedSource(SAMPLES[language], language)
    offsets = [offset for offset, char in enumerate(source.text) if not char.isspace()]
    by_name = {role for offset in offsets for _, _, role in source.units(offset, None, 10_000)}
    assert by_name == {"function", "block", "arguments", "statement"}


@given(st.text(st.characters()))
def test_bytes_and_characters_translate(text: str) -> None:
    source = text.encode("utf-8", "surrogatepass")
    to_char, to_byte = syntax.translators(source)
    for offset in range(len(text) + 1):
        byte = len(text[:offset].encode("utf-8", "surrogatepass"))
        assert to_byte(offset) == byte
        assert to_char(byte) == offset


def units_by_walking(source: syntax.ParsedSource, offset: int) -> list[tuple[int, int, str]]:
    """What `units` has to find, by a look at each node."""
    text, roles = source.text, syntax.roles("python")
    entries = []
    for node in nodes(source.root):
        start, end = (len(text.encode()[:byte].decode()) for byte in node.byte_range)
        if node.parent is None or not start <= offset < end:
            continue
        in_block = node.parent.parent is None or roles.get(node.parent.kind_id) == "block"
        role = roles.get(node.kind_id, "statement" if in_block else "")
        entries += [(start, end, role)] if role else []
    return entries


def test_units_are_those_of_a_walk_of_the_tree() -> None:
    source = syntax.ParsedSource(SAMPLES["python"], "python")
    for offset, char in enumerate(source.text):
        if not char.isspace():
            walked = units_by_walking(source, offset)
            for longest in (1, 30, 100, 700):
                assert source.units(offset, None, longest) == [unit for unit in walked if unit[1] - unit[0] <= longest]
                assert source.units(offset, offset, longest) == [unit for unit in walked if unit[1] - offset <= longest]


def test_interior_has_no_brackets_and_no_space_around_it() -> None:
    text = "f( a, (b) ){ }"
    source = syntax.ParsedSource(text, "javascript")
    for whole, inside in (("( a, (b) )", "a, (b)"), ("{ }", ""), ("f( a", "f( a"), (" a, ", "a,")):
        start = text.index(whole)
        assert text[slice(*source.interior(start, start + len(whole)))] == inside


@pytest.mark.parametrize(
    ("text", "at", "token"),
    [
        ("x == yz\n", 2, "=="),
        ("x == yz\n", 6, "yz"),
        ("# two words\n", 4, "two"),
        ("# a-b\n", 3, "-"),
        ("s = 'éé b'\n", 6, "éé"),
        ("s = 'ab'\n", 6, "ab"),
        ("x = 1", 4, "1"),
        (f"s = '{'w' * 500}'\n", 200, "w" * 128),
    ],
)
def test_token(text: str, at: int, token: str) -> None:
    assert text[slice(*syntax.ParsedSource(text, "python").token(at))] == token


def test_token_in_text_between_tags() -> None:
    source = syntax.ParsedSource("x = <a>\n  word\n</a>;\n", "tsx")
    assert source.text[slice(*source.token(11))] == "word"


def iou(a: tuple[int, int], b: tuple[int, int]) -> float:
    return max(0, min(a[1], b[1]) - max(a[0], b[0])) / (max(a[1], b[1]) - min(a[0], b[0]))


RUNS = {
    language: [
        (first.byte_range, last.byte_range)
        for node in nodes(syntax.parse(text.encode(), language).root_node)
        for index, first in enumerate(node.named_children)
        for last in node.named_children[index:]
    ]
    for language in ("python", "rust", "ruby")
    for text in [SAMPLES[language].encode("ascii", "replace").decode()]
}
"""The first and the last node of each run of named siblings, in samples without characters of several bytes."""


@given(st.sampled_from(sorted(RUNS)), st.floats(0, 1), st.floats(0, 1), st.sampled_from([20, 200, 700]))
def test_snap_finds_the_run_of_siblings_with_the_highest_iou(
    language: str, start: float, size: float, longest: int
) -> None:
    text = SAMPLES[language].encode("ascii", "replace").decode()
    low = int(start * (len(text) - 1))
    high = min(len(text), low + 1 + int(size * longest))
    touched = [(first[0], last[1]) for first, last in RUNS[language] if first[1] > low and last[0] < high]
    best = max((iou(run, (low, high)) for run in touched if run[1] - run[0] <= longest), default=0)
    result = syntax.ParsedSource(text, language).snap(low, high, longest)
    assert (iou(result, (low, high)) if result else 0) == best
    assert result is None or result in touched


def ancestors(node: Node | None) -> Iterator[Node]:
    while node is not None:
        yield node
        node = node.parent


def is_bad(node: Node) -> bool:
    """Whether a leaf is an error, or in an ERROR node outside of the functions and statements in it."""
    roles = syntax.roles("python")
    for above in ancestors(node):
        if above.is_error or above.is_missing:
            return True
        if roles.get(above.kind_id) in {"function", "statement"}:
            return False
    return False


def test_sound_is_what_touches_no_error() -> None:
    source = syntax.ParsedSource(BROKEN, "python")
    bad = [node for node in nodes(source.root) if node.child_count == 0 and is_bad(node)]
    assert bad
    for start in range(len(BROKEN)):
        for end in range(start + 1, len(BROKEN)):
            if source.is_sound(start, end):
                assert not any(node.start_byte < end and node.end_byte > start for node in bad), BROKEN[start:end]


@pytest.mark.parametrize(
    ("part", "sound"),
    [
        ("return x + 1", True),
        ("def f(x):\n    return x + 1", True),
        ("x + 1\n\ndef", False),
        ("def g(:", False),
        ("3\n\nclass", False),
        ("y = = 3", False),
        ("[1, 2, 3]", True),
    ],
)
def test_parts_of_a_broken_file(part: str, sound: bool) -> None:
    assert syntax.ParsedSource(BROKEN, "python").is_sound(*span(BROKEN, part)) == sound


def test_file_with_an_error_is_sound_elsewhere() -> None:
    text = "def f(x):\n    return x\n\ny = = 3\n\nclass A:\n    z = 1\n"
    source = syntax.ParsedSource(text, "python")
    assert source.is_sound(*span(text, "def f(x):\n    return x"))
    assert source.is_sound(*span(text, "class A:\n    z = 1"))
    assert not source.is_sound(*span(text, "y = = 3"))
    assert not source.is_sound(0, len(text))


def span(text: str, part: str) -> tuple[int, int]:
    return text.index(part), text.index(part) + len(part)


def test_nothing_is_sound_when_the_whole_file_is_an_error() -> None:
    text = "((((" * 50
    assert not any(syntax.ParsedSource(text, "python").is_sound(start, start + 3) for start in range(100))


def test_deep_nesting_needs_no_deep_stack() -> None:
    depth = 20 * sys.getrecursionlimit()
    text = "[" * depth + "]" * depth
    source = syntax.ParsedSource(text, "python")
    assert source.sound
    assert len(source.units(depth, None, 700)) == 0
    assert source.snap(depth - 5, depth + 5, 700) == (depth - 5, depth + 5)
    assert not syntax.ParsedSource(text + ")", "python").is_sound(depth - 5, depth + 5)
