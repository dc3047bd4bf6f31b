"""What a local run says of itself in MLflow."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from infill import config, tracking
from infill.config import Preset
from infill.errors import InputError
from infill.stages import step
from pipelines import local


def fewer_steps(preset: Preset) -> Preset:
    return replace(preset, sft=replace(preset.sft, train=replace(preset.sft.train, steps=5)))


def other_timeout(preset: Preset) -> Preset:
    """Changed in what is not a part of an artifact's key."""
    return replace(preset, dpo=replace(preset.dpo, train=replace(preset.dpo.train, timeout_s=60.0)))


def other_title(preset: Preset) -> Preset:
    return replace(preset, report=replace(preset.report, title="another"))


@pytest.mark.parametrize("change", [fewer_steps, other_timeout, other_title])
def test_a_run_whose_preset_or_default_has_changed_is_another(
    change: Callable[[Preset], Preset], mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (tracking.PARENT_RUN, step.RUN_PID):
        monkeypatch.setenv(name, "")
    runs = []
    for preset in (config.debug, lambda: change(config.debug()), config.debug):
        monkeypatch.setitem(cast(dict[str, Any], config.PRESETS), "debug", preset)
        with local._environment(mlflow_store, "debug", {"seed": 1}):
            runs.append(tracking.client().get_run(os.environ[tracking.PARENT_RUN]))
    first, changed, again = (run.info.run_id for run in runs)
    assert first == again != changed
    resolved = [tracking.flatten(config.resolve("debug", {"seed": 1})), runs[0].data.params]
    assert resolved[0] == resolved[1] != runs[1].data.params


def test_a_folder_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be UTF-8"):
        local.run("debug", {}, tmp_path / "\udcff")
