"""Which models and settings a transformer accepts, and how KServe's controller sets them."""

import asyncio
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import uvloop
from fastapi import FastAPI

from infill import storage
from infill.errors import InputError
from infill.prompt import load_format
from serving.predictor.predictor_config import PredictorConfig
from serving.transformer.__main__ import _parser, read_config
from serving.transformer.transformer_config import TransformerConfig, prepare
from tests.serving.conftest import CONTEXT


def refuse(config: TransformerConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(config)


def test_the_budget_is_what_the_context_leaves(model: Path) -> None:
    prepared = prepare(TransformerConfig(model=str(model)))
    assert (prepared.max_prompt_tokens, prepared.max_new_tokens) == (CONTEXT - 128, 128)


def test_a_deployment_sets_model_and_limits(model: Path, tmp_path: Path) -> None:
    record = {
        "model_uri": str(model),
        "prompt_format_hash": load_format(model).hash,
        "max_prompt_tokens": 300,
        "max_new_tokens": 30,
    }
    storage.write_json(str(tmp_path / "deployment.json"), record)
    prepared = prepare(TransformerConfig(deployment=str(tmp_path / "deployment.json")))
    assert (prepared.max_prompt_tokens, prepared.max_new_tokens) == (300, 30)
    given = TransformerConfig(deployment=str(tmp_path / "deployment.json"), max_prompt_tokens=200)
    assert prepare(given).max_prompt_tokens == 200


def test_a_candidate_has_the_limits_of_the_model_it_competes_with(model: Path, tmp_path: Path) -> None:
    def limits(context: int) -> tuple[int, int]:
        other = shutil.copytree(model, tmp_path / f"candidate {context}")
        settings = storage.read_json(str(other / "config.json"))
        storage.write_json(str(other / "config.json"), settings | {"max_position_embeddings": context})
        config = replace(stable, candidate_predictor="http://127.0.0.1:1", candidate_model=str(other))
        candidate = prepare(config).candidate
        assert candidate is not None
        return candidate.max_prompt_tokens, candidate.max_new_tokens

    stable = TransformerConfig(model=str(model), max_prompt_tokens=0, deployment=str(tmp_path / "deployment.json"))
    storage.write_json(stable.deployment, {"max_prompt_tokens": 300, "max_new_tokens": 30})
    assert limits(8192) == (300, 30)
    assert limits(200) == (170, 30)
    assert limits(40) == (20, 20)


def test_another_prompt_format_than_the_deployments_is_refused(model: Path, tmp_path: Path) -> None:
    record = str(tmp_path / "deployment.json")
    storage.write_json(record, {"model_uri": str(model), "prompt_format_hash": "0" * 64})
    refuse(TransformerConfig(deployment=record), "deploy the model again")
    storage.write_json(record, {})
    refuse(TransformerConfig(deployment=record), "names no model_uri")


def test_a_prompt_format_of_an_unknown_version_is_refused(model: Path, tmp_path: Path) -> None:
    shutil.copy(model / "tokenizer.json", tmp_path)
    value = json.loads((model / "prompt_format.json").read_text())
    (tmp_path / "prompt_format.json").write_text(json.dumps(value | {"version": 99}))
    refuse(TransformerConfig(model=str(tmp_path), max_prompt_tokens=100), "version 99")
    (tmp_path / "prompt_format.json").write_text(json.dumps(value | {"order": "psm", "novelty": 1}))
    refuse(TransformerConfig(model=str(tmp_path), max_prompt_tokens=100), "not a prompt format of this version")
    done = subprocess.run(
        [sys.executable, "-m", "serving.transformer", "--model", str(tmp_path), "--max_prompt_tokens", "100"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("transformer: prompt_format.json is not a prompt format")


def test_limits_that_do_not_fit_the_model_are_refused(model: Path, tmp_path: Path) -> None:
    refuse(TransformerConfig(model=str(model), max_prompt_tokens=CONTEXT), "do not fit the context")
    refuse(TransformerConfig(model=str(model), strategy="guess"), "unknown context strategy")
    refuse(TransformerConfig(model=str(tmp_path)), "has no tokenizer")
    for name in ("tokenizer.json", "prompt_format.json"):
        shutil.copy(model / name, tmp_path)
    refuse(TransformerConfig(model=str(tmp_path)), "set max_prompt_tokens")
    assert prepare(TransformerConfig(model=str(tmp_path), max_prompt_tokens=99)).max_prompt_tokens == 99


def test_of_a_remote_model_only_the_small_files_are_read(model: Path) -> None:
    remote = fsspec.filesystem("memory")
    for name in ("tokenizer.json", "prompt_format.json", "config.json"):
        remote.pipe(f"/model/{name}", (model / name).read_bytes())
    assert prepare(TransformerConfig(model="memory://model")).max_new_tokens == 128


WRONG: list[dict[str, Any]] = [
    {"model": ""},
    {"predictor": "localhost:1"},
    {"port": 0},
    {"connect_s": 0},
    {"max_new_tokens": -1},
]


@pytest.mark.parametrize("fields", WRONG, ids=lambda fields: next(iter(fields)))
def test_settings_without_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"model|predictor|port|connect_s|max_new_tokens"):
        TransformerConfig(**{"model": "m", **fields})


WRONG_OF_PREDICTOR: list[dict[str, Any]] = [
    {"model": ""},
    {"port": -1},
    {"device": "tpu"},
    {"queue": 0},
    {"engine": "vllm"},
    {"engine": "llama.cpp", "device": "cuda"},
    {"gguf_type": "q4_0"},
    {"draft_tokens": -1},
]


@pytest.mark.parametrize("fields", WRONG_OF_PREDICTOR, ids=str)
def test_predictor_settings_without_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        PredictorConfig(**{"model": "m", **fields})


def test_the_options_of_kserves_controller() -> None:
    arguments = ["--model_name", "mellum", "--predictor_host", "mellum-predictor.team", "--http_port", "8080"]
    arguments += ["--workers", "4", "--tokenizer", "/mnt/models", "--enable_latency_logging", "false"]
    given, rest = _parser().parse_known_args(arguments)
    config = read_config(vars(given))
    assert (config.name, config.port, config.model) == ("mellum", 8080, "/mnt/models")
    assert config.predictor == "http://mellum-predictor.team"
    assert rest == ["--enable_latency_logging", "false"]
    given, _ = _parser().parse_known_args([*arguments, "--predictor_use_ssl", "True"])
    assert read_config(vars(given)).predictor == "https://mellum-predictor.team"


def test_a_switch_is_switched_off_by_false() -> None:
    assert not read_config(vars(_parser().parse_args(["--model", "m", "--healing", "false"]))).healing
    assert read_config(vars(_parser().parse_args(["--model", "m", "--healing", "True"]))).healing
    with pytest.raises(SystemExit):
        _parser().parse_args(["--healing", "no"])


@pytest.mark.parametrize(("option", "kind"), [("auto", uvloop.Loop), ("asyncio", asyncio.SelectorEventLoop)])
def test_the_server_has_the_event_loop_of_its_option(option: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["transformer"])  # KServe reads it when it is imported
    from serving.transformer.model_server import TransformerServer

    server = TransformerServer(FastAPI(), "127.0.0.1", 0)
    server.event_loop = option
    try:
        server.setup_event_loop()
        assert isinstance(asyncio.get_event_loop_policy().get_event_loop(), kind)
    finally:
        asyncio.get_event_loop_policy().get_event_loop().close()
        asyncio.set_event_loop_policy(None)
