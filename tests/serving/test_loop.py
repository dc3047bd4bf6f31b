"""The end of the loop on one machine: typists whose acceptance follows a rule decide a canary; MLflow has the record.

Transformer, telemetry, canary, registry and command are real; the predictors write the right line at a given rate.
"""

import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, generate_latest
from starlette.responses import PlainTextResponse

from infill import cli, tracking
from infill.artifacts import deployment
from infill.release import registry
from infill.release.registry import Version
from serving.transformer.openapi import include
from serving.transformer.routes import create_router
from serving.transformer.service import build
from serving.transformer.transformer_config import TransformerConfig, prepare
from tests.builders import run_stage
from tests.serving.conftest import HTTP, chunk, say, serving, strange_predictor, wait_until
from tests.unit.release.test_deploy import DEPLOY
from tests.unit.release.test_register import CONFIG, Run

WANTED = "return left + right"


def right_at(rate: float) -> Callable[[socket.socket], None]:
    """A predictor that writes the wanted line in this share of its answers, evenly spread, and another one else."""
    numbers = itertools.count()

    def answer(connection: socket.socket) -> None:
        number = next(numbers)
        right = int((number + 1) * rate) > int(number * rate)
        text = f"{WANTED}\n" if right else "pass\n"
        say("200 OK", chunk(text, "stop") + "data: [DONE]\n\n", "text/event-stream")(connection)

    return answer


@contextmanager
def on_trial(stable: Version, candidate: Version, rates: tuple[float, float]) -> Iterator[str]:
    """The URL of a transformer that tries `candidate` on half of its users; the predictors' rates are given."""
    with strange_predictor(right_at(rates[0])) as (first, one), strange_predictor(right_at(rates[1])) as (second, two):
        one.pages = two.pages = {"/v1/models": {"data": []}}
        config = TransformerConfig(
            model=stable.model_uri,
            predictor=first,
            candidate_predictor=second,
            candidate_model=candidate.model_uri,
            canary_weight=50.0,
            canary_requests=40,
            telemetry="metrics",
            telemetry_events=1_000_000,
            max_prompt_tokens=256,
            max_new_tokens=16,
            completion_cache_bytes=0,
            warm_s=0.0,
        )
        metrics, app = CollectorRegistry(), FastAPI()
        service = build(config, prepare(config), metrics)
        app.add_api_route("/metrics", lambda: PlainTextResponse(generate_latest(metrics)))
        with serving(include(app, create_router(service))) as url:
            assert service.sides is not None
            state = service.sides.state
            wait_until(lambda: state.ready)
            yield url


def type_on(url: str, user: str, over: threading.Event) -> None:
    """Ask again and again; accept a suggestion if its first line is what this user would type, else type on."""
    while not over.is_set():
        body = {"prompt": "def add(left, right):\n    ", "path": "a.py", "max_tokens": 16, "session": user}
        answer = HTTP.post(f"{url}/v1/completions", json=body).json()
        accepts = answer["choices"][0]["text"].splitlines()[0] == WANTED
        event = {"type": "select" if accepts else "dismiss", "completion_id": answer["id"]}
        assert HTTP.post(f"{url}/v1/events", json=event).status_code == 200


@contextmanager
def typing(url: str, users: int = 12) -> Iterator[None]:
    """Typists at work during the block."""
    over = threading.Event()
    with ThreadPoolExecutor(users) as pool:
        typists = [pool.submit(type_on, url, f"user {number}", over) for number in range(users)]
        try:
            yield
        finally:
            over.set()
    for typist in typists:
        typist.result()


@pytest.mark.long
@pytest.mark.parametrize(
    ("rates", "outcome"),
    [((0.5, 0.9), "promoted"), ((0.5, 0.1), "rolled back: acceptance")],
    ids=["better", "worse"],
)
def test_typists_decide_what_becomes_of_a_candidate(
    mlflow_store: Path, capsys: pytest.CaptureFixture[str], rates: tuple[float, float], outcome: str
) -> None:
    first, second = Run(mlflow_store, "one", (0.1, 0.3, 0.2)), Run(mlflow_store, "two", (0.1, 0.3, 0.9))
    for run in (first, second):
        run.register(replace(CONFIG, canary=True))
    out = mlflow_store / "store" / "deploy" / "first"
    run_stage("deploy", DEPLOY, first.output, output=str(out))
    stable, candidate = registry.champion("infill"), registry.candidate("infill")
    assert stable is not None
    assert candidate is not None
    capsys.readouterr()
    with on_trial(stable, candidate, rates) as url, typing(url):
        words = ["--url", url, "--out", str(mlflow_store), "--requests", "60", "--suggestions", "100"]
        assert cli.main(["canary", "decide", *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["outcome"], result["version"]) == (outcome, candidate.version)
    assert result["stable"]["acceptance"] == pytest.approx(rates[0], abs=0.1)
    assert result["candidate"]["acceptance"] == pytest.approx(rates[1], abs=0.1)
    _assert_recorded(mlflow_store, stable, candidate, result)


def _assert_recorded(out: Path, stable: Version, candidate: Version, result: dict[str, object]) -> None:
    """MLflow and the deployment record say what became of the candidate."""
    promoted = result["outcome"] == "promoted"
    champion = registry.champion("infill")
    now = registry.version("infill", candidate.version)
    record = deployment.newest(out / "store")
    assert champion is not None
    assert now is not None
    assert record is not None
    assert registry.candidate("infill") is None
    assert champion.version == (candidate if promoted else stable).version
    assert (registry.ROLLED_BACK in now.tags) != promoted
    assert now.tags[registry.CANARY] == result["outcome"]
    figures = json.loads(now.tags[registry.CANARY_FIGURES])
    assert figures == {side: result[side] for side in ("stable", "candidate")}
    logged = tracking.client().get_run(candidate.tags[registry.RUN_ID]).data.metrics
    assert logged["canary/candidate_acceptance"] == figures["candidate"]["acceptance"]
    assert json.loads(Path(record).read_text())["model_digest"] == champion.model_digest
