"""A namespace to deploy to: the API server of the tests, KServe's part, the chart's objects, a real transformer."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from infill import manifest, prompt, storage
from infill.cluster.api import Api
from infill.config import DeployConfig, RegisterConfig
from infill.release import deploy, frame, registry, route
from infill.release.route import Route
from infill.stages import MODELS, call_of
from serving.predictor.transformers_engine import TransformersEngine
from tests.builders import once, run_stage
from tests.charts.bundle import helm
from tests.kube import namespace as namespaces
from tests.serving.conftest import engine, model, predicting, transforming
from tests.unit.cluster.conftest import api, server
from tests.unit.release import kserve, parts
from tests.unit.release.kserve import KServe

__all__ = ["Namespace", "Trained", "api", "engine", "model", "namespace", "server", "url"]

RELEASE = "infill"
CONFIG = DeployConfig(max_prompt_tokens=200, max_new_tokens=16, release=RELEASE)


@pytest.fixture(scope="session")
def url(model: Path, engine: TransformersEngine) -> Iterator[str]:
    """The transformer and the predictor of a tiny model: what every InferenceService of these tests answers with."""
    with predicting(model, engine) as predictor, transforming(model, predictor, max_prompt_tokens=200) as (front, _):
        yield front


@dataclass(frozen=True, kw_only=True)
class Namespace:
    """Reached through the API alone: on a real API server, too. A test that needs faults asks for `server`."""

    api: Api
    kserve: KServe

    @property
    def route(self) -> Route:
        return route.read(self.api, f"{RELEASE}-active")[0]

    @property
    def services(self) -> dict[str, str]:
        """InferenceService -> the URI of its model."""
        items = self.api.list("inferenceservices")["items"]
        return {each["metadata"]["name"]: each["metadata"]["annotations"][frame.URI] for each in items}

    @property
    def active(self) -> dict[str, Any]:
        """The InferenceService that serves."""
        service = self.api.get("inferenceservices", self.route.active)
        assert service is not None
        return service

    def limit(self, services: int) -> None:
        """Allow this many InferenceServices."""
        name = "count/inferenceservices.serving.kserve.io"
        namespaces.limit(self.api, {name: str(services)}, {name: str(len(self.services))})

    def change_frame(self, **changes: Any) -> None:
        """Upgrade the chart with other values."""
        stored = self.api.get("configmaps", f"{RELEASE}-deploy")
        assert stored is not None
        value = json.loads(stored["data"][frame.FILE]) | changes
        self.api.merge("configmaps", f"{RELEASE}-deploy", {"data": {frame.FILE: json.dumps(value)}})


@pytest.fixture
def namespace(api: Api, url: str) -> Iterator[Namespace]:
    """A namespace with the chart installed and KServe running; nothing is deployed yet."""
    with KServe(api, kserve.becomes_ready).running() as actor:
        namespace = Namespace(api=api, kserve=actor)
        for thing in helm("infill-serving", "auto-values"):
            if thing["kind"] in ("ConfigMap", "Service"):
                thing["metadata"].pop("namespace", None)
                api.create(f"{thing['kind'].lower()}s", thing)
        namespace.change_frame(url=url, ready_seconds=60, smoke_latency_ms=60_000)
        yield namespace


class Trained:
    """Three models of a run in an object store, all with the files of `model`, evaluated and put before the gate."""

    def __init__(self, folder: Path, model: Path, label: str, score: float = 0.5, *, canary: bool = False) -> None:
        store = f"memory://{folder.name}"
        self.models = {name: upload(model, f"{store}/{label}-{name}", folder) for name in MODELS}
        scores = dict(zip(MODELS, (0.1, score, 0.2), strict=True))
        self.evaluations = {
            name: parts.evaluation(folder / f"{label}-eval-{name}", uri, [scores[name]] * 20)
            for name, uri in self.models.items()
        }
        self.decision = str(folder / f"{label}-decision")
        examples = parts.model(folder / "examples")
        config = RegisterConfig(bootstrap=50, canary=canary)
        run_stage("register", config, examples, *self.models.values(), *self.evaluations.values(), output=self.decision)
        self.output = f"{store}/{label}-deploy"
        self.uri = self.models["sft"]

    def deploy(self) -> dict[str, float]:
        return run_stage("deploy", CONFIG, self.decision, output=self.output)

    def plan(self, config: DeployConfig = CONFIG) -> str:
        """What a dry run of the deployment prints."""
        return deploy.plan(call_of("deploy", config, {"decision": self.decision}, "", self.output))

    @property
    def tags(self) -> Mapping[str, str]:
        """What MLflow says about the winner."""
        version = registry.find("infill", manifest.digest_of(self.uri))
        assert version is not None
        return version.tags


def upload(model: Path, uri: str, scratch: Path) -> str:
    """A copy of the model at `uri` under a manifest of its own; the bytes of its weights differ by the URI."""
    copy = scratch / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    names = ("config.json", "model.safetensors", "tokenizer.json", prompt.FILE_NAME)
    copy.mkdir()
    for name in names:
        shutil.copy(model / name, copy)
    weights = copy / "model.safetensors"
    save_file(load_file(weights), weights, metadata={"format": "pt", "uri": uri})

    def body() -> Mapping[str, float]:
        storage.upload(copy, uri)
        return {}

    once(stage="sft", version=1, config=CONFIG, inputs={"label": uri}, output=uri, body=body)
    return uri
