"""Signals are measured once: a changed threshold takes them from the corpus next to it. Notebooks become scripts."""

import itertools
import json
import logging
import re
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infill import storage
from infill.artifacts.corpus_tables import DOCUMENTS, REMOVED
from infill.config import CorpusConfig
from infill.corpus import known_signals, notebooks, signals
from infill.foreign import UnreadableError
from tests.builders import run_stage
from tests.unit.corpus.folders import MIT, write_files, write_repositories

LONG = "x = '" + "word " * 100 + "'\n"


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return storage.read_table(str(folder / name)).to_pylist()


def test_a_changed_threshold_measures_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_repositories(tmp_path / "code", 4)
    write_files(source / "repo_1", {"long.py": LONG})
    store, measured = tmp_path / "corpus", list[str]()
    honest = signals.measure

    def measure(text: str, language: str) -> signals.Signals:
        measured.append(language)
        return honest(text, language)

    monkeypatch.setattr(signals, "measure", measure)
    loose = CorpusConfig(sources=(f"dir:{source}",), max_mean_line_chars=1_000)
    strict = CorpusConfig(sources=(f"dir:{source}",), max_line_chars=200, max_mean_line_chars=1_000)
    run_stage("corpus", loose, str(store / "loose"))
    assert len(measured) == 13
    with caplog.at_level(logging.INFO):
        run_stage("corpus", strict, str(store / "strict"))
    assert len(measured) == 13
    assert f"signals of 13 of 13 texts are those of {store}/loose" in caplog.text
    assert "long.py" in {row["path"] for row in rows(store / "loose", "documents")}
    removed = {row["path"]: row["reason"] for row in rows(store / "strict", "removed")}
    assert removed["long.py"] == "long_line"
    run_stage("corpus", strict, str(tmp_path / "elsewhere" / "strict"))
    assert len(measured) == 26
    for name in ("documents", "removed", "signals"):
        files = [folder / name / "part-00000.parquet" for folder in (store / "strict", tmp_path / "elsewhere/strict")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_only_what_changed_is_measured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_repositories(tmp_path / "code", 4)
    run_stage("corpus", CorpusConfig(sources=(f"dir:{source}",)), str(tmp_path / "out" / "first"))
    write_files(source / "repo_2", {"new.py": "value = 1\n"})
    with caplog.at_level(logging.INFO):
        run_stage("corpus", CorpusConfig(sources=(f"dir:{source}",)), str(tmp_path / "out" / "second"))
    assert "signals of 12 of 13 texts" in caplog.text


def test_texts_are_known_though_a_new_repository_shifts_every_shard(tmp_path: Path) -> None:
    source, measured, honest = write_repositories(tmp_path / "code", 4), list[str](), signals.measure

    def build(name: str) -> set[bytes]:
        def measure(text: str, language: str) -> signals.Signals:
            measured.append(text)
            return honest(text, language)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(signals, "measure", measure)
            wanted = CorpusConfig(sources=(f"dir:{source}",), shard_bytes=1_500)
            run_stage("corpus", wanted, str(tmp_path / "out" / name))
        return {row["key"] for row in rows(tmp_path / "out" / name, "signals")}

    first = build("first")
    write_files(source, {"a/LICENSE": MIT, **{f"a/{number}.py": f"x = {number:0700}\n" for number in range(1, 4)}})
    write_files(source / "repo_2", {"package/a.py": f"y = {2:0900}\n"})
    second = build("second")
    assert len(list((tmp_path / "out" / "first" / "signals").iterdir())) > 3
    assert len(measured) == len(first | second) == len(first) + 4


_NAMES = st.tuples(st.sampled_from("abcd"), st.text("xyz", min_size=1, max_size=2))


@given(st.sets(_NAMES, min_size=1).map(sorted), st.sets(st.integers(1, 12)), st.lists(_NAMES, min_size=2).map(sorted))
def test_the_parts_of_a_range_are_all_that_have_a_name_in_it(
    names: list[tuple[str, str]], cuts: set[int], wanted: list[tuple[str, str]]
) -> None:
    bounds = [0, *sorted(cut for cut in cuts if cut < len(names)), len(names)]
    parts = [names[start:end] for start, end in itertools.pairwise(bounds)]
    with tempfile.TemporaryDirectory() as folder:
        for number, part in enumerate(parts):
            for table, schema, listed in (("documents", DOCUMENTS, part[::2]), ("removed", REMOVED, part[1::2])):
                written = pa.Table.from_pylist([{"repo": repo, "path": path} for repo, path in listed], schema)
                storage.write_table(f"{folder}/{table}/part-{number:05d}.parquet", written)
        chosen = known_signals.KnownSignals(folder).parts(wanted[0], wanted[-1])
    needed = {n for n, part in enumerate(parts) if any(wanted[0] <= name <= wanted[-1] for name in part)}
    numbers = {int(file[-13:-8]) for file in chosen}
    assert needed <= numbers
    repositories = {repo for n in needed for repo, _ in parts[n]} | {wanted[0][0], wanted[-1][0]}
    assert all({repo for repo, _ in parts[number]} & repositories for number in numbers)


def test_signals_that_cannot_be_read_are_measured_again(tmp_path: Path) -> None:
    source = write_repositories(tmp_path / "code", 4)
    config = CorpusConfig(sources=(f"dir:{source}",))
    run_stage("corpus", config, str(tmp_path / "out" / "first"))
    (tmp_path / "out/first/signals/part-00000.parquet").write_bytes(b"PAR1")
    run_stage("corpus", config, str(tmp_path / "out" / "second"))
    assert len(rows(tmp_path / "out/second", "signals")) == 12


@given(st.text(), st.sampled_from(["python", "html", "json"]))
def test_signals_are_read_as_they_were_written(text: str, language: str) -> None:
    measured = signals.measure(text, language)
    table = signals.table({b"k": measured})
    (row,) = table.to_pylist()
    assert signals.Signals(**{name: row[name] for name in signals.NAMES}) == measured


# Notebooks


def notebook(cells: list[Any], **metadata: Any) -> str:
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


def code(source: Any) -> dict[str, Any]:
    output = {"output_type": "stream", "text": ["SECRET OUTPUT"]}
    return {"cell_type": "code", "source": source, "outputs": [output], "execution_count": 3, "metadata": {}}


PYTHON = {"language_info": {"name": "python", "file_extension": ".py"}}


def test_a_notebook_becomes_a_script_without_outputs_and_magics() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "Some *text*."]},
        code(["%matplotlib inline\n", "import os\n", "!pip install x\n", "files = !ls\n", "print?\n", "a = 7 % 3\n"]),
        code("%%bash\necho no"),
        code("%%time\nb = a != 1\n"),
        {"cell_type": "raw", "source": "raw"},
        code(""),
    ]
    assert notebooks.script(notebook(cells, **PYTHON)) == (
        "# %% [markdown]\n# # Title\n#\n# Some *text*.\n\n# %%\nimport os\na = 7 % 3\n\n# %%\nb = a != 1\n",
        "python",
    )


@pytest.mark.parametrize(
    ("metadata", "language", "comment"),
    [
        ({"kernelspec": {"name": "python3"}}, "python", "#"),
        ({"kernelspec": {"name": "ir", "language": "R"}}, "r", "#"),
        ({"language_info": {"name": "julia", "file_extension": ".jl"}}, "julia", "#"),
        ({"language_info": {"name": "typescript", "file_extension": ".ts"}}, "typescript", "//"),
    ],
)
def test_the_language_is_the_kernel_s(metadata: Any, language: str, comment: str) -> None:
    assert notebooks.script(notebook([code("x = 1")], **metadata)) == (f"{comment} %%\nx = 1\n", language)


@given(st.lists(st.text(st.characters(codec=None)), max_size=4))
def test_a_script_is_text_whatever_a_notebook_holds(sources: list[str]) -> None:
    try:
        text, _ = notebooks.script(notebook([code(source) for source in sources], **PYTHON))
    except UnreadableError:
        return
    assert "\0" not in text
    assert signals.measure(text, "python").characters == len(text)


@pytest.mark.parametrize(("source", "said"), [("x = '\\ud83d'", None), ("x = '\\u0000'", "a zero byte")])
def test_a_notebook_with_text_that_no_file_can_hold(source: str, said: str | None) -> None:
    text = notebook([code("SOURCE")], **PYTHON).replace("SOURCE", source)
    if said is None:
        assert notebooks.script(text)[0] == "# %%\nx = '\N{REPLACEMENT CHARACTER}'\n"
    else:
        with pytest.raises(UnreadableError, match=said):
            notebooks.script(text)


PIECES = ("<", "<!--", "-->", ">", "<script", "<style>", "</script>", "</STYLE >", "a", "\n", "<scripty>", "<Script x>")


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_what_a_browser_shows_is_what_one_expression_leaves(text: str) -> None:
    hidden = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
    assert signals._visible(text) == hidden.sub("", text)


def test_a_notebook_of_version_3_has_worksheets() -> None:
    cells = [{"cell_type": "code", "input": ["x = 1"], "language": "python", "outputs": []}]
    text = json.dumps({"worksheets": [{"cells": cells}], "metadata": {"kernelspec": {"name": "python2"}}})
    assert notebooks.script(text) == ("# %%\nx = 1\n", "python")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "{" * 100_000,
        '{"cells": 3}',
        '{"cells": [{}], "metadata": {}}',
        '{"cells": [], "metadata": null}',
        notebook([code("x = 1")]),
        notebook([code("x = 1")], kernelspec={"name": "brainfuck"}),
        notebook([code("%%bash\nls")], **PYTHON),
        notebook([{"cell_type": "markdown", "source": "prose alone"}], **PYTHON),
    ],
)
def test_what_is_not_a_script_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(UnreadableError):
        notebooks.script(text)


def test_notebooks_are_documents_of_the_corpus(tmp_path: Path) -> None:
    source = write_repositories(tmp_path / "code", 4)
    bad, good = "no json", notebook([code("def area(width, height):\n    return width * height\n")], **PYTHON)
    write_files(source / "repo_1", {"my notes.ipynb": good, "bad.ipynb": bad})
    run_stage("corpus", CorpusConfig(sources=(f"dir:{source}",)), str(tmp_path / "out"))
    documents = {row["path"]: row for row in rows(tmp_path / "out", "documents")}
    assert documents["my notes.ipynb"]["language"] == "python"
    assert documents["my notes.ipynb"]["content"].startswith("# %%\ndef area")
    removed = {row["path"]: row["reason"] for row in rows(tmp_path / "out", "removed")}
    assert removed["bad.ipynb"] == "notebook"
