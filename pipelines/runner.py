"""KFP's local runner, changed so that steps get the interpreter and the arguments exactly as they are.

KFP replaces the text `python3` and its placeholders (`{{$...}}`, `/kfp-workspace`) anywhere in a command, even in the
user's paths and settings, and a shell splits the interpreter's path at spaces.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from kfp import local
from kfp.dsl.component_factory import EXECUTOR_MODULE
from kfp.local import placeholder_utils, status, subprocess_task_handler

EXECUTOR_INPUT: Final = "{{$}}"
"""The placeholder in a component's command for its inputs and outputs."""


@contextlib.contextmanager
def runner(root: Path) -> Iterator[None]:
    """Make a call of a pipeline run it here, each step as a process, with KFP's own files below the folder `root`.

    Raises UnicodeEncodeError for a folder whose name is not UTF-8.
    """
    local.init(
        runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root), workspace_root=str(root / "workspace")
    )
    with (
        _replaced(placeholder_utils, "replace_placeholders", _fill_in),
        _replaced(subprocess_task_handler, "SubprocessTaskHandler", _Step),
    ):
        yield


@contextlib.contextmanager
def _replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """Replace the attribute `name` of `module` by `value` inside the context."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def _fill_in(full_command: Sequence[str], executor_input_dict: dict[str, Any], **_: Any) -> list[str]:
    """Return the command of a component with its inputs and outputs, replacing nothing else."""
    return [json.dumps(executor_input_dict) if part == EXECUTOR_INPUT else part for part in full_command]


class _Step(subprocess_task_handler.SubprocessTaskHandler):  # type: ignore[misc]  # kfp has no types
    """A step as a process of this interpreter, without a shell."""

    def run(self) -> status.Status:
        """Run the step, print its output line by line, and return its status."""
        script = next(place for place, part in enumerate(self.full_command) if EXECUTOR_MODULE in part)
        source, *arguments = self.full_command[script + 1 :]
        with tempfile.TemporaryDirectory() as folder:
            module = Path(folder) / "component.py"
            module.write_text(source, encoding="utf-8")
            command = [sys.executable, "-m", EXECUTOR_MODULE, "--component_module_path", str(module), *arguments]
            code = _run(command, {**self.env_vars, "_KFP_RUNTIME": "true"})
        return status.Status.FAILURE if code else status.Status.SUCCESS


def _run(command: Sequence[str], variables: dict[str, str]) -> int:
    """Run a command, print its output line by line, and return its exit code."""
    env = {**os.environ, "PYTHONIOENCODING": "utf-8:backslashreplace", **variables}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
    return process.returncode
