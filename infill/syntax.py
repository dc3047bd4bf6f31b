"""Grammars: which language a path is in, and the concrete syntax tree of a source text.

Offsets of tree-sitter are bytes of the UTF-8 source; `fim` turns them into characters.
"""

import importlib
from functools import cache
from pathlib import PurePosixPath
from typing import Final

from tree_sitter import Language, Parser, Tree

from infill.errors import InputError

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
"""The languages with a grammar."""

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
    "c_sharp": "cs",
    "php": "php phtml",
    "ruby": "rb rake gemspec ru",
}
_BY_EXTENSION: Final = {extension: name for name, group in _EXTENSIONS.items() for extension in group.split()}
_BY_NAME: Final = {"Rakefile": "ruby", "Gemfile": "ruby", "SConstruct": "python", "SConscript": "python"}


def language_of(path: str) -> str | None:
    """The language of a file by its name, or None where there is no grammar for it."""
    name = PurePosixPath(path.replace("\\", "/")).name
    return _BY_NAME.get(name) or _BY_EXTENSION.get(name.rpartition(".")[2].lower() if "." in name else "")


@cache
def grammar(language: str) -> Language:
    """The grammar of a language in LANGUAGES, loaded once. Raises InputError for any other name."""
    if language not in _GRAMMARS:
        raise InputError(f"there is no grammar for {language!r}; known are {', '.join(LANGUAGES)}")
    module, function = _GRAMMARS[language]
    return Language(getattr(importlib.import_module(module), function)())


def parser(language: str) -> Parser:
    """A new parser; one must not be shared by threads. Raises InputError where there is no grammar."""
    return Parser(grammar(language))


def parse(source: bytes, language: str) -> Tree:
    """The syntax tree of UTF-8 `source`, with ERROR nodes where it does not parse; offsets are bytes."""
    return parser(language).parse(source)
