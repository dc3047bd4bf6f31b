"""Follow a run on Kubeflow Pipelines with a live table of its steps, and report its result."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from infill import tracking
from infill.errors import InputError, ServiceError
from infill.stages import STAGES
from pipelines.full import infill
from pipelines.pod_names import pods
from pipelines.service import PASSING, KfpClient, KfpRefusedError, KfpUnreachableError, Thing

ENDED: Final = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
COLOURS: Final[Mapping[str, str]] = {
    "SUCCEEDED": "green",
    "CACHED": "green",
    "RUNNING": "yellow",
    "FAILED": "red",
    "CANCELED": "red",
}


class RunFailedError(ServiceError):
    """The error of a run that did not succeed."""

    exit_code = 1


class LeftError(ServiceError):
    """The error when the user stops following a run, which continues."""

    exit_code = 130


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a run."""

    name: str
    state: str = ""
    """KFP's state; empty before the step has begun."""
    started: datetime | None = None
    ended: datetime | None = None
    error: str = ""

    @property
    def seconds(self) -> float | None:
        """Seconds that the step has taken so far, or in total; None before it has begun."""
        if self.started is None:
            return None
        return max(0.0, ((self.ended or datetime.now(UTC)) - self.started).total_seconds())


def step_names() -> dict[str, str]:
    """Return our name of each step by KFP's name of its task, in the order in which they run."""
    spec = infill.pipeline_spec
    names = {
        key: task.task_info.name
        for part in (spec.root, *spec.components.values())
        for key, task in part.dag.tasks.items()
        if spec.components[task.component_ref.name].executor_label
    }
    order = ["preflight", *STAGES, "finish"]
    return dict(sorted(names.items(), key=lambda item: (order.index(item[1].split("-")[0]), item[1])))


def steps(run: Thing, names: Mapping[str, str]) -> list[Step]:
    """Return all steps of a run with KFP's states, even those that have not begun; of repeated tasks the newest."""
    details = sorted(_details(run), key=lambda task: str(task.get("create_time") or ""))
    newest = {str(task.get("display_name")): task for task in details}
    return [_step(newest.get(key, {}), name) for key, name in names.items()]


def _details(run: Thing) -> list[Thing]:
    return list((run.get("run_details") or {}).get("task_details") or ())


def _step(task: Thing, name: str) -> Step:
    return Step(
        name=name,
        state=str(task.get("state") or ""),
        started=_time(task.get("start_time")),
        ended=_time(task.get("end_time")),
        error=str((task.get("error") or {}).get("message") or ""),
    )


def _time(text: Any) -> datetime | None:
    """Return KFP's RFC 3339 time; None if it is unknown, for which KFP also writes the year 1970."""
    if not text:
        return None
    moment = datetime.fromisoformat(str(text))
    return moment if moment.year > 1970 else None


def table(run: Thing, steps: list[Step]) -> Table:
    """Return a table of the steps with their states and times."""
    shown = Table("step", "state", "time", title=f"{run.get('display_name', '')}: {run.get('state') or 'PENDING'}")
    for step in steps:
        colour = COLOURS.get(step.state, "")
        seconds = step.seconds
        shown.add_row(step.name, f"[{colour}]{step.state}[/]" if colour else step.state, _span(seconds))
    return shown


def _span(seconds: float | None) -> str:
    """Return a duration as h:mm:ss or m:ss; empty for None."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def follow(
    service: KfpClient,
    identity: str,
    console: Console,
    *,
    pause: float = 5.0,
    outage: float = 600.0,
    patience: float = 60.0,
) -> dict[str, Any]:
    """Show the run until it has ended; return its `run` (id), `state`, `url`, `mlflow` and the seconds of its `steps`.

    On a terminal the table is live, elsewhere each change is a line. KFP may be unavailable for `outage` seconds; a
    hint is printed if no step begins within `patience` seconds. Raises RunFailedError if the run does not succeed.
    """
    names, begun, hinted = step_names(), time.monotonic(), False
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    printed: dict[str, str] = {}
    try:
        if live:
            live.start()
        for run in _states(service, identity, pause, outage):
            current = steps(run, names)
            if live:
                live.update(table(run, current), refresh=True)
            else:
                _print_changes(current, printed, console)
            waits = not hinted and not any(step.state not in ("", "PENDING") for step in current)
            if waits and time.monotonic() - begun > patience:
                hinted = True
                console.print(
                    f"no step has begun for {patience:.0f} s; check its image and the free resources with "
                    f"kubectl get pods --selector pipeline/runid={identity}",
                    highlight=False,
                    soft_wrap=True,
                )
    except KeyboardInterrupt:
        raise LeftError(
            f"the run continues; see infill pipeline status {identity}, or stop it: infill pipeline cancel {identity}"
        ) from None
    finally:
        if live:
            live.stop()
    return outcome(service, run, current)


def status(service: KfpClient, identity: str, console: Console) -> dict[str, Any]:
    """Show the current state of the run; return its `run` (id), `state`, `url` and the states of its begun `steps`."""
    run = service.run(identity)
    current = steps(run, step_names())
    console.print(table(run, current))
    states = {step.name: step.state for step in current if step.state}
    return {"run": identity, "state": run.get("state"), "url": service.page(identity), "steps": states}


def _states(service: KfpClient, identity: str, pause: float, outage: float) -> Iterator[Thing]:
    """Yield the run repeatedly until it has ended. Raises ServiceError after an outage of `outage` seconds."""
    broken = 0.0
    while True:
        try:
            run = service.run(identity)
            broken = 0.0
            yield run
            if run.get("state") in ENDED:
                return
        except ServiceError as error:
            passing = isinstance(error, KfpUnreachableError) or (
                isinstance(error, KfpRefusedError) and error.status in PASSING
            )
            broken = broken or time.monotonic()
            if not passing or time.monotonic() - broken > outage:
                raise
        time.sleep(pause)


def _print_changes(current: list[Step], printed: dict[str, str], console: Console) -> None:
    for step in current:
        if step.state and printed.get(step.name) != step.state:
            printed[step.name] = step.state
            console.print(f"{step.name}: {step.state} {_span(step.seconds)}".rstrip(), highlight=False)


def outcome(service: KfpClient, run: Thing, steps: list[Step]) -> dict[str, Any]:
    """Return the result of a run that has ended. Raises RunFailedError unless it succeeded."""
    identity, state = str(run["run_id"]), str(run.get("state"))
    if state != "SUCCEEDED":
        failed = next((step for step in steps if step.state == "FAILED"), None)
        why = f"step {failed.name} failed{f' ({failed.error})' if failed.error else ''}" if failed else _reason(run)
        look = f"; see infill pipeline logs {identity} {failed.name}" if failed else ""
        raise RunFailedError(f"run {identity} ended as {state}: {why}{look}, or {service.page(identity)}")
    times = {step.name: round(step.seconds or 0.0, 1) for step in steps if step.state}
    links = {"url": service.page(identity), "mlflow": mlflow_page(run)}
    return {"run": identity, "state": state, **links, "steps": times}


def mlflow_page(run: Thing) -> str:
    """Return the run's page in MLflow: the one that KFP's plug-in names, else from the MLflow of the environment."""
    for plugin in (run.get("plugins_output") or {}).values():
        for entry in (plugin.get("entries") or {}).values():
            if str(entry.get("value", "")).startswith("http"):
                return str(entry["value"])
    return tracking.run_page(str(run["run_id"]))


def _reason(run: Thing) -> str:
    return str((run.get("error") or {}).get("message") or "KFP gives no reason")


def logs(service: KfpClient, identity: str, step: str, *, follow: bool, pause: float = 5.0) -> Iterator[str]:
    """Yield the lines of a step's pods; with `follow` also those that come until the step or the run has ended.

    KFP itself follows no log, so each is read again every `pause` seconds. Raises InputError for an unknown step, and
    for one without a log.
    """
    names = step_names()
    keys = {key for key, name in names.items() if name == step}
    if not keys:
        raise InputError(f"unknown step {step!r}; choose one of {', '.join(names.values())}")
    shown: dict[str, int] = {}
    while True:
        run = service.run(identity)
        yield from _new_lines(service, run, keys, shown)
        states = {run.get("state"), *(each.state for each in steps(run, names) if each.name == step)}
        if not follow or states & set(ENDED):
            break
        time.sleep(pause)
    if not shown:
        raise InputError(_no_log(step, identity, pods(_details(run), keys), service.namespace or "kubeflow"))


def _no_log(step: str, identity: str, names: list[str], namespace: str) -> str:
    """Return why there is nothing to show. KFP loses the logs of a long run when its workflow has ended."""
    if not names:
        return f"step {step} of run {identity} has no log: it has not begun, or its result was cached"
    commands = " or ".join(f"kubectl logs --namespace {namespace} --container main {name}" for name in names[-2:])
    return (
        f"Kubeflow Pipelines has no log of step {step} of run {identity}; if its pod still exists, {commands} shows it"
    )


def _new_lines(service: KfpClient, run: Thing, keys: set[str], shown: dict[str, int]) -> Iterator[str]:
    """Yield the lines after those `shown` of each pod, and count them there. A pod without a log is left out."""
    for pod in pods(_details(run), keys):
        try:
            for number, line in enumerate(service.log(str(run["run_id"]), pod)):
                if number >= shown.get(pod, 0):
                    shown[pod] = number + 1
                    yield line
        except KfpRefusedError as error:
            if error.status != 404:
                raise
