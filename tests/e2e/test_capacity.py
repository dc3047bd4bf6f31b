"""`benchmarks.capacity` with the real transformer and an engine without a model."""

import importlib.resources
import json
from pathlib import Path

import pytest

from benchmarks import capacity
from benchmarks.keystrokes.stub_engine import stub
from infill.errors import InputError
from tests.builders import tiny_model

pytestmark = pytest.mark.long
FIRST_MS, TOKEN_MS = 20, 1


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("capacity") / "a model", context_length=1_024)


def test_each_part_is_measured(model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "PLACES", 2)
    project = Path(str(importlib.resources.files("asyncio")))
    with stub(FIRST_MS, TOKEN_MS, lambda _: None) as engine:
        arguments = ["--predictor", engine.url, "--model", model, "--repo", str(project)]
        capacity.main([*arguments, "--rates", "20", "--seconds", "2", "--sessions", "2", "--max-tokens", "8"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["prompt"]["tokens"] == 1_024 - 8
    assert figures["prompt"]["new"]["first_ms_p50_p90"][0] >= FIRST_MS
    assert 0 < figures["together"]["requests_per_s"] <= capacity.TOGETHER * 1_000 / FIRST_MS
    assert figures["typed"]["start"]["requests"] == 2
    assert figures["typed"]["later"]["requests"] > 0
    assert figures["rates"]["20"]["failed"] == 0
    assert 10 < figures["rates"]["20"]["requests"] < 100
    assert figures["rates"]["20"]["total_ms_p50_p90_p99"][0] >= FIRST_MS


def test_an_engine_that_is_not_there_is_an_error(model: str) -> None:
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9: "):
        capacity.main(["--predictor", "http://127.0.0.1:9", "--model", model])


@pytest.mark.parametrize("wrong", [["--rates", "0"], ["--seconds", "-1"], ["--sessions", "0"]])
def test_a_wrong_option_is_refused(model: str, wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        capacity.main(["--predictor", "http://127.0.0.1:9", "--model", model, *wrong])


def test_a_project_without_code_is_an_error(model: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no lines to hide"):
        capacity.main(["--predictor", "http://127.0.0.1:9", "--model", model, "--repo", str(tmp_path)])
