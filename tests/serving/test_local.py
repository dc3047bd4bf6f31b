"""`infill serve`: both processes with KServe in front, and that nothing remains however it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from infill import machine, manifest, storage
from infill.errors import InputError, ServiceError
from infill.prompt import load_format
from serving import local
from serving.client import complete
from tests.builders import tiny_model
from tests.serving.conftest import HTTP, figure, wait_until

ROOT = str(Path(__file__).resolve().parents[2])
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests are a shell's background job it is ignored
from infill.errors import InfillError
from serving.local import serve
try:
    serve(sys.argv[1], port=int(sys.argv[2]))
except InfillError as error:
    sys.exit(f"infill: {error}")
"""


PROXIED = os.environ | dict.fromkeys(("http_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
"""Nobody listens at the proxy: requests to this machine must not take it."""


@contextmanager
def served(model: str, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process of `serve`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, model, str(port)], stdout=output, stderr=output, cwd=ROOT, env=PROXIED
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any, Path]]:
    """Base URL, process and log of a deployment that is served; the last test of the module ends it."""
    folder = tmp_path_factory.mktemp("served")
    record = {"model_uri": str(model), "prompt_format_hash": load_format(model).hash, "max_prompt_tokens": 512}
    record |= {"model_digest": manifest.digest_of(str(model)), "max_new_tokens": 32}
    storage.write_json(str(folder / "deployment.json"), record)
    port = local.free_port()
    with served(str(folder), port, folder / "log") as process:
        wait_until(lambda: "infill: ready at" in (folder / "log").read_text() or process.poll() is not None, 120)
        assert process.poll() is None, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}", process, folder / "log"


def test_kserve_gives_health_readiness_metrics_and_models(server: tuple[str, Any, Path]) -> None:
    url, _, log = server
    assert f"ready at {url}/v1/completions" in log.read_text()
    assert HTTP.get(f"{url}/v2/health/live").json() == {"live": True}
    assert HTTP.get(f"{url}/v2/health/ready").json() == {"ready": True}
    assert HTTP.get(f"{url}/v1/models/infill").json() == {"name": "infill", "ready": True}
    assert HTTP.get(f"{url}/v1/models").json()["data"][0]["id"] == "infill"
    response = HTTP.post(f"{url}/v1/models/infill:predict", json={"instances": [1]})
    assert response.status_code == 400
    assert "/v1/completions" in response.json()["error"]


def test_the_openai_package_works_whole_and_streaming(server: tuple[str, Any, Path]) -> None:
    url, _, _ = server
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        fields: dict[str, Any] = {"prompt": "def f(", "suffix": "\n", "max_tokens": 6, "temperature": 0}
        extra = {"path": "a.py", "context": [{"path": "b.py", "text": "def f(x): ...\n"}], "ignore_eos": True}
        whole = client.completions.create(model="infill", extra_body=extra, **fields)
        chunks = list(client.completions.create(model="infill", extra_body=extra, stream=True, **fields))
        assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 6
    assert figure(url, "infill_transformer_context_items_total") >= 1
    assert figure(url, 'infill_transformer_completion_cache_lookups_total{result="same"}') == 1


def test_errors_of_ours_and_of_unknown_paths_are_json(server: tuple[str, Any, Path]) -> None:
    url, _, _ = server
    response = HTTP.post(f"{url}/v1/completions", content=b"{")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")
    assert HTTP.post(f"{url}/v1/chat/completions", json={}).status_code == 404
    assert HTTP.get(f"{url}/v1/completions").status_code == 405


def test_complete_asks_with_the_files_of_the_project(server: tuple[str, Any, Path], tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from b import beta\n\nvalue = be\n")
    (tmp_path / "b.py").write_text("def beta():\n    return 1\n")
    answer = complete(server[0], str(tmp_path), "a.py", 3, 11, max_tokens=4)
    assert set(answer) == {"text", "latency_ms", "prompt_tokens", "context"}
    assert answer["prompt_tokens"] <= 512
    assert [item["path"] for item in answer["context"]] == ["b.py"]
    assert set(answer["context"][0]) == {"path", "lines", "score", "strategy"}


@pytest.mark.long
def test_a_candidate_answers_its_share_of_the_users(model: Path) -> None:
    weight = ("--canary_weight", "50")
    with local.servers(str(model), candidate=str(model), transformer=weight, timeout_s=120) as (_, front, candidate):
        wait_until(lambda: figure(front.url, "infill_canary_ready") == 1.0)
        fields = {"prompt": "def f(", "max_tokens": 2}
        names = [
            HTTP.post(f"{front.url}/v1/completions", json=fields | {"session": f"user {number}"}).json()["model"]
            for number in range(12)
        ]
        assert set(names) == {"infill", "candidate"}
        candidate.process.kill()
        wait_until(lambda: candidate.process.poll() is not None)
        fields |= {"max_tokens": 3, "session": f"user {names.index('candidate')}"}
        assert HTTP.post(f"{front.url}/v1/completions", json=fields).json()["model"] == "infill"


def test_when_the_predictor_dies_the_transformer_is_stopped_and_it_is_said(server: tuple[str, Any, Path]) -> None:
    url, process, log = server
    family = children(process)
    victim = next(each for each in family if "serving.predictor" in each.cmdline())
    victim.kill()
    assert process.wait(20) == 1
    assert "infill: the predictor has ended with exit code -9" in log.read_text()
    wait_until(lambda: gone(family))
    with pytest.raises(httpx.TransportError):
        HTTP.get(f"{url}/v2/health/live")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_whatever_ends_it_nothing_remains(model: Path, tmp_path: Path, number: signal.Signals) -> None:
    with served(str(model), local.free_port(), tmp_path / "log") as process:
        wait_until(lambda: process.poll() is not None or len(children(process)) == 2)
        family = children(process)
        time.sleep(1)  # the servers have begun to import
        os.kill(process.pid, number)
        assert process.wait(20) == (-9 if number == signal.SIGKILL else 0)
        wait_until(lambda: gone(family))


def test_a_server_that_cannot_begin_says_why(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no deployment record"):
        local.resolve(str(tmp_path / "deployment.json"))
    storage.write_json(str(tmp_path / "deployment.json"), {"model": 1})
    with pytest.raises(InputError, match="names no model_uri"):
        local.resolve(str(tmp_path))
    with pytest.raises(InputError, match="nothing at"), local.running(str(tmp_path / "none")):
        pass
    said = re.compile("predictor has ended .* device 'tpu'", re.DOTALL)
    with pytest.raises(ServiceError, match=said), local.servers(str(model), predictor=["--device", "tpu"]):
        pass


def test_a_cpu_limits_the_prompts_of_a_model_without_a_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tiny_model(tmp_path / "long", context_length=4 * local.CPU_PROMPT_TOKENS)
    short = tiny_model(tmp_path / "short", context_length=local.CPU_PROMPT_TOKENS)
    record = {"model_uri": str(long), "max_prompt_tokens": 2_000, "max_new_tokens": 8}
    storage.write_json(str(tmp_path / "deployment.json"), record)
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    assert [local.cpu_budget(str(each)) for each in (long, short, tmp_path)] == [local.CPU_PROMPT_TOKENS, 0, 0]
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    assert local.cpu_budget(str(long)) == 0
    with pytest.raises(InputError, match="do not fit the context"), local.servers(str(long), max_prompt_tokens=5_000):
        pass


def test_a_port_that_is_taken_is_said(model: Path) -> None:
    port = local.free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(ServiceError, match="choose another --port"), local.servers(str(model), port=port):
            pass


def test_a_server_that_does_not_get_ready_in_time_is_stopped(model: Path) -> None:
    with pytest.raises(ServiceError, match=r"was not ready within 0\.5 s"), local.servers(str(model), timeout_s=0.5):
        pass
