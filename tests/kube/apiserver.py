"""An HTTP API server for tests: list, watch, create, patch, apply, delete, status, pod logs, events, access reviews.

It keeps the protocol's corners that a client gets wrong: resource versions, 409 for a taken name, 410 for a forgotten
version, bookmarks, strict field validation against the real CRDs, finalizers and garbage collection. `faults` makes it
misbehave on purpose.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from tests.kube import crds
from tests.kube.store import Answer, Store, Thing, matches, merged

PATH = re.compile(
    r"^(?:/api/v1|/apis/(?P<group>[^/]+)/[^/]+)/namespaces/(?P<namespace>[^/]+)/(?P<resource>[a-z]+)"
    r"(?:/(?P<name>[^/]+)(?:/(?P<sub>[a-z]+))?)?$"
)
CHECKED = ("rayjobs", "inferenceservices", "servingruntimes")


@dataclass
class Fault:
    """The next `times` requests that match are answered so."""

    method: str = "GET"
    path: str = ""
    """Regular expression, searched in path and query."""
    times: int = 1
    status: int = 0
    """Answer with this HTTP status."""
    message: str = "made up by the test"
    text: str = ""
    """Answer with this text instead of a Status, as a proxy does."""
    retry_after: str = ""
    """The header Retry-After."""
    wait: float = 0.0
    """Seconds before the answer."""
    drop: bool = False
    """Close the connection without an answer; of a watch or a log after `after` lines, in the middle of the next."""
    after: int = 0


@dataclass
class Log:
    lines: list[tuple[str, str]] = field(default_factory=list)
    """RFC 3339 time with nanoseconds, text."""
    closed: bool = False


class Server:
    """Start with `running()`; `url`, `token`, and the state that tests set."""

    def __init__(self) -> None:
        crds.folder()  # in the test's thread, where a missing folder fails the test
        self.store = Store()
        self.faults: list[Fault] = []
        self.logs: dict[str, Log] = {}
        self.log_requests: list[dict[str, str]] = []
        self.requests: list[tuple[str, str]] = []
        self.accepted: list[str] = []
        """The header Accept of each request."""
        self.installed = {*CHECKED}
        self.forbidden: set[tuple[str, str]] = set()
        self.amnesia = 0.0
        """Time of the monotonic clock until which the caches of roles are empty: everything is 403."""
        self.quota: dict[str, int] = {}
        self.token = "right"
        self.stopping = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator["Server"]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.stopping.set()
            with self.store.changed:
                self.store.changed.notify_all()
            self._http.shutdown()
            self._http.server_close()
            thread.join()

    def kubeconfig(self, path: Path, *, namespace: str = "ml", token: str = "right") -> Path:
        """Writes the file that KUBECONFIG names."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": token}}],
        }
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def restart(self, seconds: float) -> None:
        """Come back with empty caches of roles: everything is forbidden during that time."""
        self.amnesia = time.monotonic() + seconds
        self.faults.append(Fault("GET", "watch=true", drop=True))

    def say(self, pod: str, text: str, stamp: str) -> None:
        """One more line of the pod's log."""
        with self.store.changed:
            self.logs.setdefault(pod, Log()).lines.append((stamp, text))
            self.store.changed.notify_all()

    def hush(self, pod: str) -> None:
        """The container has ended."""
        with self.store.changed:
            self.logs.setdefault(pod, Log()).closed = True
            self.store.changed.notify_all()

    def fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    """The handler class bound to one server."""
    return type("Handler", (Handler,), {"server_state": server})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for the client to acknowledge the head
    server_state: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        """Quiet."""

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server's names

    def _answer(self) -> None:
        state = self.server_state
        length = int(self.headers.get("Content-Length") or 0)
        self.body = json.loads(self.rfile.read(length)) if length else {}
        state.requests.append((self.command, self.path))
        state.accepted.append(self.headers.get("Accept", ""))
        fault = state.fault(self.command, self.path)
        if fault and fault.wait:
            state.stopping.wait(fault.wait)
        streams = "watch=true" in self.path or "/log?" in self.path
        if fault and fault.drop and not streams:
            self._break()
            return
        try:
            if fault and fault.text:
                self._text(fault.status, fault.text)
                return
            if fault and fault.status:
                raise Answer(fault.status, "Fault", fault.message, retry_after=fault.retry_after)
            self._route(fault.after if fault and fault.drop else -1)
        except Answer as answer:
            self._json(answer.code, answer.body, answer.retry_after)

    def _route(self, drop_after: int) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        state = self.server_state
        if self.headers.get("Authorization") != f"Bearer {state.token}":
            raise Answer(401, "Unauthorized", "Unauthorized")
        if time.monotonic() < state.amnesia:
            message = f'forbidden: User "test" cannot {self.command.lower()} path "{url.path}": RBAC: roles not found'
            raise Answer(403, "Forbidden", message)
        if url.path == "/version":
            return self._json(200, {"gitVersion": "v1.37.0-test"})
        if url.path.endswith("/selfsubjectaccessreviews"):
            asked = self.body["spec"]["resourceAttributes"]
            allowed = (asked["verb"], asked["resource"]) not in state.forbidden
            return self._json(201, {**self.body, "status": {"allowed": allowed}})
        match = PATH.match(url.path)
        if match is None or (match["group"] and match["resource"] not in state.installed):
            return self._text(404, "404 page not found\n")
        resource, namespace, name, sub = match["resource"], match["namespace"], match["name"], match["sub"] or ""
        verb = self._verb(name, query)
        if (verb, resource) in state.forbidden:
            message = f'{resource} is forbidden: User "test" cannot {verb} resource "{resource}"'
            raise Answer(403, "Forbidden", message)
        if sub == "log":
            return self._log(name, query, drop_after)
        if verb == "watch":
            return self._watch(resource, namespace, query, drop_after)
        return self._json(*self._do(verb, (resource, namespace, name or ""), sub, query))

    def _verb(self, name: str | None, query: dict[str, str]) -> str:
        if self.command == "GET":
            return "watch" if query.get("watch") else "get" if name else "list"
        return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[self.command]

    def _do(self, verb: str, key: tuple[str, str, str], sub: str, query: dict[str, str]) -> tuple[int, Thing]:
        store = self.server_state.store
        if verb == "list":
            items = store.select(key[0], key[1], query.get("labelSelector", ""), query.get("fieldSelector", ""))
            return 200, {"metadata": {"resourceVersion": str(store.version)}, "items": items}
        if verb == "get":
            return 200, store.get(key)
        if verb == "delete":
            return 200, store.delete(key)
        if verb == "create":
            key = (key[0], key[1], self.body["metadata"]["name"])
            self._admit(key[0], self.body, create=True)
            return 201, self.body if query.get("dryRun") == "All" else store.create(key, self.body)
        if self.headers["Content-Type"] == "application/apply-patch+yaml" and key not in store.things:
            self._admit(key[0], self.body, create=True)
            return (201, self.body) if "dryRun" in query else (201, store.create(key, self.body))
        new = self.body if verb == "update" else merged(store.get(key), self.body)
        if not sub:
            self._admit(key[0], new, create=False)
        if "dryRun" in query:
            return 200, new
        return 200, store.replace(key, new, status=sub == "status")

    def _admit(self, resource: str, thing: Thing, *, create: bool) -> None:
        """Schema and quota, as admission has them."""
        if resource in CHECKED:
            checked = {name: value for name, value in thing.items() if name != "status"}
            complaints = crds.problems(checked)
            unknown = [problem for problem in complaints if problem.endswith("unknown field")]
            if unknown:
                raise Answer(400, "BadRequest", f"strict decoding error: {'; '.join(unknown)}")
            if complaints:
                raise Answer(422, "Invalid", f"{thing['kind']} is invalid: {'; '.join(complaints)}")
        limits = [*self._quotas(f"count/{resource}.{thing['apiVersion'].partition('/')[0]}")]
        if resource in self.server_state.quota:
            limits.append(self.server_state.quota[resource])
        count = sum(1 for key in self.server_state.store.things if key[0] == resource)
        if create and limits and count >= min(limits):
            name = thing["metadata"]["name"]
            message = f'{resource} "{name}" is forbidden: exceeded quota: infill, requested: 1, used: {count}'
            raise Answer(403, "Forbidden", message)

    def _quotas(self, name: str) -> Iterator[int]:
        """The limits that ResourceQuotas set for the number of objects."""
        for key, quota in list(self.server_state.store.things.items()):
            if key[0] == "resourcequotas" and name in quota["spec"].get("hard", {}):
                yield int(quota["spec"]["hard"][name])

    def _watch(self, resource: str, namespace: str, query: dict[str, str], drop_after: int) -> None:
        store = self.server_state.store
        seen = int(query.get("resourceVersion") or store.version)
        until = time.monotonic() + float(query.get("timeoutSeconds", 30))
        self._start_stream()
        if seen < store.floor:
            gone = Answer(410, "Expired", f"too old resource version: {seen} ({store.floor})").body
            self._chunk(json.dumps({"type": "ERROR", "object": gone}) + "\n")
            return self._end_stream()
        sent = 0
        while True:
            with store.changed:
                if not [entry for entry in store.history if entry[0] > seen]:
                    store.changed.wait(max(0.0, min(0.5, until - time.monotonic())))
                news = [entry for entry in store.history if entry[0] > seen]
                seen = max([seen, *(entry[0] for entry in news)])
            for _, kind, key, thing in news:
                if key[:2] == (resource, namespace) and matches(thing, "", query.get("fieldSelector", "")):
                    if sent == drop_after:
                        self._chunk('{"type": "MODI', broken=True)
                        return None
                    self._chunk(json.dumps({"type": kind, "object": thing}) + "\n")
                    sent += 1
            if time.monotonic() >= until or self.server_state.stopping.is_set():
                mark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(seen)}}}
                self._chunk(json.dumps(mark) + "\n")
                return self._end_stream()

    def _log(self, pod: str, query: dict[str, str], drop_after: int) -> None:
        state = self.server_state
        state.log_requests.append(query)
        log, follows = state.logs.setdefault(pod, Log()), query.get("follow") == "true"
        self._start_stream()
        sent = index = 0
        while True:
            with state.store.changed:
                if index == len(log.lines) and not log.closed and follows:
                    state.store.changed.wait(0.5)
                news, closed = log.lines[index:], log.closed or not follows
                index += len(news)
            for stamp, text in news:
                if stamp[:19] + "Z" < query.get("sinceTime", ""):
                    continue
                if sent == drop_after:
                    self._chunk(f"{stamp} {text}"[:25], broken=True)
                    return None
                self._chunk(f"{stamp} {text}\n")
                sent += 1
            if (closed and index == len(log.lines)) or state.stopping.is_set():
                return self._end_stream()

    def _start_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def _chunk(self, text: str, *, broken: bool = False) -> None:
        data = text.encode()
        with suppress(OSError):  # the client is gone
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        if broken:
            self._break()

    def _end_stream(self) -> None:
        with suppress(OSError):
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()

    def _break(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _json(self, code: int, body: Thing, retry_after: str = "") -> None:
        self._text(code, json.dumps(body), "application/json", retry_after)

    def _text(self, code: int, text: str, kind: str = "text/plain", retry_after: str = "") -> None:
        data = text.encode()
        with suppress(OSError):
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            if retry_after:
                self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(data)
