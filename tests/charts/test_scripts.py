"""Scripts and Dockerfiles: clean for their linters, and every command of the kind scripts printed by a dry run."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy.kind import check
from infill.cluster.api import Api
from infill.cluster.job import StageJob, build
from infill.cluster.sizing import RAY_STAGES
from tests.charts.bundle import ROOT, render
from tests.kube.apiserver import Server
from tests.unit.cluster.conftest import api, job, kuberay, server
from tests.unit.cluster.kuberay import KubeRay

__all__ = ["api", "job", "kuberay", "server"]

BIN = Path(sys.executable).parent
SCRIPTS = sorted(path for folder in ("deploy/kind", "images") for path in (ROOT / folder).glob("*.sh"))
DOCKERFILES = sorted((ROOT / "images").glob("*.Dockerfile"))


def test_shellcheck_is_content() -> None:
    done = subprocess.run([BIN / "shellcheck", "-x", *SCRIPTS], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


def test_hadolint_is_content() -> None:
    assert len(DOCKERFILES) == 4
    done = subprocess.run([BIN / "hadolint", *DOCKERFILES], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_multi_stage_locked_and_without_root(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\nFROM ${BASE_IMAGE}") == 2
    assert "PIP_NO_INDEX=1" in text
    assert "--constraint" in text
    assert "USER 1000:1000" in text
    assert "org.opencontainers.image.revision" in text


@pytest.mark.parametrize("script", ["up.sh", "test.sh", "down.sh"])
def test_kind_scripts_print_what_they_would_do(script: str) -> None:
    done = subprocess.run(
        [ROOT / "deploy/kind" / script], env=os.environ | {"DRY_RUN": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "+ " in done.stderr


def test_every_version_stands_in_one_file() -> None:
    text = (ROOT / "deploy/kind/versions.env").read_text(encoding="utf-8")
    names = [line.partition("=")[0] for line in text.splitlines() if "=" in line]
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "deploy/kind").glob("*.sh"))
    assert [name for name in names if f"${name}" not in scripts] == []
    assert "https://" not in scripts


# -- The assertions, against the API server of the tests ---------------------------------------------------------------


def test_rayjobs_that_failed_or_are_missing_are_told(server: Server, api: Api, kuberay: KubeRay, job: StageJob) -> None:
    jobs = {stage: replace(job, stage=stage) for stage in RAY_STAGES}
    for each in jobs.values():
        api.create("rayjobs", build(each))
        kuberay.status(each.name, "Complete", "SUCCEEDED")
    assert list(check.rayjobs(api)) == []
    kuberay.status(jobs["dpo"].name, "Failed", "FAILED")
    kuberay.pod(jobs["dpo"].name, "worker", "worker")
    api.delete("rayjobs", jobs["corpus"].name)
    found = "\n".join(check.rayjobs(api))
    assert "stage corpus: no RayJob" in found
    assert jobs["dpo"].name in found
    assert "pod worker of a Ray cluster still runs" in found
    assert found.count("\n") == 2


def test_an_inferenceservice_is_ready_or_told(server: Server, api: Api) -> None:
    assert "does not exist" in next(check.inferenceservice(api, "infill"))
    (body,) = render("infill-serving", "vllm-values").of("InferenceService")
    api.create("inferenceservices", body)
    assert "not ready" in next(check.inferenceservice(api, "infill"))
    path = f"/apis/serving.kserve.io/v1beta1/namespaces/{api.namespace}/inferenceservices/infill/status"
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    api._request("PATCH", path, body=ready, content="application/merge-patch+json")
    assert list(check.inferenceservice(api, "infill")) == []


@pytest.fixture
def answers() -> Iterator[tuple[str, dict[str, object]]]:
    """A server that answers each path with what the test puts into the dictionary."""
    given: dict[str, object] = {}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = given.get(self.path.partition("?")[0])
            self.send_response(200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            """Quiet."""

    http = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}", given
    http.shutdown()
    http.server_close()
    thread.join()


def test_completions_and_models_are_looked_at(answers: tuple[str, dict[str, object]]) -> None:
    url, given = answers
    given["/v1/completions"] = {"choices": [{"text": "width * height"}]}
    assert "not the transformer's" in next(check.completion(url))
    given["/v1/completions"] = {"choices": [{"text": "width * height"}], "infill": {}}
    assert list(check.completion(url)) == []
    given["/api/2.0/mlflow/experiments/search"] = {"experiments": [{"name": "Default"}]}
    assert len(list(check.mlflow(url, "infill"))) == 2
    given["/api/2.0/mlflow/experiments/search"] = {"experiments": [{"name": "infill"}]}
    given["/api/2.0/mlflow/registered-models/get"] = {"registered_model": {"aliases": [{"alias": "candidate"}]}}
    assert "no champion" in next(check.mlflow(url, "infill"))
    given["/api/2.0/mlflow/registered-models/get"] = {"registered_model": {"aliases": [{"alias": "champion"}]}}
    assert list(check.mlflow(url, "infill")) == []


def test_assertions_wait_and_then_tell(server: Server, api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["assert", "--wait", "0"]) == 1
    assert "InferenceService infill does not exist" in capsys.readouterr().out
    server.token = "another"
    assert check.main(["assert", "--wait", "0"]) == 1
    assert "refuses our token" in capsys.readouterr().err
