"""Grammars: the language of a path, the syntax tree of a source text, and its syntactic units.

tree-sitter counts UTF-8 bytes, editors and the rest of Infill count characters; `ParsedSource` converts between them.
Nothing here recurses or walks a whole tree: a query about a position descends from the root to it in compiled code.
"""

import importlib
import logging
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import cache
from itertools import product
from operator import index
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from tree_sitter import Language, Node, Parser, Tree

from infill.errors import InputError

log: Final = logging.getLogger(__name__)
SLOW_S: Final = 2.0
SLOW_BYTES_PER_S: Final = 500_000
"""A parse may take `SLOW_S` seconds plus one second per this many bytes; the usual speed is 4 MB per second."""
_SMALL: Final = 4_096
_GRAMMARS: Final = {
    "python": ("tree_sitter_python", "language"),
    "java": ("tree_sitter_java", "language"),
    "kotlin": ("tree_sitter_kotlin", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "go": ("tree_sitter_go", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "c_sharp": ("tree_sitter_c_sharp", "language"),
    "php": ("tree_sitter_php", "language_php"),
    "ruby": ("tree_sitter_ruby", "language"),
}

LANGUAGES: Final = tuple(_GRAMMARS)
"""The languages with a grammar; `tsx` is TypeScript with JSX, whose grammar differs."""

_EXTENSIONS: Final = {
    "python": "py pyi pyw",
    "java": "java",
    "kotlin": "kt kts",
    "javascript": "js mjs cjs jsx",
    "typescript": "ts mts cts",
    "tsx": "tsx",
    "go": "go",
    "rust": "rs",
    "c": "c h",
    "cpp": "cc cpp cxx c++ hh hpp hxx h++ ipp inl tpp",
    "c_sharp": "cs csx",
    "php": "php phtml",
    "ruby": "rb rake gemspec ru",
}
_BY_EXTENSION: Final = {extension: name for name, group in _EXTENSIONS.items() for extension in group.split()}
_BY_NAME: Final = {"Rakefile": "ruby", "Gemfile": "ruby", "SConstruct": "python", "SConscript": "python"}

# Roles of node kinds in all grammars: a name has the same meaning in each. Statements are all kinds `..._statement`,
# and other nodes directly in a block or at the top of the file.
ROLES: Final = {
    "function": """
        function_definition method_declaration constructor_declaration
        compact_constructor_declaration function_declaration generator_function_declaration method_definition
        secondary_constructor anonymous_function function_expression arrow_function lambda_literal function_item
        closure_expression func_literal local_function_statement destructor_declaration operator_declaration
        lambda_expression method singleton_method""",
    "block": """
        block class_body interface_body enum_body enum_class_body constructor_body annotation_type_body switch_block
        function_body statement_block switch_body class_static_block statement_list field_declaration_list
        declaration_list compound_statement match_block enum_variant_list enumerator_list accessor_list
        enum_member_declaration_list enum_declaration_list colon_block body_statement block_body then do""",
    "arguments": """
        argument_list arguments value_arguments bracketed_argument_list subscript_argument_list type_arguments
        parameters formal_parameters function_value_parameters class_parameters parameter_list lambda_parameters
        method_parameters block_parameters closure_parameters type_parameters""",
}
"""Node kinds by role: functions, bodies of blocks, and bracketed arguments or parameters."""

_TOKEN_CHARS: Final = 64
"""A longer leaf of the tree (a comment, a string, data) is treated word by word."""
_MAX_DEPTH: Final = 1_000
"""Nodes deeper than this in a file with errors are not trusted: people do not write them, and each level costs time."""
_COMPLETE: Final = ("function", "statement")
_BRACKETS: Final = {"(": ")", "{": "}", "[": "]", "<": ">", "|": "|"}


def language_of(path: str) -> str | None:
    """Return the language of a file by its name, one of LANGUAGES; None if there is no grammar for it."""
    name = PurePosixPath(path.replace("\\", "/")).name
    return _BY_NAME.get(name) or _BY_EXTENSION.get(name.rpartition(".")[2].lower() if "." in name else "")


def extensions(language: str) -> list[str]:
    """Return the file extensions of a language, the most common first; empty for a language without a grammar."""
    return _EXTENSIONS.get(language, "").split()


@cache
def grammar(language: str) -> Language:
    """Return the grammar of a language in LANGUAGES, loaded at the first use.

    Raises InputError for any other name, and for a grammar that is not installed.
    """
    if language not in _GRAMMARS:
        raise InputError(f"no grammar for {language!r}; choose one of {', '.join(LANGUAGES)}")
    module, function = _GRAMMARS[language]
    try:
        return Language(getattr(importlib.import_module(module), function)())
    except ModuleNotFoundError as error:
        raise InputError(f"the grammar of {language} is not installed: pip install 'infill[grammars]'") from error


def parser(language: str) -> Parser:
    """Return a new parser, which threads must not share (it costs a microsecond). Raises InputError as `grammar`."""
    return Parser(grammar(language))


class SlowParseError(Exception):
    """A text that a grammar cannot parse in reasonable time."""


def parse(source: bytes, language: str) -> Tree:
    """Return the syntax tree of UTF-8 `source`, with ERROR nodes where it does not parse; its offsets are bytes.

    Raises SlowParseError when parsing takes too long (see SLOW_BYTES_PER_S): some grammars need quadratic time for
    nested comments that are never closed, Kotlin's needs minutes for 60 KB of them. The limit is in processor time, so
    a busy machine makes no difference.
    """
    if len(source) <= _SMALL:  # reading the clock costs up to a fifth of a parse
        return parser(language).parse(source)
    deadline = time.thread_time() + SLOW_S + len(source) / SLOW_BYTES_PER_S
    try:
        return parser(language).parse(
            lambda offset, _: source[offset:], progress_callback=lambda *_: time.thread_time() > deadline
        )
    except ValueError as error:
        if time.thread_time() > deadline:
            raise SlowParseError(f"{len(source):,} bytes of {language} take too long to parse") from error
        raise


@cache
def roles(language: str) -> dict[int, str]:
    """Return the role of node kinds by id: "function", "block", "arguments", "statement", or "" if never a unit.

    A node of any other kind is a statement if its parent is a block or the file.
    """
    known = grammar(language)
    table = {name: role for role, names in ROLES.items() for name in names.split()}
    roles_by_kind: dict[int, str] = {}
    for kind in range(known.node_kind_count):
        name = known.node_kind_for_id(kind) or ""
        if not known.node_kind_is_named(kind) or "comment" in name or name in {"php_tag", "text"}:
            roles_by_kind[kind] = ""
        elif name in table or name.endswith("_statement"):
            roles_by_kind[kind] = table.get(name, "statement")
    return roles_by_kind


class ParsedSource:
    """A text and its syntax tree; all offsets, arguments and results, count characters of the text.

    Threads must not share a Source, since all queries use one cursor. The cursor replaces `Node.first_child_for_byte`,
    which crashes the process on a leaf (tree-sitter 0.26.1).
    """

    def __init__(self, text: str, language: str) -> None:
        """Parse `text`, which may have lone surrogates. A text that takes too long is nowhere sound and has no units.

        Raises InputError for a language without a grammar.
        """
        source = text.encode("utf-8", "surrogatepass")
        self.text: Final = text
        try:
            tree = parse(source, language)
        except SlowParseError as error:
            log.warning("%s: no hole is cut in it", error)
            tree = None
        self._parsed: Final = tree is not None
        self.root: Final = (tree or parse(b"", language)).root_node
        self.sound: Final = self._parsed and not self.root.has_error
        self._roles: Final = roles(language)
        self._cursor: Final = self.root.walk()
        self._char, self._byte = translators(source) if len(source) != len(text) else (index, index)

    def units(self, offset: int, start: int | None, longest: int) -> list[tuple[int, int, str]]:
        """Return start, end and role of the units that contain the character at `offset`, outermost first.

        Only units of at most `longest` characters are included, counted from `start` unless it is None. Units with the
        roles "block" and "arguments" include their brackets: see `interior`.
        """
        byte, char, cursor, known = self._byte(offset), self._char, self._cursor, self._roles
        top, beyond = self.root, offset + longest + 1
        if beyond <= len(self.text):  # nodes that reach `beyond` are too long: the compiled search skips them
            top = self.root.descendant_for_byte_range(byte, self._byte(beyond)) or self.root
        child_role = "statement" if top == self.root or known.get(top.kind_id) == "block" else ""
        units: list[tuple[int, int, str]] = []
        cursor.reset(top)
        while cursor.goto_first_child_for_byte(byte) is not None and (node := cursor.node) is not None:
            role = known.get(node.kind_id, child_role)
            child_role = "statement" if role == "block" else ""
            if role:
                first, last = char(node.start_byte), char(node.end_byte)
                if first > offset:
                    break
                if last - (first if start is None else start) <= longest:
                    units.append((first, last, role))
        return units

    def stripped(self, start: int, end: int) -> tuple[int, int]:
        """Return the span without leading and trailing whitespace; some nodes include their line break."""
        text = self.text
        while start < end and text[end - 1].isspace():
            end -= 1
        while start < end and text[start].isspace():
            start += 1
        return start, end

    def interior(self, start: int, end: int) -> tuple[int, int]:
        """Return the span without its pair of brackets, if it has one, and then without surrounding whitespace."""
        if end - start >= 2 and _BRACKETS.get(self.text[start]) == self.text[end - 1]:
            start, end = start + 1, end - 1
        return self.stripped(start, end)

    def token(self, offset: int) -> tuple[int, int]:
        """Return start and end of the token at `offset`, which is not whitespace: a leaf of the tree.

        In a leaf of several words (a comment, the contents of a string) it is the word, or the single character.
        """
        byte = self._byte(offset)
        leaf = self.root.descendant_for_byte_range(byte, byte + 1)
        if leaf is not None and leaf.child_count == 0:
            start, end = self._char(leaf.start_byte), self._char(leaf.end_byte)
            if end - start <= _TOKEN_CHARS and self.text[start:end].split() == [self.text[start:end]]:
                return start, end
        return self._word(offset)

    def _word(self, offset: int) -> tuple[int, int]:
        """Return start and end of the word around `offset`, up to `_TOKEN_CHARS` each way, or of a single character."""
        text, start, end = self.text, offset, offset + 1
        if is_word(text[offset]):
            while start > 0 and offset - start < _TOKEN_CHARS and is_word(text[start - 1]):
                start -= 1
            while end < len(text) and end - offset < _TOKEN_CHARS and is_word(text[end]):
                end += 1
        return start, end

    def snap(self, start: int, end: int, longest: int) -> tuple[int, int] | None:
        """Return start and end of the run of named sibling nodes that has the highest IoU with the span.

        These are the aligned spans of AST-FIM (arXiv 2506.00204). Intersection and union are counted in bytes. None if
        every such run has more than `longest` characters.
        """
        low, high = self._byte(start), self._byte(end)
        best, overlap = None, 0.0
        node = self.root.named_descendant_for_byte_range(low, high) or self.root
        # The node that contains the span, then the nodes inside that it touches. The whole file has no siblings.
        pending = [self._named(node, low, high) if node == self.root else [node]]
        while pending:
            touched = pending.pop()
            # Dropping a sibling that is wholly in the span lowers the IoU, so only the outermost two may be dropped.
            for first, last in product(touched[:2], touched[-2:]):
                run = self._char(first.start_byte), self._char(last.end_byte)
                iou = _iou(first.start_byte, last.end_byte, low, high)
                if iou > overlap and run[1] - run[0] <= longest:
                    best, overlap = run, iou
            for node in touched[:1] + touched[1:][-1:]:
                inside = min(node.end_byte, high) - max(node.start_byte, low)
                # A run inside the node is better only if the node covers a larger share of the span than the best IoU.
                if node.end_byte - node.start_byte > inside > overlap * (high - low):
                    pending.append(self._named(node, low, high))
        return best

    def _named(self, parent: Node, low: int, high: int) -> list[Node]:
        return [child for child in self._children(parent, low, high) if child.is_named]

    def _children(self, parent: Node, low: int, high: int) -> list[Node]:
        """Return the children of `parent` that overlap [low, high), including empty ones in it."""
        cursor = self._cursor
        children: list[Node] = []
        cursor.reset(parent)
        more = cursor.goto_first_child_for_byte(low) is not None
        while more and (node := cursor.node) is not None and node.start_byte < high:
            children.append(node)
            more = cursor.goto_next_sibling()
        return children

    def is_sound(self, start: int, end: int) -> bool:
        """Return whether the parse of [start, end) can be trusted, even in a file with errors.

        It can if the lowest node that contains the span, or at least each child that the span touches, has no errors.
        Nodes inside an ERROR node are guesses, except functions and statements that were complete before the error.
        """
        if self.sound or not self._parsed:
            return self.sound
        low, high = self._byte(start), self._byte(end)
        node, is_guess = self.root, False
        for _ in range(_MAX_DEPTH):
            is_guess = node.is_error or (is_guess and self._roles.get(node.kind_id) not in _COMPLETE)
            if not node.has_error and not is_guess:
                return True
            touched = self._children(node, max(low - 1, 0), high + 1)
            holder = next((child for child in touched if child.start_byte <= low and child.end_byte >= high), None)
            if holder is None:
                return not is_guess and not any(child.has_error for child in touched)
            node = holder
        return False


def _iou(start: int, end: int, low: int, high: int) -> float:
    """Return the intersection over union of [start, end) and [low, high), which touch or overlap."""
    return (min(end, high) - max(start, low)) / (max(end, high) - min(start, low))


def translators(source: bytes) -> tuple[Callable[[int], int], Callable[[int], int]]:
    """Return functions from byte to character offsets of UTF-8 `source` and back.

    They count continuation bytes (0x80 to 0xBF, below -64 as signed bytes), which are rare in most code.
    """
    continuing = np.flatnonzero(np.frombuffer(source, np.int8) < -64)
    places = array("q", continuing.tobytes())
    characters = array(
        "q", (continuing - np.arange(len(continuing))).tobytes()
    )  # number of the character after the continued one
    return (lambda byte: byte - bisect_left(places, byte)), (lambda char: char + bisect_right(characters, char))


def is_word(char: str) -> bool:
    """Return whether a character is a letter, a digit or an underscore."""
    return char.isalnum() or char == "_"
