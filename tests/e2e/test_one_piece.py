"""`infill loop` from commits to the users' verdict: pipeline, registry and servers are real, the models tiny.

A project writes the same line in each of its functions, and its users want that line. A model learns it from the
commits, so they accept what it suggests. The next one learns from commits with another line, which the gate lets
through, on held-out code of these commits, and the users do not want.
"""

import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from infill import config, storage, tracking
from infill.artifacts import deployment
from infill.feedback import dataset
from infill.release import registry
from infill.stages import MODELS, STAGES, execute
from infill.text import read_text
from serving.local import free_port
from tests.e2e.test_run import MIT

OLD, WANTED, OTHER = "return left + right", "return check(left, right)", "log.warning(left)"
SETTINGS: Final[dict[str, Any]] = {
    "seed": 3,
    "pretrain.train.steps": 40,
    "pretrain.train.learning_rate": 2e-3,
    "sft.train.steps": 150,
    "sft.train.learning_rate": 2e-3,
    **{f"{stage}.train.launcher": "local" for stage in ("pretrain", "sft", "dpo")},
    **{f"{stage}.train.sample_every": 1_000 for stage in ("pretrain", "sft", "dpo")},
    "examples.holes": 256,
    "examples.test_holes": 24,
    "evaluate.holes": 24,
    "examples.split.start": [["line_start", 1.0]],
    "examples.split.end": [["line_start", 1.0]],
    "examples.split.before_indent": 0,
    "examples.split.before_line": 0,
    "examples.split.max_middle_chars": 40,
    "register.metric": "chrf",
}


def word(draw: random.Random) -> str:
    return "".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(3))


def function(draw: random.Random, line: str) -> str:
    name, about = "_".join([word(draw), word(draw)]), f"{word(draw)} of {word(draw)} and {word(draw)}"
    return f'\n\ndef {name}(left, right):\n    """The {about}."""\n    {line}\n'


def commit(folder: Path, line: str) -> None:
    """Write `line` in each function of eight repositories, and commit that."""
    for repo in range(8):
        place = folder / f"repo_{repo}"
        place.mkdir(parents=True, exist_ok=True)
        (place / "LICENSE").write_text(MIT)
        for file in range(4):
            draw = random.Random(100 * repo + file)
            text = "".join(function(draw, line) for _ in range(8))
            (place / f"module_{file}.py").write_text(f'"""The {word(draw)}."""\n{text}')
        git = ["git", "-C", str(place), "-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", line]):
            subprocess.run([*git, *words], check=True)


def train_first(out: Path, source: str) -> None:
    """Train, register and deploy the first model below `out`, by the pipeline's stages in this process."""
    settings = {**SETTINGS, "sources": [source], "sft.train.steps": 60}
    preset, store = config.resolve("debug", settings), str(out / "store")
    uris: dict[str, str] = {}

    def run(name: str, *, key: str = "", **inputs: str) -> None:
        wanted = {each: inputs.get(each) or uris[each] for each in STAGES[name].inputs}
        uris[key or name] = execute(name, STAGES[name].settings(preset), wanted, store).uri

    for name in ("corpus", "tokenizer"):
        run(name)
    run("pretrain", key="model_base")
    run("examples")
    run("sft", key="model_sft", model=uris["model_base"])
    run("preferences", model=uris["model_sft"])
    run("dpo", key="model_dpo", model=uris["model_sft"])
    for name in MODELS:
        run("evaluate", key=f"evaluation_{name}", model=uris[f"model_{name}"])
    run("register", key="decision")
    run("deploy")


class Typists:
    """Twelve users: each asks again and again, and accepts a suggestion if its first line is what he would type.

    They begin when there is a candidate: before, they would take the cores from the training.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._over = threading.Event()

    def _type(self, user: int) -> None:
        draw, begun = random.Random(user), False
        with httpx.Client(base_url=self.url, timeout=30, trust_env=False) as client:
            while not self._over.wait(0.02 if begun else 1.0):
                try:
                    begun = begun or "infill_canary_candidate" in client.get("/metrics").text
                    if begun:
                        self._ask(client, user, draw)
                except httpx.TransportError:  # the server is not there yet, or starts again
                    begun = False

    def _ask(self, client: httpx.Client, user: int, draw: random.Random) -> None:
        place = {"path": "a.py", "prefix": function(draw, "").rstrip("\n"), "suffix": f"\n{function(draw, WANTED)}"}
        body = {"prompt": place["prefix"], "suffix": place["suffix"], "path": "a.py", "max_tokens": 24}
        response = client.post("/v1/completions", json={**body, "session": f"user {user}"})
        if response.status_code != httpx.codes.OK:
            assert response.status_code in (429, 503), response.text
            return
        answer = response.json()
        shown = answer["choices"][0]["text"]
        if not shown.strip():
            return
        accepts = shown.splitlines()[0] == WANTED
        event = {"type": "select" if accepts else "dismiss", "completion_id": answer["id"]}
        assert client.post("/v1/events", json=event).status_code in (200, 429)
        outcome = {"outcome": "accepted" if accepts else "rejected", "shown": shown, "final": WANTED}
        kept = {**event, "type": "feedback", "language": "python", "consent": True, **place, **outcome}
        if user % 2 and draw.random() < 0.2:  # half of the users do not agree
            assert client.post("/v1/events", json=kept).status_code in (200, 429)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let them type during the block."""
        self._over.clear()
        with ThreadPoolExecutor(12) as pool:
            typists = [pool.submit(self._type, number) for number in range(12)]
            try:
                yield
            finally:
                self._over.set()
        for typist in typists:
            typist.result()


def loop(out: Path, source: str, port: int, *more: str) -> dict[str, Any]:
    """Run one round as a user starts it, and return its result."""
    words = [f"{name}={json.dumps(value)}" for name, value in SETTINGS.items()]
    command = ["loop", "--out", str(out), "--preset", "debug", "--source", source, "--rounds", "1"]
    command += [*(each for word in words for each in ("--set", word)), "--port", str(port), "--canary-weight", "50"]
    command += ["--requests", "150", "--suggestions", "120", "--keep-feedback", *more]
    with (out / "loop.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "infill.cli", *command], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            printed, _ = process.communicate(timeout=600)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=30)
    assert process.returncode == 0, read_text(out / "loop.log")[-4_000:]
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result


def assert_learned_from_users(out: Path) -> None:
    """The last training has read the dataset that the servers wrote, and made pairs and holes of it."""
    files = (out / "store" / "preferences").glob("*/report.json")
    reports = [storage.read_json(str(file)) for file in files]
    (feedback,) = [each["feedback"] for each in reports if "feedback" in each]
    assert feedback["rows"] > feedback["typed"] > 0


def assert_logged(results: Sequence[Mapping[str, Any]]) -> None:
    """Each training has a run of its own in MLflow, with the figures of its canary."""
    assert len({result["run"] for result in results}) == len(results)
    for result in results:
        logged = tracking.client().get_run(result["run"]).data.metrics
        for side in ("stable", "candidate"):
            assert logged[f"canary/{side}_acceptance"] == result[side]["acceptance"]


@pytest.mark.long
@pytest.mark.timeout(1_200)
def test_commits_become_a_model_that_users_keep_and_one_that_they_do_not(
    mlflow_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, code = mlflow_store, tmp_path / "code"
    source, typists = f"git:{code}@HEAD", Typists(f"http://127.0.0.1:{(port := free_port())}")
    commit(code, OLD)
    train_first(out, source)
    first = registry.champion("infill")
    assert first is not None
    monkeypatch.delenv(tracking.PARENT_RUN, raising=False)

    commit(code, WANTED)
    with typists.at_work():
        better = loop(out, source, port)
    second = registry.champion("infill")
    assert second is not None
    assert (better["outcome"], better["start"], second.model_uri) == ("promoted", first.model_uri, better["model_uri"])
    assert better["candidate"]["acceptance"] > better["stable"]["acceptance"] + 0.5
    rows = list(dataset.read(str(out / "feedback")))
    assert {row["outcome"] for row in rows} == {"accepted", "rejected"}

    commit(code, OTHER)
    with typists.at_work():
        worse = loop(out, source, port)
    assert (worse["outcome"], worse["start"]) == ("rolled back: acceptance", second.model_uri)
    assert worse["feedback"] == str(out / "feedback")
    assert worse["candidate"]["acceptance"] < worse["stable"]["acceptance"] - 0.5
    assert_learned_from_users(out)
    assert_logged([better, worse])
    champion, third = registry.champion("infill"), registry.version("infill", worse["version"])
    assert champion is not None
    assert third is not None
    assert (champion.version, registry.candidate("infill")) == (second.version, None)
    assert [each.tags[registry.CANARY] for each in (champion, third)] == ["promoted", "rolled back: acceptance"]
    assert registry.ROLLED_BACK in third.tags
    assert storage.read_json(str(deployment.newest(out / "store")))["model_digest"] == second.model_digest
