"""Hostile text costs time in proportion to its length: no file can hold a corpus up."""

import contextlib
from collections.abc import Callable
from typing import Any, Final

import pytest

from infill.corpus import imports, privacy, signals
from infill.corpus.licences import builds, headers, recognise, reuse
from infill.foreign import UnreadableError

CHARS: Final = 300_000
"""At this length, what takes quadratic time takes minutes; the time limit of a test ends it."""
READERS: Final[dict[str, tuple[Callable[[str], Any], tuple[str, ...]]]] = {
    "html": (
        lambda text: signals.measure(text, "html"),
        ("<", "<!--", "<script>", "<style ", "</script ", "<script></"),
    ),
    "signals": (lambda text: signals.measure(text, "c"), ("a", "0x1 ", "\\x41", "generated ")),
    "personal data": (lambda text: privacy.redact(text, "c"), ("a@", "a.", "http://a:b@", "key ", "1::")),
    "header": (headers.of_source, ("#\n", " \n", "SPDX-License-Identifier: ", "// licensed under the ")),
    "licence": (recognise.of_text, ("a", "a ", "a.", "licensed under the ", "(", "http://", "Copyright 2020 ", "\n")),
    "sentences about licences": (
        recognise.of_text,
        ("ban X is under the Apache License v2.0 with LLVM Exceptions only\n", "A. b! ", "Written by a. "),
    ),
    "imports": (
        lambda text: [imports.targets(text, language) for language in ("go", "python", "rust", "c", "ruby")],
        ("import (", "import a\n", "from a import b\n", "use a::{", '#include "a"\n', "require(", "from '"),
    ),
    "package.json": (lambda text: builds.stated("package.json", text), ("\n", " \n", "{", "license: [", '{"license":')),
    "pom.xml": (lambda text: builds.stated("pom.xml", text), ("<license>", "<name>", "<license><name>")),
    "mix.exs": (lambda text: builds.stated("mix.exs", text), ("licenses: ", "licenses: [")),
    "x.gemspec": (
        lambda text: builds.stated("x.gemspec", text),
        (".license = ", ".license = [", ".licenses=" + " " * 90),
    ),
    "x.nuspec": (lambda text: builds.stated("x.nuspec", text), ("<license", "<license ", "<license>")),
    "pyproject.toml": (lambda text: builds.stated("pyproject.toml", text), ("a.", "[", "a = [", "\n")),
    "REUSE.toml": (lambda text: reuse.of_reuse(text, "REUSE.toml"), ("a.", "[[a]]\n")),
    "dep5": (lambda text: reuse.of_dep5(text, "copyright"), ("Files: *\n", "License: GPL-2\n ", "\n", "a:")),
}
"""What reads files from others -> the parts of which hostile texts are made."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("reader", READERS)
def test_a_hostile_text_takes_linear_time(reader: str) -> None:
    read, parts = READERS[reader]
    for part in parts:
        with contextlib.suppress(UnreadableError):
            read(part * (CHARS // len(part)))
