"""The loop on one machine: train on what is new, try the winner next to the champion, let users decide; repeat.

Its state is in the registry, in the store and in `loop.json`. So a loop that was killed and is started again continues:
it resumes a training, or takes up a canary that is not decided.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from infill import __version__, storage, tracking
from infill import config as configuration
from infill.artifacts import deployment
from infill.corpus import sources
from infill.errors import InfillError, ServiceError, TrainingError
from infill.feedback import dataset
from infill.feedback.feedback_row import ENDING
from infill.release import canary_decision, registry
from infill.release.canary_decision import CanaryPatience
from infill.release.registry import Version
from infill.report import SUMMARY_FILE
from pipelines import local
from serving import local as servers

STATE_FILE: Final = "loop.json"
"""The file in a run's folder with the digest of what the last training that ended has read."""
FEEDBACK: Final = "feedback"
"""The folder in a run's own to which the loop's servers write what users made of suggestions."""
FAILED: Final = "failed"
"""The outcome of a round whose training failed."""
Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class LoopPlan:
    """The settings of a loop."""

    out: Path
    preset: str
    settings: Mapping[str, Any]
    """Changes to the preset, for the first training; the next ones start from the champion instead of a base."""
    host: str = "127.0.0.1"
    port: int = 8_080
    keys: str = ""
    weight: float = 20.0
    """Share of the users, in per cent, whom a candidate answers."""
    feedback: bool = False
    """Whether the servers keep the feedback of users who agree, on which the next training learns."""
    every: float = 86_400.0
    """Seconds from the start of a round to the start of the next."""
    patience: CanaryPatience = dataclasses.field(default_factory=CanaryPatience)

    @property
    def name(self) -> str:
        """The registered model."""
        return configuration.resolve(self.preset, self.settings).register.name


def run(plan: LoopPlan, rounds: int, report: Callable[[Result], None]) -> None:
    """Run `rounds` rounds, or without end for 0, and serve the champion all the while; `report` gets each one's result.

    Raises InfillError if the first training fails, or a server ends on its own.
    """
    configuration.resolve(plan.preset, plan.settings)  # a user's mistake is reported before anything starts
    plan.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MLFLOW_TRACKING_URI", tracking.local_store(str(plan.out)))
    with Stand(plan) as stand:
        for number in itertools.count(1):
            started = time.monotonic()
            report({"round": number, **_round(plan, stand)})
            if number == rounds:
                return
            stand.sleep(started + plan.every - time.monotonic())


def _round(plan: LoopPlan, stand: "Stand") -> Result:
    """Train unless nothing is new or a candidate waits, then try the candidate, if there is one; return the outcome."""
    stand.serve()
    version, trained = registry.candidate(plan.name), Result()
    if version is None:
        trained = _train_on_news(plan, stand)
        version = registry.candidate(plan.name)
    if version is None:
        stand.serve()
        return trained
    return {**trained, **_try(plan, stand, version)}


# Training


def _train_on_news(plan: LoopPlan, stand: "Stand") -> Result:
    """Train if something is new, and return what came of it.

    A training that fails costs its round, and the next one tries again. Raises the error instead while there is no
    champion, and ServiceError when a server ends.
    """
    champion = registry.champion(plan.name)
    try:
        new = news(plan)
        return {"outcome": "nothing new"} if new == _last(plan) else _train(plan, stand, new, champion)
    except InfillError as error:
        if champion is None or isinstance(error, ServiceError):
            raise
        return {"outcome": FAILED, "reason": str(error)}


def news(plan: LoopPlan) -> str:
    """Return a digest of what the loop trains on, without the champion that it starts from."""
    settings = {**plan.settings, **_feedback(plan)}
    resolved = configuration.resolve(plan.preset, settings)
    folder = resolved.preferences.feedback
    state = [
        __version__,
        plan.preset,
        configuration.to_text(settings),
        sources.fingerprint(resolved.corpus.sources),
        dataset.digest(folder) if folder else "",
    ]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _feedback(plan: LoopPlan) -> Mapping[str, str]:
    """Return the setting that names the users' feedback, if the loop keeps it and there is some."""
    folder = str(plan.out / FEEDBACK)
    return {"preferences.feedback": folder} if plan.feedback and storage.list_files(folder, ENDING) else {}


def _last(plan: LoopPlan) -> str:
    """Return the digest of what the last training that ended has read; empty before the first."""
    file = str(plan.out / STATE_FILE)
    return str(storage.read_json(file)["trained_on"]) if storage.exists(file) else ""


def settings_of_round(plan: LoopPlan, champion: Version | None) -> dict[str, Any]:
    """Return the settings of a training, which starts from the champion if there is one."""
    settings = {**plan.settings, **_feedback(plan), "register.canary": True}
    if champion is None:
        return settings
    replaced = {"tokenizer.base_model", "pretrain.base_model", "tokenizer.add_fim", "pretrain.add_fim"}
    kept = {name: value for name, value in settings.items() if name not in replaced and not name.endswith(".adapter")}
    starts = {name: "" for name in kept if name.endswith(".lora_start")}
    return {**kept, **starts, "base_model": champion.model_uri, "add_fim": False, "adapter": ""}


def _train(plan: LoopPlan, stand: "Stand", new: str, champion: Version | None) -> Result:
    """Run the pipeline in a process of its own and return what came of it. Raises TrainingError when it fails."""
    settings = settings_of_round(plan, champion)
    _say(f"training {'the first model' if champion is None else f'from version {champion.version}'}")
    changes = [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    os.environ[local.ROUND] = new
    words = ["run", "--preset", plan.preset, "--out", str(plan.out), *changes]
    training = servers.start("training", "infill.cli", "", words, _echo)
    try:
        while training.process.poll() is None:
            stand.sleep(servers.POLL_S)
    finally:
        servers.stop([training])
    if training.process.returncode:
        last = training.tail[-1] if training.tail else f"exit code {training.process.returncode}"
        raise TrainingError(f"the training failed: {last}; see {plan.out / 'run.log'}")
    storage.write_json(str(plan.out / STATE_FILE), {"trained_on": new})
    return _trained(plan, champion, settings)


def _trained(plan: LoopPlan, champion: Version | None, settings: Mapping[str, Any]) -> Result:
    summary = storage.read_json(str(plan.out / SUMMARY_FILE))
    start = {"start": "" if champion is None else champion.model_uri, "run": summary["mlflow_run_id"]}
    start |= {"feedback": settings.get("preferences.feedback", "")}
    if not summary["gate"]["passed"]:
        return {**start, "outcome": "refused", "reason": summary["gate"]["reason"]}
    return {**start, "outcome": "deployed", "model_uri": summary["model"]}


# Trial


def _try(plan: LoopPlan, stand: "Stand", version: Version) -> Result:
    """Serve the candidate `version` to some users until they have decided, then serve the champion; return the outcome.

    A candidate that cannot be served while the champion can is rolled back.
    """
    try:
        stand.serve(version.model_uri)
    except InfillError as error:
        stand.serve()
        canary_decision.give_up(version, "it cannot be served")
        _say(str(error))
    result = canary_decision.decide(
        plan.name,
        [stand.url],
        plan.patience,
        served=local.served_limits(plan.out),
        output=local.new_deployment(plan.out, "canary"),
        sleep=stand.sleep,
    )
    stand.serve()
    return result


class Stand:
    """The loop's servers: those of the deployed model, and during a canary that of the candidate too."""

    def __init__(self, plan: LoopPlan) -> None:
        self.plan = plan
        self.children: tuple[servers.Child, ...] = ()
        self._served: tuple[str, str] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Begin without a server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the servers."""
        self.close()

    @property
    def url(self) -> str:
        """The transformer's base URL."""
        return self.children[1].url

    def serve(self, candidate: str = "") -> None:
        """Serve the deployed model, if there is one, and `candidate`; servers that do so already continue."""
        deployed = deployment.newest(self.plan.out / "store")
        if deployed is None or self._served == (deployed, candidate):
            return
        self.close()
        plan = self.plan
        self.children = self._stack.enter_context(
            servers.servers(
                deployed, host=plan.host, port=plan.port, transformer=_options(plan, candidate), candidate=candidate
            )
        )
        self._served = (deployed, candidate)
        _say(f"serving {deployed}{' and a candidate' if candidate else ''} at {self.url}/")

    def sleep(self, seconds: float) -> None:
        """Wait. Raises ServiceError if a server ends on its own."""
        until = time.monotonic() + seconds
        while True:
            for child in self.children:
                child.check()
            if time.monotonic() >= until:
                return
            time.sleep(min(servers.POLL_S, max(0.0, until - time.monotonic())))

    def close(self) -> None:
        """Stop the servers."""
        self._served, self.children = None, ()
        self._stack.close()


def _options(plan: LoopPlan, candidate: str) -> list[str]:
    """Return the transformer's own arguments."""
    named = {
        "--keys": plan.keys,
        "--telemetry": FEEDBACK if plan.feedback else "metrics",
        "--feedback": str(plan.out / FEEDBACK) if plan.feedback else "",
        "--canary_weight": f"{plan.weight:g}" if candidate else "",
    }
    return [part for option, value in named.items() if value for part in (option, value)]


def _echo(line: str) -> None:
    """Show a line of a training, but not its summary, which is in summary.json too."""
    if " | {" not in line:
        servers.say(line)


def _say(line: str) -> None:
    servers.say(f"infill: {line}")
