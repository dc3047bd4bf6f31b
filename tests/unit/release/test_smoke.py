"""Tests of the smoke test: a real transformer passes it, and each server that packs otherwise does not."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response

from infill import prompt
from infill.context.packing import pack
from infill.errors import ServiceError
from infill.prompt import FimRequest
from infill.release import smoke
from infill.release.smoke import GOLDEN, SmokeError, check
from serving.local import free_port
from tests.serving.conftest import engine, model, serving
from tests.unit.release.cluster import url

__all__ = ["engine", "model", "url"]

BUDGET = 200
Answer = dict[str, Any]


def test_a_real_transformer_passes(model: Path, url: str) -> None:
    figures = check(url, str(model), latency_ms=60_000.0)
    assert figures["smoke_prompts"] == len(GOLDEN)
    assert figures["smoke_max_ms"] >= figures["smoke_p50_ms"] > 0


def test_a_second_test_of_the_same_server_passes_too(model: Path, url: str) -> None:
    """What the server has kept of the first one changes no prompt."""
    check(url, str(model), latency_ms=60_000.0)
    check(url, str(model), latency_ms=60_000.0)


def imitation(model: Path, change: Callable[[Answer], Any], models: Answer | None = None) -> FastAPI:
    """A server that answers as ours does, but for `change`."""
    fmt, encoder = prompt.load_format(model), prompt.load_encoder(model)
    app = FastAPI()

    @app.get("/v1/models")
    def listed() -> Answer:
        by_name = {"prompt_format": fmt.hash, "max_prompt_tokens": BUDGET}
        return {"data": [{"id": "x", "infill": by_name if models is None else models}]}

    @app.post("/v1/completions")
    async def complete(request: Request) -> Answer:
        body = await request.json()
        fim = FimRequest(path=body["path"], prefix=body["prompt"], suffix=body["suffix"])
        item = {"path": "shapes.py", "first_line": 1, "last_line": 2, "score": 1.0, "strategy": "infill"}
        by_name = {
            "prompt_tokens": len(pack(fmt, encoder.encode, fim, budget=BUDGET).prompt.ids),
            "context": [item] if body["context"] else [],
        }
        answer = {"choices": [{"text": ""}], "infill": by_name}
        change(answer)
        return answer

    return app


def test_the_imitation_passes_unchanged(model: Path) -> None:
    with serving(imitation(model, lambda _: None)) as address:
        check(address, str(model), latency_ms=60_000.0)


OTHERWISE: dict[str, tuple[Callable[[Answer], Any], str]] = {
    "a token more": (
        lambda each: each["infill"].update(prompt_tokens=each["infill"]["prompt_tokens"] + 1),
        "the golden prompt of a hole in a line must have .* tokens, got",
    ),
    "no context": (lambda each: each["infill"].update(context=[]), "a file of the project must contain context"),
    "the bare predictor": (lambda each: each.pop("infill"), "not like an Infill transformer"),
    "slow": (lambda _: time.sleep(0.02), r"took \d+ ms, more than the 1 ms of deploy.smokeLatency"),
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_a_server_that_packs_otherwise_fails(model: Path, case: str) -> None:
    change, sentence = OTHERWISE[case]
    latency = 1.0 if case == "slow" else 60_000.0
    with serving(imitation(model, change)) as address, pytest.raises(ServiceError, match=sentence):
        check(address, str(model), latency_ms=latency)


@pytest.mark.parametrize(
    ("models", "sentence"),
    [
        ({"prompt_format": "0" * 64, "max_prompt_tokens": BUDGET}, "packs prompts in the format 000000000000"),
        ({}, "no Infill transformer answers"),
    ],
)
def test_another_prompt_format_fails(model: Path, models: Answer, sentence: str) -> None:
    app = imitation(model, lambda _: None, models=models)
    with serving(app) as address, pytest.raises(SmokeError, match=sentence):
        check(address, str(model), latency_ms=60_000.0, settle_s=0.0)


def test_a_server_that_comes_late_is_waited_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "PAUSE_S", 0.01)
    app = imitation(model, lambda _: None)
    refused: list[str] = []

    @app.middleware("http")
    async def late(request: Request, call_next: Any) -> Any:
        if len(refused) < 3:
            refused.append(request.url.path)
            return Response(status_code=503)
        return await call_next(request)

    with serving(app) as address:
        check(address, str(model), latency_ms=60_000.0)
    assert refused == ["/v1/models"] * 3


def test_a_server_that_does_not_come_is_reported(model: Path) -> None:
    with pytest.raises(SmokeError, match=r"no Infill transformer answers .*check the network policies"):
        check(f"http://127.0.0.1:{free_port()}", str(model), latency_ms=1.0, settle_s=0.0)
