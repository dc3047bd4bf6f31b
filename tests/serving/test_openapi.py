"""The OpenAPI description: what it holds, and that the server does what it says, whatever schemathesis sends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.protocol import SAMPLING_FIELDS
from serving.transformer.fields import SAMPLING
from serving.transformer.protocols import by_path
from serving.transformer.request import FIELDS
from serving.transformer.service_routes import PAGES
from tests.serving.conftest import HTTP, chunk, say, strange_predictor, transforming

SCHEMATHESIS = (
    *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"),
    *("--phases=examples,coverage,fuzzing", "--max-examples=15", "--generation-deterministic", "--request-timeout=60"),
    "--no-color",
)


def test_the_description_holds_every_route_and_nothing_of_kserves_protocols(model: Path) -> None:
    with transforming(model, "http://127.0.0.1:9") as (url, _):
        answer = HTTP.get(f"{url}/openapi.json").json()
    assert set(answer["paths"]) == {*by_path(), *(page.path for page in PAGES)}
    assert answer["info"]["title"] == "Infill"


def test_the_fields_of_the_description_are_those_that_are_read() -> None:
    assert set(SAMPLING) == SAMPLING_FIELDS
    assert set(FIELDS) >= SAMPLING_FIELDS


def test_each_field_is_explained() -> None:
    fields = [field for protocols in by_path().values() for each in protocols for field in each.fields.values()]
    assert all(field.about for field in fields)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_schemathesis_finds_no_answer_that_is_not_described(model: Path, tmp_path: Path) -> None:
    events = [chunk("return "), chunk("best\n", "stop"), "data: [DONE]\n\n"]
    with (
        strange_predictor(say("200 OK", "".join(events), "text/event-stream")) as (predictor, _),
        transforming(model, predictor) as (url, _),
    ):
        done = subprocess.run(
            [*SCHEMATHESIS, f"{url}/openapi.json"],
            cwd=tmp_path,
            env=os.environ | {"NO_PROXY": "*"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
