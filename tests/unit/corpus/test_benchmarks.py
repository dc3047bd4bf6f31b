"""Decontamination: passages of tasks are found, what many texts have in common is not."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from infill import storage
from infill.corpus import benchmarks
from infill.corpus.benchmarks import Benchmarks
from infill.errors import InputError
from tests.unit.corpus.folders import MIT, write_files

DOCSTRING = (
    '"""Return the numbers of the longest run in which every number exceeds the sum of all numbers before it."""'
)
SOLUTION = """
    best, current, total = [], [], 0
    for number in numbers:
        if number <= total:
            current, total = [], 0
        current.append(number)
        total += number
        best = max(best, current, key=len)
    return best
"""
TASK = f"def longest_growing_run(numbers):\n    {DOCSTRING}\n{SOLUTION}"
HEADER = "".join(f"# {line}\n" for line in MIT.split("\n"))
IMPORTS = "import argparse\nimport json\nimport logging\nimport os\nimport random\nimport re\nimport sys\nimport time\n"


def prepared(folder: Path, *places: Path) -> Benchmarks:
    benchmarks.prepare([str(place) for place in places], str(folder / "prepared.parquet"))
    return benchmarks.load(str(folder / "prepared.parquet"))


def judged(known: Benchmarks, documents: Sequence[str], repositories: Sequence[int] | None = None) -> Mapping[int, Any]:
    overlaps = {place: runs for place, text in enumerate(documents) if (runs := known.overlap(text.encode()))}
    return benchmarks.judge(overlaps, np.array(repositories or range(len(documents))), known)


def rows_of(kind: str) -> dict[str, bytes]:
    row = {"task_id": "growing/7", "prompt": TASK[:90], "canonical_solution": TASK[90:300], "suffix": TASK[300:]}
    hole = {"id": "growing/7", "prefix": TASK[:250], "middle": TASK[250:260], "suffix": TASK[260:], "split": "test"}
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.Table.from_pylist([hole]), sink)
    return {
        "lines": {"tasks.jsonl": json.dumps(row).encode() + b"\n"},
        "compressed lines": {"tasks.jsonl.gz": gzip.compress(json.dumps(row).encode())},
        "a list": {"tasks.json": json.dumps([{"id": "growing/7", "nested": [{"text": TASK}]}]).encode()},
        "parquet": {"tasks.parquet": sink.getvalue().to_pybytes()},
        "source": {"deep/growing/7.py": f"{HEADER}\n{IMPORTS}\n{TASK}".encode(), "LICENSE": MIT.encode()},
    }[kind]


@pytest.mark.parametrize("kind", ["lines", "compressed lines", "a list", "parquet", "source"])
def test_each_kind_of_benchmark_is_read_and_the_task_and_passage_are_reported(tmp_path: Path, kind: str) -> None:
    listed = prepared(tmp_path, write_files(tmp_path / "a b", rows_of(kind)))
    document = f"import os\n\n\nclass A:\n    pass\n\n\n{TASK}\n"
    overlap = judged(listed, [document, "x = 1\n" * 40])[0]
    assert "7" in listed.tasks[overlap.task]
    assert listed.passage(document.encode(), overlap.runs).startswith('def longest_growing_run(numbers): """Return')


@pytest.mark.parametrize(
    ("document", "is_hit"),
    [
        (f"# {DOCSTRING}\n", True),
        (f"def other(numbers):\n{SOLUTION}", True),
        (SOLUTION.replace("    ", "\t").replace("[]", "[ ]"), True),
        (SOLUTION.replace("current", "cur").replace("total", "tot").replace("best", "b"), False),
        (HEADER + "x = 1\n", False),
        (IMPORTS + "x = 1\n", False),
        (MIT, False),
        ("return the numbers", False),
        ("", False),
    ],
)
def test_a_passage_is_a_hit_and_what_texts_have_in_common_is_none(tmp_path: Path, document: str, is_hit: bool) -> None:
    folder = write_files(tmp_path / "tasks", {"one.py": HEADER + IMPORTS + TASK, "LICENSE": MIT})
    assert bool(judged(prepared(tmp_path, folder), [document])) == is_hit


LICENCES = {
    "line comments": HEADER,
    "a block": f"/*\n{MIT}*/\n",
    "a starred block": "/*\n" + "".join(f" * {line}\n" for line in MIT.split("\n")) + " */\n",
    "after the interpreter": f"#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n\n{HEADER}",
    "a docstring": f'"""\n{MIT}"""\n',
    "slashes": HEADER.replace("#", "//"),
}


@pytest.mark.parametrize("header", LICENCES.values(), ids=LICENCES)
def test_a_licence_at_the_head_of_a_task_is_not_a_part_of_it(tmp_path: Path, header: str) -> None:
    listed = prepared(tmp_path, write_files(tmp_path / "tasks", {"one.py": header + TASK}))
    assert not judged(listed, [HEADER + "x = 1\n", header, MIT])
    assert judged(listed, [header + TASK])


def test_numbers_in_a_row_are_no_passage(tmp_path: Path) -> None:
    numbers = "data = [" + ", ".join(map(str, range(100))) + "]\n"
    listed = prepared(tmp_path, write_files(tmp_path / "tasks", {"one.py": TASK + numbers}))
    assert not judged(listed, [numbers])


def test_the_frame_of_a_benchmark_is_not_a_task(tmp_path: Path) -> None:
    frame = (
        "METADATA = dict(author=None, dataset='test')\ndef check(candidate):\n    run every assertion of this check\n"
    )
    names = [" ".join(f"word_{task}_{word}" for word in range(20)) for task in range(10)]
    rows = "".join(json.dumps({"id": f"t{task}", "test": frame + name}) + "\n" for task, name in enumerate(names))
    listed = prepared(tmp_path, write_files(tmp_path / "tasks", {"tasks.jsonl": rows}))
    assert not judged(listed, [frame])
    assert listed.tasks[judged(listed, [names[3]])[0].task] == "t3 (tasks.jsonl)"


def test_holes_in_one_program_are_one_task(tmp_path: Path) -> None:
    rows = [{"task_id": f"hole/{cut}", "prompt": TASK[:cut], "canonical_solution": "", "suffix": TASK[cut:]} for cut in
            range(40, 400, 20)]  # fmt: skip
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    listed = prepared(tmp_path, write_files(tmp_path / "tasks", {"tasks.jsonl": lines}))
    assert listed.tasks[judged(listed, [TASK])[0].task] == "hole/40 (tasks.jsonl)"


def test_what_is_common_in_the_corpus_is_not_a_hit_unless_it_is_a_whole_task(tmp_path: Path) -> None:
    common = " ".join(f"boiler_{word}" for word in range(14)) + "\n"
    listed = prepared(
        tmp_path, write_files(tmp_path / "tasks", {"one.py": TASK + common, "two.py": f"# {DOCSTRING}\n"})
    )
    documents = [f"x_{number} = 1\n{common}" for number in range(12)]
    assert not judged(listed, documents)
    assert judged(listed, documents, [0, 1] * 6).keys() == set(range(12))  # the same two repositories
    assert judged(listed, [*documents, TASK + common]).keys() == {12}
    leaked = [f"{TASK}\nx_{number} = 1\n" for number in range(12)]
    assert judged(listed, leaked).keys() == set(range(12))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tasks.jsonl": "{'no': json}\n"}, "is damaged"),
        ({"tasks.jsonl.gz": b"no gzip"}, "is damaged"),
        ({"tasks.parquet": b"no parquet"}, "is damaged"),
        ({"tasks.json": "[" * 100_000}, "is damaged"),
        ({"README.md": "words"}, "has no task; name a folder"),
    ],
)
def test_a_benchmark_that_cannot_be_used_is_reported(
    tmp_path: Path, files: dict[str, str | bytes], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, write_files(tmp_path / "tasks", files))


def test_a_place_with_nothing_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; check the path"):
        prepared(tmp_path, tmp_path / "missing")


def test_a_long_passage_is_shortened(tmp_path: Path) -> None:
    listed = prepared(tmp_path, write_files(tmp_path / "tasks", {"one.py": TASK}))
    assert len(listed.passage(TASK.encode(), judged(listed, [TASK])[0].runs)) == benchmarks.PASSAGE_CHARS


def test_what_is_prepared_is_stored_and_loaded(tmp_path: Path) -> None:
    listed = prepared(tmp_path, write_files(tmp_path / "tasks", {"one.py": TASK}))
    assert list(listed.ngrams) == sorted(listed.ngrams)
    assert storage.exists(str(tmp_path / "prepared.parquet"))
