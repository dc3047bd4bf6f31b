"""What becomes of suggestions: counted by the real routes, refused where it cannot be true, kept where both agree."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from infill.errors import InputError
from infill.feedback import dataset
from serving.transformer import keys
from serving.transformer.service import TransformerService
from serving.transformer.telemetry import writer as writers
from serving.transformer.telemetry.counts import Counts, Labels, language_label, left
from serving.transformer.telemetry.recent_suggestions import Memory, Suggestion
from serving.transformer.telemetry.writer import RowWriter, redaction
from serving.transformer.transformer_config import TransformerConfig
from tests.serving.conftest import HTTP, chunk, say, strange_predictor, transforming, wait_until

TEXT = "width * height\n"
PASSWORD = "hunter2-Xk29vQ"
LABELS = {"language": "python", "model": "tiny", "strategy": "none"}


@pytest.fixture(scope="module")
def predictor() -> Iterator[str]:
    """A predictor that always says TEXT."""
    with strange_predictor(say("200 OK", chunk(TEXT, "stop") + "data: [DONE]\n\n", "text/event-stream")) as (url, _):
        yield url


class Client:
    """A client with a key, and the server's metrics."""

    def __init__(self, url: str, service: TransformerService, key: str = "") -> None:
        self.url, self.service = url, service
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.later = 0.0
        service.telemetry.clock = lambda: self.later

    def complete(self, **fields: Any) -> str:
        body = {"prompt": "def area(width, height):\n    return ", "path": "a.py", "max_tokens": 4, **fields}
        answer = HTTP.post(f"{self.url}/v1/completions", json=body, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def report(self, kind: str, completion: str = "", **fields: Any) -> httpx.Response:
        body = {"type": kind, "completion_id": completion, **fields}
        return HTTP.post(f"{self.url}/v1/events", json=body, headers=self.headers)

    def count(self, name: str, **labels: str) -> float:
        counter = getattr(self.service.telemetry.counts, name)
        wanted = labels if name in ("invalid", "dropped") else {**LABELS, **labels}
        return float(counter.labels(**wanted)._value.get())


@pytest.fixture
def client(model: Path, predictor: str) -> Iterator[Client]:
    with transforming(model, predictor, telemetry="metrics") as (url, service):
        yield Client(url, service)


def test_a_suggestion_is_followed_from_its_answer_to_what_is_left_of_it(client: Client) -> None:
    completion = client.complete()
    assert client.count("answers", ended="answered") == 1
    assert client.report("view", completion).status_code == 200
    assert client.report("view", completion).status_code == 200
    assert client.report("select", completion, select_kind="word", accepted_chars=6).status_code == 200
    assert client.report("select", completion, select_kind="all", accepted_chars=len(TEXT)).status_code == 200
    assert client.report("select", completion, accepted_chars=3).status_code == 200  # it came late
    client.later = 130
    for after, kept in ((15, 15), (30, 12), (120, 2), (120, 15)):
        assert client.report("persist", completion, after_s=after, kept_chars=kept).status_code == 200
    assert client.report("type", language="python", typed_chars=40).status_code == 200
    assert [client.count(name) for name in ("shown", "accepted", "rejected")] == [1, 1, 0]
    assert [client.count(name) for name in ("shown_chars", "accepted_chars")] == [len(TEXT)] * 2
    assert [client.count("parts", part=part) for part in ("word", "line", "all")] == [1, 0, 1]
    assert [client.count("persisted", after=after, left=left) for after, left in STATES] == [1, 1, 1]
    assert client.count("persisted_chars", after="120") == 2
    assert client.count("typed_chars", strategy="infill") == 40


STATES = (("15", "whole"), ("30", "edited"), ("120", "gone"))


@pytest.mark.parametrize(
    ("kind", "fields", "status", "code"),
    [
        ("view", {"completion_id": "cmpl-other"}, 404, "unknown_completion"),
        ("select", {"accepted_chars": len(TEXT) + 1}, 400, "too_many_chars"),
        ("select", {"accepted_chars": 0}, 400, "invalid_value"),
        ("select", {"accepted_chars": "all"}, 400, "invalid_type"),
        ("view", {"elapsed": -1}, 400, "invalid_value"),
        ("persist", {"after_s": 15, "kept_chars": 4}, 400, "too_early"),
        ("persist", {"after_s": 16, "kept_chars": 4}, 400, "invalid_value"),
        ("persist", {"after_s": -15, "kept_chars": 4}, 400, "invalid_value"),
        ("persist", {"after_s": 15, "kept_chars": -4}, 400, "invalid_value"),
        ("persist", {"after_s": 15}, 400, "invalid_value"),
        ("persist", {"after_s": 15, "kept_chars": 7}, 400, "too_many_chars"),
        ("type", {"typed_chars": 10**9}, 400, "invalid_value"),
        ("type", {"typed_chars": -1}, 400, "invalid_value"),
        ("feedback", {"consent": True, "shown": TEXT, "outcome": "accepted"}, 403, "feedback_off"),
    ],
)
def test_what_cannot_be_true_is_refused(client: Client, kind: str, fields: Any, status: int, code: str) -> None:
    completion = client.complete()
    client.report("select", completion, accepted_chars=6)
    answer = client.report(kind, **{"completion_id": completion, **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert TEXT.strip() not in answer.text


def test_nothing_is_left_of_what_was_not_accepted(client: Client) -> None:
    completion = client.complete()
    client.later = 20
    answer = client.report("persist", completion, after_s=15, kept_chars=0)
    assert answer.json()["error"]["code"] == "not_accepted"
    assert client.count("invalid", reason="not_accepted") == 1


def test_a_rejection_counts_once_and_not_after_an_acceptance(client: Client) -> None:
    first, second = client.complete(), client.complete()
    for _ in range(2):
        client.report("dismiss", first)
    client.report("select", second)
    client.report("dismiss", second)
    assert [client.count(name) for name in ("shown", "accepted", "rejected")] == [2, 1, 1]


def test_another_tenants_completion_is_unknown(model: Path, predictor: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    mine, other = keys.add(file, "team-a"), keys.add(file, "team-b")
    with transforming(model, predictor, telemetry="metrics", keys=str(file)) as (url, service):
        completion = Client(url, service, mine).complete()
        assert Client(url, service, other).report("select", completion).status_code == 404
        assert Client(url, service, mine).report("select", completion).status_code == 200
        assert Client(url, service, "infill_x").report("select", completion).status_code == 401


def test_a_flood_is_limited(model: Path, predictor: str) -> None:
    with transforming(model, predictor, telemetry="metrics", telemetry_events=5) as (url, service):
        client = Client(url, service)
        answers = [client.report("type", typed_chars=1) for _ in range(7)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
        assert answers[-1].headers["retry-after"] == "60"


def test_without_the_operator_nothing_is_remembered(model: Path, predictor: str) -> None:
    with transforming(model, predictor) as (url, service):
        client = Client(url, service)
        assert client.report("select", client.complete()).status_code == 200
        assert client.report("feedback", "x", consent=True).status_code == 403
        assert len(service.telemetry.memory) == 0
        assert client.count("accepted") == 0
        listed = HTTP.get(f"{url}/v1/models").json()["data"][0]["infill"]
        assert listed["telemetry"] == "off"


def leave(url: str, body: dict[str, Any]) -> None:
    """Ask for a completion and go before it is complete."""
    with contextlib.suppress(httpx.TimeoutException), httpx.Client(trust_env=False, timeout=0.2) as client:
        client.post(f"{url}/v1/completions", json=body)


def begin(connection: socket.socket) -> None:
    """A predictor that says one word, and no more until the transformer hangs up."""
    say("200 OK", chunk("fn"), "text/event-stream")(connection)
    connection.recv(1)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_is_counted(model: Path, stream: bool) -> None:
    with strange_predictor(begin) as (inner, _), transforming(model, inner) as (url, service):
        body = {"prompt": "x = ", "path": "a.rs", "max_tokens": 128, "ignore_eos": True, "stream": stream}
        leave(url, body)
        counter = service.telemetry.counts.answers.labels("rust", "tiny", "none", "cancelled")
        wait_until(lambda: counter._value.get() == 1)


def test_a_predictor_that_fails_is_counted(model: Path) -> None:
    with transforming(model, "http://127.0.0.1:9") as (url, service):
        HTTP.post(f"{url}/v1/completions", json={"prompt": "x", "path": "a.py"})
        assert Client(url, service).count("answers", ended="failed") == 1


# -- The labels and the memory are bounded


@pytest.mark.parametrize(
    ("language", "label"),
    [
        ("python", "python"),
        ("markdown", "prose"),
        ("yaml", "data"),
        ("html", "markup"),
        ("zig", "other"),
        ("", "other"),
    ],
)
def test_languages_have_few_labels(language: str, label: str) -> None:
    assert language_label(language) == label
    assert language_label(language + "\nx") in ("other", label)


def test_a_tenant_that_completes_much_forgets_its_own_first() -> None:
    memory = Memory(most=10)

    def suggestion() -> Suggestion:
        return Suggestion(labels=Labels("", "", ""), text="x", chars=1, finished=True, answered=0)

    memory.put("small", "first", suggestion())
    for number in range(100):
        memory.put("large", str(number), suggestion())
    assert len(memory) == 10
    assert memory.get("small", "first")
    assert memory.get("large", "99")
    assert memory.get("large", "50") is None
    assert memory.get("small", "99") is None


@pytest.mark.parametrize(("kept", "state"), [(10, "whole"), (9, "edited"), (5, "edited"), (4, "gone"), (0, "gone")])
def test_what_is_left(kept: int, state: str) -> None:
    assert left(kept, 10) == state


# -- The feedback dataset


CARET: dict[str, Any] = {
    "path": "src/a.py",
    "prefix": f'password = "{PASSWORD}"\nmail = "jane.roe@acme-corp.com"\n\ndef area(width, height):\n    return ',
    "suffix": "\n\nprint(area(1, 2))\n",
    "context": [
        {
            "path": "b.py",
            "text": f'token = "{PASSWORD}"\n',
            "first_line": 1,
            "last_line": 1,
            "score": 1,
            "strategy": "x",
        }
    ],
    "shown": TEXT.rstrip("\n"),
    "consent": True,
}


@pytest.fixture
def keeping(model: Path, predictor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)  # the rules of secrets are compiled there already
    with transforming(model, predictor, telemetry="feedback", feedback=str(tmp_path / "feed back")) as (url, service):
        yield Client(url, service)


def test_feedback_is_kept_without_secrets(keeping: Client, tmp_path: Path) -> None:
    accepted, rejected, refused = (keeping.complete() for _ in range(3))
    keeping.report("select", accepted)
    keeping.report("dismiss", rejected)
    by_name = {"outcome": "accepted", "final": "width * height * 2"}
    assert keeping.report("feedback", accepted, **CARET, **by_name).status_code == 200
    assert keeping.report("feedback", accepted, **CARET, **by_name).status_code == 200  # comes twice, is kept once
    assert keeping.report("feedback", rejected, **CARET, outcome="rejected").status_code == 200
    secret = {"outcome": "rejected", "final": f'"x" if password == "{PASSWORD}" else token("{PASSWORD}")'}
    assert keeping.report("feedback", refused, **{**CARET, **secret}).status_code == 200
    keeping.service.telemetry.close()
    (file,) = (tmp_path / "feed back" / "_").iterdir()
    rows = list(dataset.read(str(tmp_path / "feed back")))
    assert [(row["outcome"], row["final"]) for row in rows] == [("accepted", by_name["final"]), ("rejected", None)]
    assert PASSWORD.encode() not in file.read_bytes()
    assert b"jane.roe" not in file.read_bytes()
    assert rows[0]["prefix"].endswith("def area(width, height):\n    return ")
    assert rows[0]["suffix"] == CARET["suffix"]
    assert (rows[0]["language"], rows[0]["accepted_chars"], rows[0]["finished"]) == ("python", 14, True)
    assert keeping.count("dropped", reason="secret") == 1


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"consent": False}, 403, "no_consent"),
        ({"consent": None}, 403, "no_consent"),
        ({"shown": "another text"}, 400, "not_shown"),
        ({"shown": " "}, 400, "not_shown"),
        ({"outcome": "rejected"}, 400, "not_accepted"),
        ({"outcome": "liked"}, 400, "invalid_value"),
        ({"context": [{"path": "b.py"}]}, 400, "invalid_type"),
        ({"prefix": 5}, 400, "invalid_type"),
        ({"path": "a\nb"}, 400, "invalid_value"),
    ],
)
def test_feedback_that_is_false_or_lacks_consent_is_refused(
    keeping: Client, fields: Any, status: int, code: str
) -> None:
    completion = keeping.complete()
    keeping.report("select", completion)
    answer = keeping.report("feedback", completion, **{**CARET, "outcome": "accepted", **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def write(folder: Path, rows: int, **settings: Any) -> Counts:
    counts = Counts(CollectorRegistry())
    writer = RowWriter(str(folder), counts, **{"max_bytes": 10**6, "redact": lambda row: row, **settings})
    for number in range(rows):
        writer.add("team-a", {"id": str(number)})
    writer.close()
    return counts


def test_files_are_whole_and_of_limited_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "FILE_ROWS", 4)
    counts = write(tmp_path, 10)
    files = sorted((tmp_path / "team-a").iterdir())
    lines = [file.read_bytes().split(b"\n") for file in files]
    assert sorted(len(each) - 1 for each in lines) == [2, 4, 4]
    assert sorted(json.loads(line)["id"] for each in lines for line in each[:-1]) == sorted(map(str, range(10)))
    assert counts.rows._value.get() == 10


def failing(row: Any) -> Any:
    raise RuntimeError(row)


@pytest.mark.parametrize(
    ("reason", "settings"),
    [
        ("full", {"max_bytes": 10}),
        ("secret", {"redact": lambda _: None}),
        ("failed", {"redact": failing}),
    ],
)
def test_what_is_not_written_is_counted(
    tmp_path: Path, reason: str, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    counts = write(tmp_path, 3, **settings)
    assert counts.dropped.labels(reason)._value.get() == 3
    assert counts.rows._value.get() == 0
    assert "'id'" not in caplog.text


def test_a_folder_that_cannot_be_written_costs_its_rows_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "team-a").write_text("not a folder")
    counts = write(tmp_path, 3)
    assert counts.dropped.labels("failed")._value.get() == 3


def test_a_row_that_cannot_be_read_costs_itself(keeping: Client, tmp_path: Path) -> None:
    completion = keeping.complete()
    keeping.report("dismiss", completion)
    keeping.report("feedback", completion, **CARET, outcome="rejected", final="1")
    keeping.service.telemetry.close()
    (file,) = (tmp_path / "feed back" / "_").iterdir()
    good = file.read_bytes()
    row = json.loads(good)
    bad = [b"{", b"5", b"{}", *(json.dumps({**row, name: 7}).encode() for name in row if name != "version")]
    file.write_bytes(b"\n".join([*bad, good]))
    assert [each["final"] for each in dataset.read(str(tmp_path))] == ["1", "1"]  # accepted_chars may be 7
    assert list(dataset.read(str(tmp_path / "nothing"))) == []
    file.write_bytes(json.dumps({**row, "version": 2}).encode())
    with pytest.raises(InputError, match="version 2"):
        list(dataset.read(str(tmp_path)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"telemetry": "on"}, "telemetry must be one of off, metrics, feedback, got 'on'"),
        ({"telemetry": "feedback"}, "belong together"),
        ({"feedback": "/tmp/x"}, "belong together"),
        ({"telemetry_events": 0}, "must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerConfig(model="m", **settings)


def test_without_the_packages_of_redaction_feedback_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kingfisher_sdk", None)
    with pytest.raises(InputError, match=r"pip install 'infill\[stages\]'"):
        redaction()
