"""The reading order: what imports name, in each language, and that a file comes after what it imports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill.corpus import imports, reading_order
from infill.corpus.reading_order import Importer
from tests.properties import examples


@pytest.mark.parametrize(
    ("language", "text", "targets"),
    [
        ("python", "import os, a.b as x\nfrom a.c import d, e as f\n", ["a/b", "a/c/d", "a/c/e", "os"]),
        ("python", "from . import a\nfrom .b import c\nfrom ..d.e import (\n    f,\n)\n", ["../d/e", "./a", "./b/c"]),
        ("python", "from a import *\n", ["a"]),
        ("python", "def f():\n    from a import b\n", ["a/b"]),
        ("javascript", "import x from './a/b.js'\nconst y = require('../c')\n", ["../c", "./a/b.js"]),
        ("typescript", 'import type { X } from "@/a/b";\nexport * from "./c";\n', ["./c", "@/a/b"]),
        ("go", 'package a\n\nimport "fmt"\n\nimport (\n\t"os"\n\tx "acme.dev/a/b"\n)\n', ["acme.dev/a/b", "fmt", "os"]),
        ("rust", "use crate::a::{b, c as d};\npub use super::e::F;\nuse self::g;\n", ["./e/F", "a/b", "a/c", "g"]),
        ("c", '#include <stdio.h>\n# include "a/b.h"\n', ["a/b.h", "stdio.h"]),
        (
            "java",
            "package com.acme;\n\nimport com.acme.a.B;\nimport static com.acme.C.*;\n",
            ["com/acme/C", "com/acme/a/B"],
        ),
        ("php", "<?php\nuse App\\Models\\User;\n", ["App/Models/User"]),
        ("ruby", "require 'set'\nrequire_relative 'a/b'\n", ["./a/b", "set"]),
        ("markdown", "import a.b\n", []),
    ],
)
def test_imports_name_paths(language: str, text: str, targets: list[str]) -> None:
    assert imports.targets(text, language) == targets


@pytest.mark.parametrize(
    ("language", "files"),
    [
        ("python", {"pkg/z.py": "", "pkg/sub/__init__.py": "from pkg import z\n", "pkg/a.py": "import pkg.sub\n"}),
        ("python", {"src/pkg/z.py": "", "src/pkg/m.py": "from .z import Z\n", "src/pkg/a.py": "from pkg.m import M\n"}),
        (
            "typescript",
            {"lib/z.ts": "", "lib/index.ts": "export * from './z'\n", "app/a.ts": "import x from '../lib'\n"},
        ),
        ("go", {"z/z.go": "package z\n", "m/m.go": 'import "acme.dev/x/z"\n', "a.go": 'import (\n"acme.dev/x/m"\n)\n'}),
        ("rust", {"src/z.rs": "", "src/m/mod.rs": "use crate::z::Z;\n", "src/a.rs": "use crate::m::{M};\n"}),
        ("cpp", {"include/x/z.hpp": "", "include/x/m.hpp": '#include "z.hpp"\n', "a/a.cpp": "#include <x/m.hpp>\n"}),
        (
            "java",
            {"src/com/z/Z.java": "", "src/com/m/M.java": "import com.z.Z;\n", "src/com/A.java": "import com.m.*;\n"},
        ),
    ],
)
def test_a_file_comes_after_what_it_imports(language: str, files: dict[str, str]) -> None:
    importers = [Importer(path, language, imports.targets(files[path], language)) for path in sorted(files)]
    ordered = sorted(importers, key=lambda file: reading_order.places(importers)[importers.index(file)])
    assert [file.path for file in ordered] == list(files)


def test_the_nearest_of_several_files_is_meant() -> None:
    paths = {"a/main.py": ["util/x"], "b/util/x.py": [], "a/util/x.py": [], "c.py": ["json"], "deep/down/json.py": []}
    files = [Importer(path, "python", paths[path]) for path in sorted(paths)]
    ordered = [files[place].path for place in sorted(range(5), key=reading_order.places(files).__getitem__)]
    assert ordered == ["a/util/x.py", "a/main.py", "b/util/x.py", "c.py", "deep/down/json.py"]


@pytest.mark.timeout(60)
def test_many_files_of_one_name_take_linear_time() -> None:
    """At this number, what takes quadratic time takes minutes; the time limit of the test ends it."""
    wanted = ["index", "src/index", "a/src/index", "x/a/src/index", "src", "a/src", "./index"]
    files = [Importer(f"p{number:05d}/a/src/index.js", "javascript", wanted) for number in range(10_000)]
    assert sorted(reading_order.places(files)) == list(range(10_000))


edges = st.integers(2, 12).flatmap(
    lambda count: st.lists(st.sets(st.integers(0, count - 1), max_size=4), min_size=count, max_size=count)
)


@examples(80)
@given(edges)
def test_the_order_is_topological_but_for_circles_which_are_in_order_of_path(imported: list[set[int]]) -> None:
    files = [
        Importer(f"pkg/m{number:02d}.py", "python", sorted(f"./m{other:02d}" for other in others))
        for number, others in enumerate(imported)
    ]
    places = reading_order.places(files)
    assert sorted(places) == list(range(len(files)))
    reach = [{number} for number in range(len(files))]
    for _ in files:
        reach = [known.union(*(reach[other] for other in imported[number])) for number, known in enumerate(reach)]
    for number, others in enumerate(reach):
        for other in others - {number}:
            if number in reach[other]:  # a circle
                assert (places[number] < places[other]) == (number < other)
            else:
                assert places[other] < places[number]
