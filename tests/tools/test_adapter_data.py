"""The data of the shipped adapter: functions in files of their own, and examples of several kinds in one artifact."""

import ast
from pathlib import Path

from infill.artifacts.examples import SCHEMA, SPLITS, open_parquet, split_file, write_rows
from infill.manifest import digest_of, key, load, once
from tools.function_files import functions, write
from tools.join_examples import JoinConfig, join

MODULE = '''"""A module."""
import os
import sys as system
from typing import Any, Final


def joined(parts: list[str]) -> Any:
    """Return the path."""
    first = parts[0]
    return os.path.join(first, *parts[1:])


def short():
    return 1


class Reader:
    @property
    def size(self):
        data = self.read()
        return len(data)
'''


def test_functions_stand_alone_with_the_imports_they_use(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    written = dict(functions(tmp_path / "module.py"))
    assert list(written) == ["joined", "Reader_size"]
    assert written["joined"].startswith("import os\nfrom typing import Any\n\n\ndef joined(")
    assert written["Reader_size"].startswith("@property\ndef size(self):\n    data")
    assert all(ast.parse(text) for text in written.values())


def test_functions_keep_their_packages_licence_and_leave_out_tests_and_files_with_a_licence_of_their_own(
    tmp_path: Path,
) -> None:
    package = tmp_path / "package"
    for name, text in {
        "LICENSE": "MIT License",
        "src/module.py": MODULE,
        "tests/test_module.py": MODULE,
        "src/other.py": f"# SPDX-License-Identifier: GPL-3.0-only\n{MODULE}",
        "src/broken.py": "def f(:\n",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert write(package, tmp_path / "output") == 2
    names = {str(path.relative_to(tmp_path / "output")) for path in (tmp_path / "output").rglob("*") if path.is_file()}
    assert names == {"LICENSE", "src/module/joined.py", "src/module/Reader_size.py"}


def _examples(folder: Path, names: list[str]) -> str:
    output, config = str(folder), JoinConfig(seed=len(names))

    def body() -> dict[str, float]:
        for split in SPLITS:
            rows = [{**dict.fromkeys(SCHEMA.names[:-1], name), "context": []} for name in names]
            write_rows(split_file(output, split), rows if split == "train" else rows[:1])
        return {}

    once(
        stage="examples",
        version=3,
        key=key("examples", 3, config, {}),
        config=config,
        inputs={},
        output=output,
        body=body,
    )
    return output


def test_joined_examples_are_those_of_all_in_an_order_of_the_seed(tmp_path: Path) -> None:
    lines = _examples(tmp_path / "lines", [f"line {number}" for number in range(600)])
    blocks = _examples(tmp_path / "blocks", [f"block {number}" for number in range(300)])
    artifact = join([lines, blocks], str(tmp_path / "both"), JoinConfig())
    assert artifact.metrics == {"holes_train": 900.0, "holes_validation": 2.0, "holes_test": 2.0}
    assert load(str(tmp_path / "both")).inputs == {"examples_0": digest_of(lines), "examples_1": digest_of(blocks)}
    orders: list[list[str]] = []
    for seed in (0, 0, 1):
        join([lines, blocks], str(tmp_path / f"{len(orders)}"), JoinConfig(seed=seed))
        with open_parquet(split_file(str(tmp_path / f"{len(orders)}"), "train")) as reader:
            orders.append([str(name) for name in reader.read(columns=["id"])["id"].to_pylist()])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert len(set(orders[0])) == 900
