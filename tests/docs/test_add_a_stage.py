"""The page on adding a stage: its changes, made to a copy of the library, give a stage that runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests import builders
from tools import docs

PAGE: Final = docs.DOCS / "how-to" / "add-a-stage.md"


def changes() -> list[tuple[str, str, str]]:
    """Return (kind, file, text) of each block of the page that has a file's name as its title."""
    return re.findall(r'^```(diff|python) title="(\S+)"\n(.*?)^```$', PAGE.read_text(encoding="utf-8"), re.M | re.S)


def make(root: Path, kind: str, name: str, text: str) -> None:
    """Make one change in the tree at `root`."""
    file = root / name
    if kind == "python":
        assert not file.exists()
        file.write_text(text, encoding="utf-8")
        return
    lines = text.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] == " ")
    whole = file.read_text(encoding="utf-8")
    assert whole.count(before) == 1, f"{name} does not have these lines once:\n{before}"
    file.write_text(whole.replace(before, "".join(line[1:] for line in lines)), encoding="utf-8")


def test_the_page_adds_a_stage_in_three_places(tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(docs.ROOT / "infill", root / "infill", ignore=shutil.ignore_patterns("__pycache__"))
    assert len({name for _, name, _ in changes()}) == 3
    for change in changes():
        make(root, *change)
    corpus = builders.write_documents(tmp_path / "corpus", builders.tiny_repositories())
    words = ["corpus", "census", "--preset", "debug", "--corpus", corpus, "--store", str(tmp_path / "store")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(docs.ROOT)])}
    for split, languages in (("train", {"python": 12}), ("test", {"python": 3})):
        done = subprocess.run(
            [sys.executable, "-m", "infill.cli", *words, "--set", f"census.split={split}"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["metrics"] == {"languages": 1}
        assert json.loads((Path(answer["uri"]) / "census.json").read_text(encoding="utf-8")) == languages
