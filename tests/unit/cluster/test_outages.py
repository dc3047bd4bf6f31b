"""What an API server answers around a restart passes; what it means is reported. Over HTTP and over TLS."""

import io
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from infill.cluster.api import Api, ClusterApiError, ClusterRefusedError, connect
from infill.cluster.failure import JobFailedError
from infill.cluster.lifecycle import launch, sweep
from infill.cluster.stage_job import StageJob, build
from infill.errors import InfillError, InputError
from tests.kube.apiserver import Fault, Server
from tests.unit.cluster.conftest import QUICK
from tests.unit.cluster.kuberay import KubeRay
from tests.unit.cluster.test_lifecycle import meanwhile, started

PATIENT = replace(QUICK, grace=5.0, outage=10.0)

# -- Answers that pass -------------------------------------------------------------------------------------------------

RBAC = 'rayjobs.ray.io is forbidden: User "system:serviceaccount:ml:step" cannot list resource "rayjobs"'
PASSING = {
    "roles not loaded": Fault(status=403, message=RBAC, times=2),
    "no reason": Fault(status=403, message="", times=2),
    "token not checked": Fault(status=401, message="Unauthorized", times=2),
    "admission not ready": Fault(status=403, message="pods is forbidden: not yet ready to handle request"),
    "quota not read": Fault(status=403, message="forbidden: status unknown for quota: team, resources: pods"),
    "resource not installed": Fault(status=404, text="404 page not found\n", times=2),
    "too many requests": Fault(status=429, message="the server has received too many requests"),
    "leader changed": Fault(status=500, message="etcdserver: leader changed"),
    "webhook restarts": Fault(status=500, message='failed calling webhook "x": connection refused'),
    "bad gateway": Fault(status=502, text="<html>502 Bad Gateway</html>"),
    "unavailable": Fault(status=503, message="apiserver is shutting down"),
    "timeout": Fault(status=504, message="the request did not complete within the allotted timeout"),
    "reset": Fault(drop=True, times=2),
    "a page instead of JSON": Fault(status=200, text="<html>please wait</html>"),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
def test_what_a_restarting_server_answers_passes(
    server: Server, api: Api, job: StageJob, fault: Fault, method: str
) -> None:
    api = replace(api, grace=5.0, outage=5.0)
    api.create("rayjobs", build(job))
    server.faults.append(replace(fault, method=method, path="rayjobs"))
    requests: dict[str, Callable[[], object]] = {
        "GET": lambda: api.get("rayjobs", job.name),
        "POST": lambda: api.create("rayjobs", build(replace(job, stage="dpo"))),
        "PATCH": lambda: api.merge("rayjobs", job.name, {"metadata": {"labels": {"a": "b"}}}),
        "DELETE": lambda: api.delete("rayjobs", job.name),
    }
    requests[method]()
    assert server.faults[-1].times == 0


def test_a_server_says_when_to_come_back(server: Server, api: Api) -> None:
    server.faults.append(Fault("GET", "rayjobs", status=429, retry_after="1"))
    began = time.monotonic()
    replace(api, outage=5.0).list("rayjobs")
    assert time.monotonic() - began >= 1.0


LASTING = {
    "a right that is missing": (Fault(status=403, message=RBAC), "not allowed to GET rayjobs in namespace ml"),
    "a token that is wrong": (Fault(status=401, message="Unauthorized"), "rejects our token"),
    "an overload": (Fault(status=429, message="slow down"), r"unavailable for \d+ s: .*slow down"),
    "no answer": (Fault(drop=True), r"unavailable for \d+ s: .*does not answer"),
    "an operator that is gone": (Fault(status=404, text="404 page not found\n"), "install KubeRay"),
}


@pytest.mark.parametrize(("fault", "sentence"), LASTING.values(), ids=LASTING)
def test_what_does_not_pass_in_time_is_reported(server: Server, api: Api, fault: Fault, sentence: str) -> None:
    api.list("rayjobs")
    server.faults.append(replace(fault, path="rayjobs", times=1_000))
    began = time.monotonic()
    with pytest.raises(ClusterApiError, match=sentence):
        replace(api, grace=0.6, outage=0.6).list("rayjobs")
    assert 0.5 < time.monotonic() - began < 5


FINAL = {
    "terminating": (
        403,
        'rayjobs.ray.io "x" is forbidden: unable to create new content in namespace ml because it is being terminated',
        "namespace ml is being deleted: create it again",
    ),
    "admission": (403, 'admission webhook "policy" denied the request: no', 'answered 403 .*webhook "policy" denied'),
    "invalid": (422, "RayJob is invalid: spec.x", "answered 422 .*RayJob is invalid"),
}


@pytest.mark.parametrize(("status", "message", "sentence"), FINAL.values(), ids=FINAL)
def test_what_never_passes_is_reported_at_once(
    server: Server, api: Api, job: StageJob, status: int, message: str, sentence: str
) -> None:
    api.list("rayjobs")
    server.faults.append(Fault("POST", "rayjobs", status=status, message=message, times=2))
    with pytest.raises(ClusterRefusedError, match=sentence):
        replace(api, grace=60.0, outage=60.0).create("rayjobs", build(job))
    assert server.faults[-1].times == 1


# -- Restarts in the middle of the work --------------------------------------------------------------------------------


def test_a_process_that_starts_during_a_restart_waits(server: Server, api: Api) -> None:
    server.restart(1.0)
    assert replace(api, grace=5.0).list("rayjobs")["items"] == []


def test_a_first_refusal_of_a_server_that_runs_is_reported_at_once(server: Server, api: Api) -> None:
    server.forbidden.add(("list", "rayjobs"))
    began = time.monotonic()
    with pytest.raises(ClusterRefusedError, match="not allowed"):
        replace(api, grace=60.0).list("rayjobs")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("state", ["Initializing", "Running"])
def test_a_launch_survives_a_restart(server: Server, api: Api, kuberay: KubeRay, job: StageJob, state: str) -> None:
    lines = [f"line {number}" for number in range(6)]

    def operator() -> None:
        started(api, job)
        kuberay.pod(job.name, "submitter", "submitter")
        kuberay.status(job.name, state, "RUNNING" if state == "Running" else "")
        for line in lines[:3]:
            server.say("submitter", line, "2026-11-22T20:00:00.000000001Z")
        time.sleep(0.5)
        server.faults.append(Fault("GET", "/log", drop=True))
        server.restart(1.5)
        for line in lines[3:]:
            server.say("submitter", line, "2026-11-22T20:00:01.000000001Z")
        time.sleep(1.6)
        server.hush("submitter")
        kuberay.pod_status("submitter", phase="Succeeded")
        kuberay.status(job.name, "Complete", "SUCCEEDED")

    out = io.StringIO()
    with meanwhile(operator):
        launch(api, job, out=out, patience=PATIENT)
    assert [line for line in out.getvalue().splitlines() if line.startswith("line")] == lines


def test_a_log_that_was_forbidden_for_a_while_is_read_in_the_end(
    server: Server, api: Api, kuberay: KubeRay, job: StageJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infill.cluster import logs

    monkeypatch.setattr(logs, "REFUSED_PAUSE", 0.2)
    api.create("rayjobs", build(job))
    kuberay.pod(job.name, "submitter", "submitter", "Succeeded")
    server.say("submitter", "at last", "2026-11-22T20:00:00.000000001Z")
    server.hush("submitter")
    server.forbidden.add(("list", "pods"))
    out = io.StringIO()
    tail = logs.LogTail(replace(api, grace=0.1), job.name, out, pause=0.05)
    tail.start()
    for _ in range(100):
        if "cannot be read at the moment" in out.getvalue():
            break
        time.sleep(0.05)
    server.forbidden.clear()
    for _ in range(100):
        if "at last" in out.getvalue():
            break
        time.sleep(0.05)
    tail.finish(3.0)
    assert out.getvalue().count("cannot be read at the moment") == 1
    assert out.getvalue().endswith("at last\n")


def test_sweep_survives_a_restart(server: Server, api: Api, job: StageJob) -> None:
    api.create("rayjobs", build(job))
    server.restart(1.0)
    assert sweep(api, job.run) == [job.name]


def test_an_outage_without_end_says_that_the_job_lives_on(
    server: Server, api: Api, kuberay: KubeRay, job: StageJob
) -> None:
    def end() -> None:
        started(api, job)
        server.faults.append(Fault("GET", "", times=10_000, status=503))

    with pytest.raises(ClusterApiError) as caught, meanwhile(end):
        launch(api, job, out=io.StringIO(), patience=replace(QUICK, outage=1.0))
    assert f"RayJob {job.name} may still run: retry this step" in str(caught.value)
    assert f"kubectl delete rayjob {job.name} --namespace ml" in str(caught.value)


@pytest.mark.parametrize("policy", ["delete", "suspend", "leave"])
def test_sigterm_during_an_outage_ends_with_143_and_names_the_job(
    server: Server, api: Api, job: StageJob, policy: str
) -> None:
    def stop() -> None:
        started(api, job)
        time.sleep(0.3)
        server.faults += [Fault(method, "", times=10_000, drop=True) for method in ("GET", "PATCH", "DELETE")]
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    out = io.StringIO()
    with pytest.raises(SystemExit) as caught, meanwhile(stop):
        launch(api, job, on_stop=policy, out=out, patience=replace(QUICK, outage=60.0, stop=1.0))
    assert caught.value.code == 143
    remedy = f"end it with `kubectl delete rayjob {job.name} --namespace ml`"
    assert f"RayJob {job.name} keeps running; {remedy}" in out.getvalue()


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, 'strict decoding error: unknown field "spec.submitterConfig"', 26),
        (422, "RayJob.ray.io is invalid: spec.x: Required value", 26),
        (403, 'admission webhook "vrayjob.kb.io" denied the request: spec.entrypoint', 26),
        (403, 'rayjobs.ray.io "x" is forbidden: exceeded quota: team, requested: count/rayjobs.ray.io=1', 22),
    ],
)
def test_a_job_that_is_refused_has_its_exit_code(
    server: Server, api: Api, job: StageJob, status: int, message: str, code: int
) -> None:
    server.faults.append(Fault("POST", "rayjobs", status=status, message=message))
    with pytest.raises(JobFailedError) as caught:
        launch(api, job, patience=QUICK)
    assert caught.value.exit_code == code
    assert message in str(caught.value)


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities for 127.0.0.1 that do not know each other: `right` and `wrong`, each its own server."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("right", "wrong"):
        words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -addext subjectAltName=IP:127.0.0.1"
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt")]
        subprocess.run(["openssl", *words.split(), *files], check=True, capture_output=True)
    return folder


@contextmanager
def front(server: Server, certificates: Path, cut: int) -> Iterator[int]:
    """A TLS port before the API server that cuts the first `cut` connections during their handshakes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "right.crt", certificates / "right.key")
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = server.url.removeprefix("http://").split(":")

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65_536):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            sink.close()

    def accept() -> None:
        left = cut
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            if left:
                left -= 1
                raw.recv(64)
                raw.close()
                continue
            try:
                client = context.wrap_socket(raw, server_side=True)
            except OSError:
                continue
            behind = socket.create_connection((host, int(port)))
            for pair in ((client, behind), (behind, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def trusting(path: Path, port: int, authority: Path) -> str:
    """A kubeconfig for the TLS port."""
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(authority)}
    context = {"cluster": "c", "user": "u", "namespace": "ml"}
    content = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": context}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": "right"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_handshakes_that_are_cut_pass(
    server: Server, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with front(server, certificates, cut=3) as port:
        monkeypatch.setenv("KUBECONFIG", trusting(tmp_path / "config", port, certificates / "right.crt"))
        assert connect().list("rayjobs")["items"] == []


def test_a_wrong_authority_is_reported_at_once(
    server: Server, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with front(server, certificates, cut=0) as port:
        monkeypatch.setenv("KUBECONFIG", trusting(tmp_path / "config", port, certificates / "wrong.crt"))
        began = time.monotonic()
        with pytest.raises(
            ClusterApiError, match=r"is not trusted \(.*certificate.*\): check certificate-authority"
        ) as raised:
            connect().list("rayjobs")
        assert time.monotonic() - began < 5
        assert "\n" not in str(raised.value)


# -- Kubeconfigs -------------------------------------------------------------------------------------------------------


def exec_plugin(tmp_path: Path, script: str) -> bytes:
    """A kubeconfig whose user's credentials come from a command."""
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": ["-c", script]}
    text = Path(trusting(tmp_path / "plain", 9, Path("/etc/hostname"))).read_text()
    content = yaml.safe_load(text)
    content["clusters"][0]["cluster"].pop("certificate-authority")
    content["users"] = [{"name": "u", "user": {"exec": command}}]
    return yaml.safe_dump(content).encode()


CONFIGS: dict[str, Callable[[Path], bytes]] = {
    "not YAML": lambda _: b"clusters: [",
    "a list": lambda _: b"- a\n- b\n",
    "a text": lambda _: b"hello",
    "a number": lambda _: b"7",
    "empty": lambda _: b"",
    "binary": lambda _: bytes(range(256)),
    "UTF-16": lambda _: "clusters: []".encode("utf-16"),
    "no context": lambda _: b"apiVersion: v1\nclusters: []\nusers: []\ncontexts: []\n",
    "wrong types": lambda _: b"current-context: x\ncontexts: 3\nclusters: 4\nusers: 5\n",
    "a context without a cluster": lambda _: (
        b"current-context: x\ncontexts: [{name: x, context: {cluster: c, user: u}}]\nclusters: []\nusers: []\n"
    ),
    "a plugin that fails": lambda path: exec_plugin(path, "import sys; sys.exit('please log in')"),
    "a plugin that prints nonsense": lambda path: exec_plugin(path, "print('hello')"),
    "a plugin without a token": lambda path: exec_plugin(
        path, 'print(\'{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {}}\')'
    ),
}


@pytest.mark.parametrize("content", CONFIGS.values(), ids=CONFIGS)
def test_a_kubeconfig_that_cannot_be_used_is_one_sentence(
    content: Callable[[Path], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config"
    path.write_bytes(content(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(InputError) as raised:
        connect()
    assert "\n" not in str(raised.value)
    assert "KUBECONFIG" in str(raised.value) or "exec section" in str(raised.value)


def test_a_folder_as_kubeconfig_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path))
    with pytest.raises(InfillError) as raised:
        connect()
    assert "\n" not in str(raised.value)
