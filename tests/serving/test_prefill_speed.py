"""The price of replacing context follows the measured speed of the predictor."""

import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge

from infill.context.packing import RULES
from serving.transformer.prefill_speed import KEPT, LEAST_PRICE, SECOND, PrefillSpeed
from tests.serving.conftest import HTTP, chunk, say, strange_predictor, transforming


def speed() -> PrefillSpeed:
    return PrefillSpeed(Gauge("speed", "Speed", registry=CollectorRegistry()))


def test_without_long_prompts_the_usual_price_holds() -> None:
    measured = speed()
    for computed in (0, 31, 100, 255):
        measured.observe(computed, 1.0)
    assert measured.rules(4_096) == RULES


@pytest.mark.parametrize(("per_second", "price"), [(60_000, LEAST_PRICE), (250, SECOND * 24), (3_000, SECOND * 2)])
def test_the_price_is_the_time_of_a_whole_prompt_without_what_every_answer_takes(
    per_second: float, price: float
) -> None:
    measured = speed()
    for tokens in (300, 1_000, 6_000):
        measured.observe(3, 0.020)
        measured.observe(tokens, 0.020 + tokens / per_second)
    assert measured.rules(6_000).prefill_price == pytest.approx(price)
    assert measured.rules(3_000).prefill_price == pytest.approx(max(price / 2, LEAST_PRICE))


def test_a_slower_predictor_is_noticed() -> None:
    measured = speed()
    for _ in range(KEPT):
        measured.observe(1_000, 0.1)
    for _ in range(KEPT // 2 + 1):
        measured.observe(1_000, 1.0)
    assert measured.rules(1_000).prefill_price == pytest.approx(SECOND)


@pytest.mark.parametrize(("details", "known"), [({"cached_tokens": 10}, True), (None, False)])
def test_it_is_measured_from_answers_that_say_what_was_cached(
    model: Path, details: dict[str, int] | None, known: bool
) -> None:
    usage = {"prompt_tokens": 900, "completion_tokens": 1, "prompt_tokens_details": details}
    last = f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"
    with (
        strange_predictor(say("200 OK", chunk("x", "stop") + last, "text/event-stream")) as (predictor, _),
        transforming(model, predictor, completion_cache_bytes=0) as (url, service),
    ):
        for number in range(3):
            body = {"prompt": f"x{number} = ", "path": "a.py", "max_tokens": 1}
            assert HTTP.post(f"{url}/v1/completions", json=body).status_code == 200
        assert (service.prefill.rules(1_000) != RULES) == known
