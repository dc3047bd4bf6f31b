"""A repository that holds anything at all costs itself: corpus, index and splitter continue with the others."""

import json
import tempfile
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import fim, storage, syntax
from infill.config import CorpusConfig
from infill.context.index import ProjectIndex
from tests.builders import run_stage
from tests.properties import examples
from tests.unit.corpus.folders import MIT

NAMES: Final = (
    *(".gitignore", ".git/info/exclude", ".git/HEAD", ".gitattributes", "lib/.gitignore"),
    *("LICENSE", "lib/LICENSE.txt", "NOTICE", "LICENSES/MIT.txt", "REUSE.toml", ".reuse/dep5", "code.py.license"),
    *("package.json", "pyproject.toml", "Cargo.toml", "setup.cfg", "setup.py", "pom.xml", "composer.json", "x.gemspec"),
    *("x.egg-info/PKG-INFO", "code.py", "lib/code.js", "code.rs", "code.c", "code.ts", "notes.ipynb", "data.json"),
)
DEEP: Final = 30_000
NESTED: Final[tuple[bytes, ...]] = (
    *(mark * DEEP for mark in (b"[", b"(", b"{", b"((", b"[{", b"/*", b"<a>", b"!", b"\\", b"-", b"if x:\n ")),
    b'{"a":' * DEEP,
    b"a." * DEEP,
    b"(" * DEEP + b")" * DEEP,
    b"license = " + b"[" * DEEP + b"]" * DEEP,
    b"# SPDX-License-Identifier: " + b"(" * DEEP + b"MIT" + b")" * DEEP,
    json.dumps({"cells": [{"cell_type": "code", "source": None}, 3, {"source": [1]}], "metadata": []}).encode(),
)
CONTENTS: Final = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(NESTED),
    st.sampled_from([MIT.encode(), b"", b"\0", b"\xff\xfeM\0I\0T\0", b"\xef\xbb\xbf*.py\n", "é".encode("latin-1")]),
    st.text(max_size=200).map(lambda text: text.encode("utf-16")),
)


@given(st.dictionaries(st.sampled_from(NAMES), CONTENTS, min_size=1, max_size=6))
@examples(40)
def test_a_strange_repository_costs_itself(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name) / "code"
        good = {"LICENSE": MIT.encode(), "good.py": b"def area(radius):\n    return 3.14 * radius**2\n"}
        for repo, contents in (("odd", files), *((f"good_{number}", good) for number in range(3))):
            for path, data in contents.items():
                file = top / repo / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data + (f"# {repo}\n".encode() if path == "good.py" else b""))
        run_stage("corpus", CorpusConfig(sources=(f"dir:{top}",)), str(Path(name) / "out"))
        kept = storage.read_table(str(Path(name) / "out" / "documents"), columns=["repo", "path"]).to_pylist()
        assert {row["repo"] for row in kept if row["path"] == "good.py"} == {"good_0", "good_1", "good_2"}
        index = ProjectIndex.from_repository(top)
        assert index.text("good_0/good.py").startswith("def area")


@pytest.mark.parametrize("language", syntax.LANGUAGES)
def test_deep_nesting_is_split_or_not_and_ends(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syntax, "SLOW_S", 0.1)
    for data in NESTED:
        text = data.decode()
        for hole in fim.syntactic_holes(text, language, fim.SplitConfig(), seed=0, epoch=0, document="deep", n=2):
            assert text[hole.start : hole.end].strip()


def test_a_text_that_takes_long_to_parse_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syntax, "SLOW_S", 0.05)
    text = "/*" * DEEP  # a minute and more
    assert not fim.is_sound(text, "kotlin")
    assert fim.syntactic_holes(text, "kotlin", fim.SplitConfig(), seed=0, epoch=0, document="deep", n=2) == []
