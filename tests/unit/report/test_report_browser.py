"""The report's filters in a real Chromium, in which scripts are switched off."""

from pathlib import Path

import pytest

from infill.config import ReportConfig
from tests import chromium
from tests.builders import run_stage
from tests.unit.report import pipeline


@pytest.mark.long
@pytest.mark.timeout(600)
def test_filters_work_in_chromium_without_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    artifacts = pipeline.write(tmp_path)
    run_stage("report", ReportConfig(), *artifacts.values(), output=str(tmp_path / "report"))
    chromium.drive("report.mjs", tmp_path, (tmp_path / "report" / "report.html").as_uri())
