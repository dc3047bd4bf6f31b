"""An HTTP server for tests that speaks the part of Kubeflow Pipelines' REST API (v2beta1) which we use.

Lists with filters, multipart uploads, runs whose states the test sets, terminate, recurring runs, pod logs, tokens.
`faults` makes it misbehave on purpose.
"""

import email.parser
import email.policy
import json
import re
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pipelines.pod_names import fnv
from tests.kube.apiserver import Fault
from tests.kube.store import Thing, now


class Refused(Exception):  # noqa: N818 - an HTTP answer
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Kfp:
    """The server's state; start it with `running()`."""

    token: str = ""
    """The token to ask for; empty lets everybody in."""
    pipelines: dict[str, Thing] = field(default_factory=dict)
    versions: dict[str, Thing] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    """The content of each uploaded file."""
    experiments: dict[str, Thing] = field(default_factory=dict)
    runs: dict[str, Thing] = field(default_factory=dict)
    recurring: dict[str, Thing] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    """Pod -> its log."""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    login_page: bool = False
    """Answer everything with HTML, as a proxy that asks for a password does."""
    url: str = ""

    @contextmanager
    def running(self) -> Iterator["Kfp"]:
        http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"kfp": self}))
        http.daemon_threads = True
        self.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            http.shutdown()
            http.server_close()
            thread.join()

    def set(self, run: str, state: str, **tasks: str) -> None:
        """The run's state and those of its tasks; KFP's own name of a task, with _ for -."""
        details = [_task(name.replace("_", "-"), task) for name, task in tasks.items()]
        self.runs[run] |= {"state": state, "run_details": {"task_details": details}}

    def nodes(self, run: str, state: str, children: Mapping[str, Sequence[str]]) -> None:
        """The run's tasks as nodes of its workflow: each path with the paths that follow.

        Like KFP's own, a task has the last part of its path, but neither its id nor its pod; its children are ids.
        """
        details = []
        for path, below in children.items():
            task = _task(path.rpartition(".")[2], state)
            workflow = path.partition(".")[0].partition("(")[0]
            details.append({**task, "child_tasks": [{"pod_name": f"{workflow}-{fnv(each)}"} for each in below]})
        self.runs[run] |= {"state": state, "run_details": {"task_details": details}}

    def fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    # -- The API ------------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Thing:
        table = (
            ("GET", r"/healthz", lambda: {"multi_user": False}),
            ("GET", r"/pipelines", lambda: _listed("pipelines", self.pipelines, query)),
            ("POST", r"/pipelines", lambda: _create(self.pipelines, "pipeline_id", body)),
            ("POST", r"/pipelines/upload_version", lambda: self._upload(query, body)),
            ("GET", r"/pipelines/([^/]+)/versions", lambda name: self._versions(name, query)),
            ("GET", r"/experiments", lambda: _listed("experiments", self.experiments, query)),
            ("POST", r"/experiments", lambda: _create(self.experiments, "experiment_id", body)),
            ("POST", r"/runs", lambda: self._run(body)),
            ("GET", r"/runs", lambda: self._runs(query)),
            ("GET", r"/recurringruns", lambda: self._recurring(query)),
            ("POST", r"/recurringruns", lambda: self._recur(body)),
            ("POST", r"/recurringruns/([^/:]+):(enable|disable)", self._switch),
            ("DELETE", r"/recurringruns/([^/:]+)", lambda name: _match(self.recurring, name) and self._forget(name)),
            ("GET", r"/runs/([^/:]+)", lambda name: _match(self.runs, name)),
            ("POST", r"/runs/([^/:]+):terminate", self._terminate),
        )
        for verb, pattern, call in table:
            match = re.fullmatch(f"/apis/v2beta1{pattern}", path)
            if verb == method and match:
                return dict(call(*match.groups()))
        raise Refused(404, f"Not Found: {path}")

    def _upload(self, query: dict[str, str], body: str) -> Thing:
        _match(self.pipelines, query["pipelineid"])
        self.uploads.append(body)
        if [each for each in self.versions.values() if each["display_name"] == query["name"]]:
            raise Refused(409, f"Already exist error: a pipeline version named {query['name']}")
        version = {"display_name": query["name"], "pipeline_id": query["pipelineid"]}
        return _create(self.versions, "pipeline_version_id", version)

    def _versions(self, pipeline: str, query: dict[str, str]) -> Thing:
        mine = {name: each for name, each in self.versions.items() if each["pipeline_id"] == pipeline}
        return _listed("pipeline_versions", mine, query)

    def _run(self, body: Thing) -> Thing:
        _match(self.versions, body["pipeline_version_reference"]["pipeline_version_id"])
        _match(self.experiments, body["experiment_id"])
        return _create(self.runs, "run_id", {**body, "state": "PENDING"})

    def _runs(self, query: dict[str, str]) -> Thing:
        assert query["sort_by"] == "created_at desc"
        mine = {name: run for name, run in self.runs.items() if run["experiment_id"] == query["experiment_id"]}
        return _listed("runs", dict(reversed(mine.items())), query)

    def _recurring(self, query: dict[str, str]) -> Thing:
        """In pages of two. The field of the answer is in camel case, unlike all others, as in KFP's own API."""
        experiment, start = query["experiment_id"], int(query.get("page_token", "0"))
        mine = {name: each for name, each in self.recurring.items() if each["experiment_id"] == experiment}
        answer = _listed("recurringRuns", mine, query)
        page = answer.get("recurringRuns", [])[start : start + 2]
        more = {"next_page_token": str(start + 2)} if start + 2 < answer.get("total_size", 0) else {}
        return {**answer, "recurringRuns": page, **more}

    def _recur(self, body: Thing) -> Thing:
        _match(self.versions, body["pipeline_version_reference"]["pipeline_version_id"])
        _match(self.experiments, body["experiment_id"])
        cron = body["trigger"].get("cron_schedule", {}).get("cron", "0 0 0 1 1 ?")
        if len(cron.split()) != 6 or "99" in cron.split():
            raise Refused(400, f"Invalid input error: Schedule cron is not a valid cron expression: {cron}")
        return _create(self.recurring, "recurring_run_id", {**body, "status": f"{body['mode']}D"})

    def _switch(self, name: str, verb: str) -> Thing:
        _match(self.recurring, name)["status"] = f"{verb.upper()}D"
        return {}

    def _forget(self, name: str) -> Thing:
        del self.recurring[name]
        return {}

    def _terminate(self, name: str) -> Thing:
        if _match(self.runs, name)["state"] in ("SUCCEEDED", "FAILED", "CANCELED"):
            raise Refused(400, f"Failed to terminate a run: Failed to terminate a run {name}. Row not found")
        _match(self.runs, name)["state"] = "CANCELING"
        return {}


def _task(name: str, state: str) -> Thing:
    identity = f"task-{name}"
    started = {"start_time": "2026-11-22T20:00:00Z"} if state != "PENDING" else {"start_time": "1970-01-01T00:00:00Z"}
    ended = {"end_time": "2026-11-22T20:01:05Z"} if state not in ("PENDING", "RUNNING") else {}
    return {"task_id": identity, "display_name": name, "state": state, "create_time": now(), **started, **ended}


def _create(things: dict[str, Thing], key: str, body: Thing) -> Thing:
    identity = str(uuid.uuid4())
    things[identity] = {**body, key: identity, "created_at": now()}
    return things[identity]


def _match(things: dict[str, Thing], name: str) -> Thing:
    if name not in things:
        raise Refused(404, f"ResourceNotFoundError: {name} not found")
    return things[name]


def _listed(name: str, things: dict[str, Thing], query: dict[str, str]) -> Thing:
    entries = list(things.values())
    for predicate in json.loads(query.get("filter", "{}")).get("predicates", ()):
        assert predicate["operation"] == "EQUALS"
        entries = [each for each in entries if each.get(predicate["key"]) == predicate["stringValue"]]
    return {name: entries[: int(query.get("page_size", 10))], "total_size": len(entries)} if entries else {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for the client to acknowledge the head
    kfp: Kfp

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.kfp.requests.append((self.command, self.path))
        fault = self.kfp.fault(self.command, self.path)
        if fault and fault.wait:
            threading.Event().wait(fault.wait)
        if fault and fault.drop:
            self.close_connection = True
            return None
        try:
            if self.kfp.login_page:
                return self._send(200, b"<html>Please log in</html>", "text/html")
            if self.kfp.token and self.headers.get("Authorization") != f"Bearer {self.kfp.token}":
                raise Refused(401, "Unauthorized")
            if fault and fault.status:
                raise Refused(fault.status, "made up by the test")
            if pod := re.fullmatch(r"/apis/v1alpha1/runs/[^/]+/nodes/([^/]+)/log", url.path):
                if pod[1] not in self.kfp.logs:  # KFP has sent the status when it looks for the log
                    error = {"error_message": f"pods {pod[1]} not found", "error_details": "BadRequestError"}
                    return self._send(200, json.dumps(error, separators=(",", ":")).encode(), "text/plain")
                return self._send(200, self.kfp.logs[pod[1]].encode(), "text/plain")
            answer = self.kfp.answer(self.command, url.path, dict(parse_qsl(url.query)), self._body(data))
            return self._send(200, json.dumps(answer).encode())
        except Refused as refused:
            return self._send(refused.code, json.dumps({"message": str(refused), "code": 5}).encode())

    do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's names

    def _body(self, data: bytes) -> Any:
        """JSON, or the content of the one file of a multipart body."""
        kind = self.headers.get("Content-Type", "")
        if not kind.startswith("multipart/"):
            return json.loads(data) if data else {}
        head = f"Content-Type: {kind}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.default).parsebytes(head + data)
        (part,) = message.iter_parts()
        assert part.get_param("name", header="content-disposition") == "uploadfile"
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        return payload.decode()

    def _send(self, code: int, data: bytes, kind: str = "application/json") -> None:
        with suppress(OSError):
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
