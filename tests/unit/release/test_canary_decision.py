"""Tests of the decision after a canary on a real registry; the figures are given, `test_loop` reads real ones."""

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infill import tracking
from infill.artifacts import decision as decisions
from infill.artifacts import deployment
from infill.errors import InputError, ServiceError
from infill.release import canary_decision, registry
from infill.release.canary_decision import AbsentError, CanaryFigures, CanaryPatience, SideFigures, UndecidedError
from infill.release.registry import Version
from tests.unit.release.test_deploy import DEPLOY
from tests.unit.release.test_register import CONFIG, Run

CANARY = replace(CONFIG, canary=True)
PATIENCE = CanaryPatience(requests=100, suggestions=50, seconds=0.05, pause=0.01)
SEEN = SideFigures(requests=100, failed=1, seconds=0.2, accepted=30, rejected=20)
URLS = ["http://transformer"]


@pytest.fixture
def candidate(mlflow_store: Path) -> Version:
    """The second version, on trial; the first is the champion."""
    Run(mlflow_store, "one", (0.1, 0.3, 0.2)).register(CANARY)
    run = Run(mlflow_store, "two", (0.1, 0.3, 0.9))
    for _ in range(2):
        assert run.register(CANARY)["passed"]
        assert not decisions.is_deployed_at_once(run.output)
    version = registry.candidate("infill")
    assert version is not None
    return version


def seen(version: Version, *, side: SideFigures = SEEN, reasons: tuple[str, ...] = ()) -> CanaryFigures:
    return CanaryFigures(
        stable=SEEN,
        candidate=side,
        digests=frozenset({version.model_digest}),
        weight=0.0 if reasons else 5.0,
        reasons=reasons,
    )


@pytest.fixture
def shows(monkeypatch: pytest.MonkeyPatch) -> Callable[[CanaryFigures], None]:
    return lambda figures: monkeypatch.setattr(canary_decision, "read", lambda _: figures)


def aliases() -> tuple[str, str, str]:
    versions = registry.champion("infill"), registry.previous("infill"), registry.candidate("infill")
    first, second, third = ("" if version is None else version.version for version in versions)
    return first, second, third


def decide(output: str = "") -> str:
    result = canary_decision.decide("infill", URLS, PATIENCE, served=DEPLOY, output=output, say=lambda _: None)
    return str(result["outcome"])


def test_the_first_winner_needs_no_canary_and_the_second_waits_for_its_own(candidate: Version) -> None:
    assert aliases() == ("1", "", "2")
    assert candidate.tags[registry.REPLACED] == "1"
    first = registry.champion("infill")
    assert first is not None
    explained = [decisions.explain(decisions.load(each.tags[registry.DECISION_URI])) for each in (first, candidate)]
    assert "passed the gate, so it may be deployed" in explained[0]
    assert "canary" not in explained[0]
    assert "passed the gate, so some users may try it" in explained[1]
    assert "the candidate of the registered model infill (see infill canary show)" in explained[1]
    assert "infill canary decide then makes it the model in use, or rolls it back" in explained[1]


def test_a_candidate_that_is_not_worse_is_promoted(
    candidate: Version, mlflow_store: Path, shows: Callable[[CanaryFigures], None]
) -> None:
    shows(seen(candidate))
    assert decide(output=str(mlflow_store / "store" / "deploy" / "new")) == "promoted"
    assert aliases() == ("2", "1", "")
    record = deployment.newest(mlflow_store / "store")
    assert record == str(mlflow_store / "store" / "deploy" / "new" / "deployment.json")
    run = tracking.client().get_run(candidate.tags[registry.RUN_ID])
    assert run.data.metrics["canary/candidate_acceptance"] == 0.6
    assert run.data.metrics["canary/stable_requests"] == 100
    with pytest.raises(InputError, match="has no candidate"):
        decide()


def test_a_candidate_that_was_rolled_back_is_not_tried_again(
    candidate: Version, mlflow_store: Path, shows: Callable[[CanaryFigures], None]
) -> None:
    shows(seen(candidate, side=replace(SEEN, requests=30), reasons=("acceptance",)))
    assert decide() == "rolled back: acceptance"
    assert aliases() == ("1", "", "")
    decision = Run(mlflow_store, "two", (0.1, 0.3, 0.9)).register(CANARY)
    assert not decision["passed"]
    assert "version 2, which was rolled back on" in decision["reason"]
    assert aliases() == ("1", "", "")


@pytest.mark.parametrize(
    ("where", "name", "done"),
    [
        (registry, "log", True),
        (registry, "set_tags", True),
        (registry, "promote", True),
        (deployment, "write", False),
        (registry, "end_candidacy", False),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_killed_and_repeated_it_ends_as_if_undisturbed(
    candidate: Version,
    mlflow_store: Path,
    shows: Callable[[CanaryFigures], None],
    monkeypatch: pytest.MonkeyPatch,
    where: object,
    name: str,
    done: bool,
) -> None:
    shows(seen(candidate))
    real = getattr(where, name)

    def killed(*arguments: object) -> None:
        if done:
            real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, name, killed)
        with pytest.raises(KeyboardInterrupt):
            decide(output=str(mlflow_store / "first"))
    if registry.candidate("infill") is not None:
        assert decide(output=str(mlflow_store / "second")) == "promoted"
    assert aliases() == ("2", "1", "")
    assert any((mlflow_store / each / "deployment.json").exists() for each in ("first", "second"))


def test_what_is_not_decided_stays_as_it_is(
    candidate: Version, shows: Callable[[CanaryFigures], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shows(seen(candidate, side=replace(SEEN, requests=99, accepted=0)))
    with pytest.raises(UndecidedError, match=r"99 of 100 requests of the candidate model, 20 of 50 decided"):
        decide()
    assert aliases() == ("1", "", "2")
    answers: Iterator[CanaryFigures | AbsentError] = iter(
        [seen(candidate, side=replace(SEEN, requests=1)), AbsentError("away"), seen(candidate)]
    )

    def read(_: object) -> CanaryFigures:
        answer = next(answers)
        if isinstance(answer, AbsentError):
            raise answer
        return answer

    monkeypatch.setattr(canary_decision, "read", read)
    assert decide() == "promoted"


def test_another_model_on_trial_decides_nothing(candidate: Version, shows: Callable[[CanaryFigures], None]) -> None:
    for digests in (frozenset({"other"}), frozenset({""}), frozenset[str](), frozenset({"x", candidate.model_digest})):
        shows(replace(seen(candidate), digests=digests))
        with pytest.raises(InputError, match="start the transformer with --candidate_model"):
            decide()
    shows(replace(seen(candidate), weight=0.0))
    with pytest.raises(InputError, match="its weight is 0"):
        decide()
    assert aliases() == ("1", "", "2")


@pytest.mark.parametrize(
    ("key", "status", "sentence"),
    [
        ("", 401, "asks for a key to show its metrics (401): put one into INFILL_API_KEY"),
        ("", 403, "asks for a key to show its metrics (403): put one into INFILL_API_KEY"),
        ("infill_wrong", 401, "refuses the key in INFILL_API_KEY (401)"),
        ("infill_right", 403, "does not show its metrics to the key in INFILL_API_KEY (403)"),
    ],
)
def test_a_server_that_asks_for_a_key_gets_it_or_is_explained(
    monkeypatch: pytest.MonkeyPatch, key: str, status: int, sentence: str
) -> None:
    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            right = self.headers["authorization"] == "Bearer infill_right" and status == 401
            self.send_response(200 if right else status)
            self.end_headers()
            self.wfile.write(b"infill_canary_weight 5.0\n" if right else b"")

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("INFILL_API_KEY", key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(InputError, match=re.escape(f"{url} {sentence}")):
            canary_decision.read([url])
        if status == 401:
            monkeypatch.setenv("INFILL_API_KEY", "infill_right")
            assert canary_decision.read([url]).weight == 5.0
        server.shutdown()


def test_a_newer_candidate_or_champion_is_not_overrun(
    candidate: Version, mlflow_store: Path, shows: Callable[[CanaryFigures], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shows(seen(candidate))
    other = Run(mlflow_store, "three", (0.1, 0.3, 0.95))
    with monkeypatch.context() as patch:
        patch.setattr(registry, "log", lambda *_: other.register(CANARY))
        with pytest.raises(ServiceError, match="was version 2 and is version 3 now"):
            decide()
    third = registry.candidate("infill")
    assert third is not None
    registry.promote(third)
    registry.nominate(candidate)
    with pytest.raises(ServiceError, match="version 3 of infill became the champion during the canary"):
        decide()
    assert aliases()[0] == "3"


def test_a_damaged_model_is_not_promoted(
    candidate: Version, mlflow_store: Path, shows: Callable[[CanaryFigures], None]
) -> None:
    shows(seen(candidate))
    (Path(candidate.model_uri) / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="is not the file that"):
        decide(output=str(mlflow_store / "new"))
    assert aliases() == ("1", "", "2")
