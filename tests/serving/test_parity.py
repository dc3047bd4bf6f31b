"""The same caret gives the same prompt wherever it is asked about: in SFT data, in an evaluation, over HTTP."""

import json
from pathlib import Path

import pytest

from infill import storage
from infill.artifacts.examples import request_of
from infill.config import ExamplesConfig, SftConfig
from infill.evaluate.generation import Generator
from infill.prompt import FimRequest, load_format
from infill.train.sft import Examples
from infill.train.shuffled_rows import Rows
from tests import builders
from tests.builders import run_stage
from tests.serving.conftest import HTTP, chunk, say, strange_predictor, transforming

CONFIG = ExamplesConfig(holes=24, validation_holes=4, test_holes=4, strategies=(("infill", 1.0),))


@pytest.mark.parametrize("budget", [64, 160, 2_000])
def test_training_evaluation_and_serving_see_the_same_prompt(tmp_path: Path, model: Path, budget: int) -> None:
    repositories = builders.tiny_repositories(files=5)
    corpus = builders.write_documents(tmp_path / "corpus", repositories)
    artifact = str(tmp_path / "examples")
    run_stage("examples", CONFIG, corpus, str(model), output=artifact)
    rows = storage.read_table(storage.join(artifact, "examples", "train.parquet")).to_pylist()
    rows_on_disk = Rows(storage.join(artifact, "examples", "train.parquet"))
    trained = Examples(rows_on_disk, model, SftConfig(max_prompt_tokens=budget), 10 * budget)
    generator = Generator(model)
    behaviour = say("200 OK", chunk("x", "stop") + "data: [DONE]\n\n", "text/event-stream")
    sent = {"max_prompt_tokens": budget, "max_new_tokens": 16}
    with strange_predictor(behaviour) as (predictor, seen), transforming(model, predictor, **sent) as (url, _):
        for number, row in enumerate(rows):
            others = [
                {"path": path, "text": text} for path, text in repositories[row["repo"]].items() if path != row["path"]
            ]
            body = {"path": row["path"], "prompt": row["prefix"], "suffix": row["suffix"], "context": others}
            body["session"] = row["id"]  # of its own: no prompt before this one whose KV cache would be kept warm
            assert HTTP.post(f"{url}/v1/completions", json=body).status_code == 200
            served = json.loads(seen.requests[-1][1])["prompt"]
            item = trained[number]
            assert item is not None
            middle = [*generator.encoder.encode(row["middle"]), load_format(model).endoftext]
            assert [*served, *middle] == list(item.ids)
            assert generator.prompt(request_of(row), budget) == served
            assert len(served) <= budget


def test_evaluation_and_serving_heal_the_same_words(model: Path) -> None:
    generator = Generator(model)
    behaviour = say("200 OK", chunk("", "stop") + "data: [DONE]\n\n", "text/event-stream")
    with strange_predictor(behaviour) as (predictor, seen), transforming(model, predictor) as (url, _):
        seen.pages["/v1/models"] = {"data": [{"id": "m", "begins_with": True, "max_model_len": 512}]}
        for prefix in ("def first(valu", "x = retu", "return ", "x_1", "a.b(c"):
            caret = FimRequest(path="a.py", prefix=prefix, suffix=")\n")
            body = {"path": "a.py", "prompt": prefix, "suffix": ")\n", "session": prefix}
            assert HTTP.post(f"{url}/v1/completions", json=body).status_code == 200
            sent = json.loads(seen.requests[-1][1])
            healed = (sent["prompt"], sent.get("begins_with", ""))
            assert healed == generator.healed(generator.prompt(caret, 256))
