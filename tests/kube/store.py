"""The memory of the API server: resource versions, a history for watches, owner references, finalizers."""

import copy
import itertools
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Thing = dict[str, Any]
Key = tuple[str, str, str]
"""Resource, namespace, name."""
EPOCH = datetime.fromtimestamp(0, UTC)


class Answer(Exception):  # noqa: N818 - an HTTP answer, most of which are errors
    """An answer other than 200, as a metav1.Status."""

    def __init__(self, code: int, reason: str, message: str, *, retry_after: str = "", **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": reason,
            "message": message,
            "details": details,
            "code": code,
        }


def now_seconds() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def text_of(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def now() -> str:
    return text_of(now_seconds())


def merged(old: Any, change: Any) -> Any:
    """JSON merge patch (RFC 7396)."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    result = dict(old) if isinstance(old, dict) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


@dataclass
class Store:
    things: dict[Key, Thing] = field(default_factory=dict)
    history: list[tuple[int, str, Key, Thing]] = field(default_factory=list)
    floor: int = 0
    """Watches from an older version are 410 Gone."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    _versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    version: int = 0
    last: datetime = EPOCH

    def record(self, kind: str, key: Key, thing: Thing) -> Thing:
        """Stores the change; the caller holds `changed`."""
        self.version = next(self._versions)
        thing["metadata"]["resourceVersion"] = str(self.version)
        if kind == "DELETED":
            self.things.pop(key, None)
        else:
            self.things[key] = thing
        self.history.append((self.version, kind, key, copy.deepcopy(thing)))
        self.changed.notify_all()
        return copy.deepcopy(thing)

    def next_second(self) -> str:
        """The time, but a later second than at the last call: real deployments do not follow in the same one."""
        self.last = max(now_seconds(), self.last + timedelta(seconds=1))
        return text_of(self.last)

    def get(self, key: Key) -> Thing:
        if key not in self.things:
            raise Answer(404, "NotFound", f'{key[0]} "{key[2]}" not found', name=key[2], kind=key[0])
        return self.things[key]

    def create(self, key: Key, thing: Thing) -> Thing:
        with self.changed:
            if key in self.things:
                raise Answer(409, "AlreadyExists", f'{key[0]} "{key[2]}" already exists', name=key[2])
            thing = copy.deepcopy(thing)
            thing.pop("status", None) if key[0] not in ("pods", "events") else None
            meta = thing["metadata"]
            created = self.next_second() if key[0] == "inferenceservices" else now()
            meta |= {"namespace": key[1], "uid": str(uuid.uuid4()), "creationTimestamp": created, "generation": 1}
            return self.record("ADDED", key, thing)

    def replace(self, key: Key, thing: Thing, *, status: bool) -> Thing:
        """The status alone, or all but the status; a stale resourceVersion is a conflict."""
        with self.changed:
            old = self.get(key)
            wanted = thing["metadata"].get("resourceVersion")
            if wanted not in (None, old["metadata"]["resourceVersion"]):
                raise Answer(409, "Conflict", f'{key[0]} "{key[2]}": the object has been modified', name=key[2])
            if status:
                new = {**old, "status": copy.deepcopy(thing.get("status", {}))}
            else:
                new = {**copy.deepcopy(thing), **({"status": old["status"]} if "status" in old else {})}
                changed = new.get("spec") != old.get("spec")
                new["metadata"]["generation"] = int(old["metadata"].get("generation", 1)) + changed
            gone = new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers")
            result = self.record("DELETED" if gone else "MODIFIED", key, new)
        if gone:
            self.collect(str(new["metadata"]["uid"]))
        return result

    def delete(self, key: Key) -> Thing:
        with self.changed:
            old = copy.deepcopy(self.get(key))
            if old["metadata"].get("finalizers"):
                old["metadata"]["deletionTimestamp"] = now()
                return self.record("MODIFIED", key, old)
            result = self.record("DELETED", key, old)
        self.collect(str(old["metadata"]["uid"]))
        return result

    def collect(self, owner: str) -> None:
        """What a garbage collector does when an owner is gone."""
        for key, thing in list(self.things.items()):
            if any(reference["uid"] == owner for reference in thing["metadata"].get("ownerReferences", ())):
                self.delete(key)

    def select(self, resource: str, namespace: str, labels: str, fields: str) -> list[Thing]:
        with self.changed:
            entries = [thing for key, thing in self.things.items() if key[:2] == (resource, namespace)]
            return copy.deepcopy([thing for thing in entries if matches(thing, labels, fields)])

    def compact(self) -> None:
        """Forgets the history, as etcd does after five minutes."""
        with self.changed:
            self.history.clear()
            self.version = self.floor = next(self._versions)


def matches(thing: Thing, labels: str, fields: str) -> bool:
    """Whether equality-based selectors hold."""
    have = thing["metadata"].get("labels", {})
    pairs = [part.partition("=")[::2] for part in labels.split(",") if part]
    if any(have.get(name) != value.lstrip("=") for name, value in pairs):
        return False
    for name, value in (part.partition("=")[::2] for part in fields.split(",") if part):
        result: Any = thing
        for part in name.split("."):
            result = result.get(part, {}) if isinstance(result, dict) else {}
        if result != value.lstrip("="):
            return False
    return True
