"""Folders that are not those of a finished run: each says what is wrong with it."""

from pathlib import Path

import pytest

from infill.errors import InputError
from pipelines import local
from tests.unit.corpus.folders import write_files


@pytest.mark.parametrize(
    ("files", "out", "message"),
    [
        ({}, "nowhere", "folder .*nowhere does not exist: name the --out of a finished infill run"),
        ({"a b/notes.txt": "x"}, "a b", "a b is not the folder of a run: it has no store"),
        ({"run": "x"}, "run", "run is not the folder of a run: it has no store"),
        ({"run/store/sft/1/manifest.json": "{}"}, "run", "has no deployment: the run has not reached the gate"),
        ({"run/store/register/1/manifest.json": "{}"}, "run", "has no deployment: no model passed the gate"),
    ],
)
def test_a_folder_without_a_deployment_says_why(tmp_path: Path, files: dict[str, str], out: str, message: str) -> None:
    write_files(tmp_path, files)
    with pytest.raises(InputError, match=message):
        local.deployment_of(tmp_path / out)
