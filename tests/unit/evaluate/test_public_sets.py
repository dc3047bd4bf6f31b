"""Readers of public benchmarks, on rows made by hand after those that are published."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infill import storage
from infill.errors import InputError
from infill.evaluate import public_sets, toolchains
from tests.unit.evaluate.test_humaneval import TASKS
from tests.unit.evaluate.test_sandbox import isolated

PROGRAM = (
    "import sys\nn = int(input())\ntotal = 0\n"
    "for word in sys.stdin.readline().split():\n    {{completion}}\nprint(total)\n"
)
ROWS: dict[str, dict[str, Any]] = {
    "humaneval-infilling": TASKS[1],
    "safim": {
        "task_id": "block_completion_1",
        "lang": "python",
        "prompt": "Complete the code in python:\n\nDescription: Sum n numbers.\n\nCode:\n\n"
        + PROGRAM.replace("{{completion}}", "# TODO: Your code here"),
        "eval_prompt": PROGRAM,
        "ground_truth": "total += int(word)",
        "unit_tests": [{"input": "2\n1 2", "output": ["3"]}, {"input": "1\n-4\n", "output": ["0", "-4"]}],
    },
    "santacoder-fim": {
        "name": "HumanEval_0_double",
        "language": "py",
        "prompt": "def half(x):\n    return x / 2\n\ndef double(x):\n",
        "suffix": "\n",
        "canonical_solution": "    return 2 * x",
        "tests": "def check(candidate):\n    assert candidate(4) == 8\n\n"
        "def test_check():\n    check(double)\n\ntest_check()\n",
    },
    "repobench": {
        "repo_name": "team/shop",
        "file_path": "shop/cart.py",
        "context": [{"identifier": "Price", "path": "shop/price.py", "snippet": "class Price: ..."}],
        "import_statement": "from shop.price import Price",
        "token_num": 20,
        "cropped_code": "def total(items):",
        "all_code": "from shop.price import Price\n\ndef total(items):\n    return Price(sum(items))\n",
        "next_line": "    return Price(sum(items))",
        "gold_snippet_index": 0,
        "created_at": "2023-11-01T00:00:00",
        "level": "2k",
    },
    "crosscodeeval": {
        "prompt": "import { Cart } from './cart';\nconst cart = new Cart();\ncart.",
        "groundtruth": "add(item);",
        "right_context": "\nexport default cart;\n",
        "metadata": {"task_id": "project_cc_typescript/1", "repository": "team-shop", "file": "src/main.ts"},
        "crossfile_context": {
            "text": "// ...",
            "list": [
                {"retrieved_chunk": "add(item) {}", "filename": "src/cart.ts", "score": 2.0},
                {"retrieved_chunk": "class Price {}", "filename": "src/price.ts", "score": 1.0},
            ],
        },
    },
    "execrepobench": {
        "repo_name": "shop",
        "file_name": "shop/cart.py",
        "prefix_code": "def total(items):\n    return ",
        "suffix_code": "\n",
        "middle_code": "sum(items)",
        "context_code": [["shop/price.py", "class Price: ..."], ["shop/tax.py", "RATE = 0.2"]],
        "fill_type": "grammar-based: expression",
    },
}
TESTED = ("humaneval-infilling", "safim", "santacoder-fim")


def _write(folder: Path, name: str, *rows: object) -> str:
    file = folder / f"{name} set.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def _read(folder: Path, name: str) -> public_sets.PublicTask:
    (task,) = public_sets.read(name, _write(folder, name, ROWS[name]))
    return task


@pytest.mark.parametrize("name", public_sets.READERS)
def test_each_set_gives_holes_with_their_surroundings(tmp_path: Path, name: str) -> None:
    task = _read(tmp_path, name)
    row = ROWS[name]
    assert task.middle in {
        row.get(key) for key in ("canonical_solution", "ground_truth", "next_line", "groundtruth", "middle_code")
    }
    assert task.language == ("typescript" if name == "crosscodeeval" else "python")
    assert task.request.prefix.strip()
    assert task.task_id
    assert (task.test is not None) is (name in TESTED)


def test_the_most_relevant_context_is_last(tmp_path: Path) -> None:
    paths = {name: [item.path for item in _read(tmp_path, name).request.context] for name in public_sets.READERS}
    assert paths["crosscodeeval"] == ["src/price.ts", "src/cart.ts"]
    assert paths["execrepobench"] == ["shop/tax.py", "shop/price.py"]
    assert paths["repobench"] == ["shop/price.py"]
    assert paths["safim"] == []


@pytest.mark.skipif(not isolated(), reason="this machine allows no namespaces")
def test_canonical_solutions_pass_and_empty_and_forged_ones_do_not(tmp_path: Path) -> None:
    tasks = [_read(tmp_path, name) for name in public_sets.READERS]

    def outcomes(middles: list[str]) -> dict[str, str]:
        results = zip(tasks, public_sets.run(tasks, middles, seconds=20), strict=True)
        return {task.task_id: outcome.status for task, outcome in results if outcome is not None}

    assert set(outcomes([task.middle for task in tasks]).values()) == {"passed"}
    assert len(outcomes([task.middle for task in tasks])) == len(TESTED)
    assert set(outcomes([""] * len(tasks)).values()) == {"failed"}
    assert set(outcomes(["    import os; os._exit(0)"] * len(tasks)).values()) == {"failed"}


def test_a_task_without_tests_is_not_executed(tmp_path: Path) -> None:
    task = _read(tmp_path, "repobench")
    assert public_sets.run([task], [task.middle]) == [None]
    csharp = CPP | {"lang": "csharp"}  # no compiler of it runs in the sandbox
    api = {key: value for key, value in ROWS["safim"].items() if key != "unit_tests"}
    assert [each.test for each in public_sets.read("safim", _write(tmp_path, "safim", csharp, api))] == [None, None]


CPP = {
    **ROWS["safim"],
    "lang": "cpp",
    "prompt": "Complete the code in cpp:\n\nint main() { /* TODO: Your code here */ }",
    "eval_prompt": "#include <iostream>\nint main() { {{completion}} }",
    "ground_truth": 'std::cout << "yes 2 0.50";',
    "unit_tests": json.dumps([{"input": "", "output": ["YES 2.0\n.5"]}]),  # as text in the Parquet file
}


@pytest.mark.skipif(not isolated() or "cpp" not in toolchains.languages(), reason="needs namespaces and g++")
def test_compiled_programs_are_executed_and_their_words_compared_by_value(tmp_path: Path) -> None:
    (task,) = public_sets.read("safim", _write(tmp_path, "safim", CPP))
    middles = [task.middle, "", 'std::cout << "yes 2 0.51";', 'std::cout << "yes 2";', 'std::cout << "Yess 2 .5";']
    outcomes = public_sets.run([task] * len(middles), middles, seconds=30)
    assert [each and each.status for each in outcomes] == ["passed"] + ["failed"] * 4


def test_files_may_be_compressed_or_parquet(tmp_path: Path) -> None:
    rows = [ROWS["repobench"]] * 3
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    storage.write_table(str(tmp_path / "rows.parquet"), pa.Table.from_pylist(rows))
    texts, table = (public_sets.read("repobench", str(tmp_path / f"rows.{end}")) for end in ("jsonl.gz", "parquet"))
    assert texts == table
    assert len(texts) == 3
    assert len(public_sets.read("repobench", str(tmp_path / "rows.parquet"), limit=2)) == 2


def test_an_error_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"unknown benchmark set 'humaneval'; choose one of humaneval-infilling, safim"
    ):
        public_sets.read("humaneval", "x")
    with pytest.raises(InputError, match=r"nowhere.jsonl is missing; name a file of the benchmark"):
        public_sets.read("safim", str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(
        InputError, match=r"row 2 of .* is not in the format of repobench \(KeyError: 'import_statement'\)"
    ):
        public_sets.read("repobench", _write(tmp_path, "repobench", ROWS["repobench"], ROWS["safim"]))
    two = ROWS["safim"] | {"prompt": "no hole"}
    with pytest.raises(InputError, match=r"a text must have '# TODO: Your code here' once, not 0 times"):
        public_sets.read("safim", _write(tmp_path, "safim", two))
    (tmp_path / "cut.jsonl").write_text('{"prompt": ')
    with pytest.raises(InputError, match="is damaged"):
        public_sets.read("safim", str(tmp_path / "cut.jsonl"))
    with pytest.raises(InputError, match="has no tasks"):
        public_sets.read("safim", _write(tmp_path, "safim"))
