import io
from pathlib import Path

from pipelines.console import Console

KFP = """21:10:45.473 - INFO - Running pipeline: \x1b[95m'infill'\x1b[0m
21:10:45.600 - INFO - Executing task \x1b[96m'corpus'\x1b[0m
21:10:45.601 - INFO - Streamed logs:

    [KFP Executor 2026-11-22 21:10:46,917 INFO]: Looking for component `corpus` in --component_module_path `x.py`
    [KFP Executor 2026-11-22 21:10:46,918 INFO]: Got executor_input:
    {
        "inputs": {"parameterValues": {"preset": "debug"}}
    }
    [KFP Executor 2026-11-22 21:10:50,917 WARNING]: corpus: 2 repositories hold no file
    infill: corpus: no file is permissively licensed
21:10:53.319 - ERROR - Task \x1b[96m'corpus'\x1b[0m finished with status \x1b[91mFAILURE\x1b[0m
"""


def test_terminal_has_the_steps_and_the_file_has_all(tmp_path: Path) -> None:
    terminal = io.StringIO()
    console = Console(tmp_path / "run.log", terminal)
    for start in range(0, len(KFP), 7):
        console.write(KFP[start : start + 7])
    console.close()
    assert terminal.getvalue() == "== corpus\n   corpus: 2 repositories hold no file\n"
    assert (tmp_path / "run.log").read_text() == KFP
    assert console.error == "corpus: no file is permissively licensed"
