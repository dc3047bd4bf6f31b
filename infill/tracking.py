"""MLflow runs: one for a pipeline, a nested one for each stage.

This is the only module that imports mlflow for logging, and it does so when a run is opened: nothing here costs
anything while MLFLOW_TRACKING_URI is unset. Opening a run checks the server and raises ServiceError within seconds
when it is gone. From then on a thread sends what is logged, in batches and again after a failure, so that a slow or
restarted MLflow neither holds up nor ends a training; what could not be sent by the end of the stage is counted and
reported.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from infill import machine, manifest, moved_store, storage
from infill.errors import InputError, ServiceError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run

log = logging.getLogger(__name__)

EXPERIMENT: Final = "infill"
STAGE_TAG: Final = "infill.stage"
KEY_TAG: Final = "infill.key"
PARENT_TAG: Final = "mlflow.parentRunId"
PARENT_RUN: Final = "INFILL_PARENT_RUN_ID"
"""Environment variable with the id of the pipeline run that stages nest under."""

_MLFLOW_DEFAULTS: Final = {
    # MLflow waits 120 s and retries seven times; a stage should say at its start that the server is gone.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # Importing mlflow 3 starts a client that reports usage to its makers.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_METRICS_PER_CALL: Final = 1_000  # limits of MLflow's log-batch
_PARAMS_PER_CALL: Final = 100
_METRICS_KEPT: Final = 100_000
_PARAM_CHARS: Final = 6_000
_SEND_EVERY_S: Final = 2.0
_SAMPLE_EVERY_S: Final = 10.0
_LONGEST_PAUSE_S: Final = 60.0
CLOSE_WITHIN_S: Final = 30.0
_CALL_TRIES: Final = 3
_SECRET_WORDS: Final = {"key", "keys", "token", "password", "passwords", "passwd", "secret", "secrets", "credentials"}
_USER_PART: Final = re.compile(r"(\w://)[^/\s]+@")
_SECRET_QUERY: Final = re.compile(
    r"([?&][\w-]*(?:key|token|secret|password|signature)[\w-]*=)[^&\s'\"]+", re.IGNORECASE
)


def local_store(out: str) -> str:
    """The tracking URI (sqlite) of a run that writes to the local folder `out`; artifacts go beside the database.

    Raises InputError when `out` is remote: a database needs a disk.
    """
    if not storage.is_local(out):
        raise InputError(f"{out} cannot hold MLflow's database; set MLFLOW_TRACKING_URI to a server")
    folder = storage.local_path(out).resolve() / moved_store.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    moved_store.relocate(folder / "mlflow.db")
    return database_uri(folder / "mlflow.db")


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, its file made absolute if it is a database's; "" when nothing is tracked."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    database = database_file(uri)
    return uri if database is None else "".join([database_uri(database), *uri.partition("?")[1:]])


def mask(text: str) -> str:
    """`text` with `user:password@` and secrets in query strings of URIs replaced by asterisks."""
    return _SECRET_QUERY.sub(r"\1***", _USER_PART.sub(r"\1***@", text))


def flatten(config: Any) -> dict[str, str]:
    """A configuration (dataclass or mapping) as MLflow parameters: dotted field name -> text, secrets masked.

    A field is a secret when a word of its name is one of key, token, password, secret (`api_key`, not `batch_tokens`).
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    flat: dict[str, str] = {}
    for name, value in dict(config).items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": text for inner, text in flatten(value).items()}
        elif _SECRET_WORDS & set(re.sub(r"([a-z])([A-Z])", r"\1_\2", str(name)).lower().split("_")) and value:
            flat[name] = "***"
        else:
            text = mask(value if isinstance(value, str) else json.dumps(value, default=str))
            flat[name] = text if len(text) <= _PARAM_CHARS else text[: _PARAM_CHARS - 1] + "…"
    return flat


class Tracker:
    """What a stage logs to. This base class logs nothing: it stands in where no tracking is configured."""

    run_id: str = ""
    parent_id: str = ""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log `values` at `step`, the number of tokens seen."""

    def params(self, values: Any) -> None:
        """Log a configuration or a mapping, flattened and without secrets."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run."""

    def artifact(self, path: Path | str, folder: str = "") -> None:
        """Log a small local file, which must stay until the run is closed. Models are referred to by URI instead."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows of equal keys as `name`.json, which MLflow shows as a table."""

    def conclude(self, values: Mapping[str, float], report: Path | str) -> None:
        """Log what the whole pipeline came to in its own run, the parent of this one, or here when there is none."""


class RunTracker(Tracker):
    """Writes to one MLflow run through a thread of its own, which samples the machine as well."""

    def __init__(self, client: "MlflowClient", run: "Run") -> None:
        self.run_id = run.info.run_id
        self.parent_id = run.data.tags.get(PARENT_TAG, "")
        self._client = client
        self._started_ms: int = run.info.start_time
        self._logged = {
            name: max(point.step for point in client.get_metric_history(self.run_id, name))
            for name in run.data.metrics
            if not name.startswith("system/")
        }
        """The last step of each metric when the run was taken up again: a resumed stage repeats its first rows."""
        self._metrics: deque[Metric] = deque()
        self._calls: deque[tuple[Callable[[], object], int]] = deque()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.failures = 0
        """Attempts to send that failed."""
        self.lost = 0
        """Calls and metrics given up."""
        self._thread = threading.Thread(target=self._work, name="infill-tracking", daemon=True)
        self._thread.start()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        named = {_metric_name(name): float(value) for name, value in values.items()}
        new = [
            Metric(name, value, now, int(step))
            for name, value in named.items()
            if step == 0 or step > self._logged.get(name, -1)
        ]
        with self._lock:
            if len(self._metrics) < _METRICS_KEPT:
                self._metrics.extend(new)
            else:
                self.lost += len(new)

    def params(self, values: Any) -> None:
        for batch in _params(values):
            self._call(partial(self._client.log_batch, self.run_id, params=batch))

    def tags(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            self._call(partial(self._client.set_tag, self.run_id, name, mask(value)))

    def artifact(self, path: Path | str, folder: str = "") -> None:
        self._call(lambda: self._client.log_artifact(self.run_id, str(path), folder or None))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        columns = list(rows[0]) if rows else []
        value = {"columns": columns, "data": [[row.get(column) for column in columns] for row in rows]}
        self._call(lambda: self._client.log_dict(self.run_id, value, f"{name}.json"))
        listed = json.dumps([{"path": f"{name}.json", "type": "table"}])
        self._call(lambda: self._client.set_tag(self.run_id, "mlflow.loggedArtifacts", listed))

    def conclude(self, values: Mapping[str, float], report: Path | str) -> None:
        run_id = self.parent_id or self.run_id
        for name, value in values.items():
            self._call(partial(self._client.log_metric, run_id, _metric_name(name), float(value)))
        self._call(partial(self._client.log_artifact, run_id, str(report)))

    def close(self, status: str) -> None:
        """Send what is left, for at most half a minute, and end the run with `status`."""
        self._call(lambda: self._client.set_terminated(self.run_id, status))
        self._closing.set()
        self._thread.join(CLOSE_WITHIN_S + 5)
        self.lost += len(self._metrics) + len(self._calls)
        if self.lost:
            log.warning(
                "MLflow at %s missed %d records of run %s after %d failures; the files of the stage have them",
                mask(tracking_uri()),
                self.lost,
                self.run_id,
                self.failures,
            )

    def _call(self, send: Callable[[], object]) -> None:
        with self._lock:
            self._calls.append((send, _CALL_TRIES))

    def _work(self) -> None:
        """The thread: sample, send, pause; longer pauses after failures, and a last effort when the run is closed."""
        sample_every = float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL") or _SAMPLE_EVERY_S)
        sampling = os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() in {"1", "true"}
        next_sample, pause = time.monotonic(), _SEND_EVERY_S
        while not self._closing.is_set():
            if sampling and time.monotonic() >= next_sample:
                self._sample()
                next_sample = time.monotonic() + sample_every
            pause = _SEND_EVERY_S if self._send() else min(2 * pause, _LONGEST_PAUSE_S)
            self._closing.wait(pause)
        deadline, pause = time.monotonic() + CLOSE_WITHIN_S, 0.5
        if sampling:
            self._sample()
        while not self._send() and time.monotonic() + pause < deadline:
            time.sleep(pause)
            pause *= 2

    def _sample(self) -> None:
        seconds = (time.time_ns() // 1_000_000 - self._started_ms) // 1_000
        self.metrics(
            {f"system/{name}": value for name, value in machine.system_metrics().items()}, step=max(0, seconds)
        )

    def _send(self) -> bool:
        """Send what waits; whether all of it is gone."""
        while self._metrics:
            with self._lock:
                batch = [self._metrics.popleft() for _ in range(min(len(self._metrics), _METRICS_PER_CALL))]
            if not self._attempt(partial(self._client.log_batch, self.run_id, metrics=batch)):
                with self._lock:
                    self._metrics.extendleft(reversed(batch))
                return False
        while self._calls:
            send, tries = self._calls[0]
            done = self._attempt(send)
            with self._lock:
                self._calls.popleft()
                if not done and tries > 1:
                    self._calls.appendleft((send, tries - 1))
            if not done:
                self.lost += tries == 1
                return False
        return True

    def _attempt(self, send: Callable[[], object]) -> bool:
        try:
            send()
        except Exception as error:  # whatever a client library raises, it must not end a training
            self.failures += 1
            if self.failures == 1:
                log.warning("MLflow at %s does not take records now: %s", mask(tracking_uri()), _sentence(error))
            return False
        return True


def _params(values: Any) -> Iterator[list["Param"]]:
    """The flattened `values` in batches that MLflow takes."""
    from mlflow.entities import Param

    params = [Param(name, value) for name, value in flatten(values).items()]
    for start in range(0, len(params), _PARAMS_PER_CALL):
        yield params[start : start + _PARAMS_PER_CALL]


def _metric_name(name: str) -> str:
    """`name` with what MLflow does not allow in one replaced by underscores."""
    return re.sub(r"[^\w\-./ :]", "_", name)


def _sentence(error: BaseException) -> str:
    """The first line of an error's message, without secrets."""
    return mask(str(error).strip().partition("\n")[0])[:500] or type(error).__name__


def client() -> "MlflowClient":
    """A client of the MLflow that MLFLOW_TRACKING_URI names, after one answered question.

    Raises ServiceError when it cannot be used, InputError when the variable is unset.
    """
    uri = tracking_uri()
    if not uri:
        raise InputError("MLFLOW_TRACKING_URI is not set; set it to an MLflow server or to sqlite:///path/to/mlflow.db")
    for name, value in _MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    if database := database_file(uri):
        database.parent.mkdir(parents=True, exist_ok=True)
        moved_store.relocate(database)
    from mlflow import MlflowClient

    with _service_errors():
        made = MlflowClient(tracking_uri=uri, registry_uri=uri)
        made.search_experiments(max_results=1)
    if database and _escaped(database) != str(database):
        with contextlib.suppress(OSError):  # MLflow has made the folder of the URI's text as well
            os.removedirs(Path(_escaped(database)).parent)
    return made


@contextlib.contextmanager
def _service_errors() -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        text = _sentence(error)
        raise ServiceError(
            f"MLflow at {mask(tracking_uri())} cannot be used ({text}); {_advice(text, tracking_uri())}"
        ) from error


def _advice(text: str, uri: str) -> str:
    """Return what to do about the error `text` of the MLflow at `uri`."""
    if "403" in text and "host" in text.lower():
        return "add the name it is called by to MLFLOW_SERVER_ALLOWED_HOSTS of the server"
    if "database schema" in text:
        return "this database belongs to another version of MLflow: upgrade it by mlflow db upgrade, or use another"
    if database := database_file(uri):
        return f"check free space and rights of {database.parent}"
    return "start it, correct MLFLOW_TRACKING_URI, or unset it to run without tracking"


def database_uri(file: Path) -> str:
    """Return the tracking URI of the sqlite database `file`, an absolute path."""
    return f"sqlite:///{_escaped(file)}"


def _escaped(file: Path) -> str:
    """Return `file` as it must stand in a URI of SQLAlchemy, which decodes it and takes a ? for the path's end."""
    return str(file).replace("%", "%25").replace("?", "%3F")


def database_file(uri: str) -> Path | None:
    """Return the file of a sqlite tracking URI as an absolute path; None for a server and a database in memory."""
    file = uri.removeprefix("sqlite:///")
    if file == uri or file.startswith((":", "file:")):
        return None
    return storage.local_path(unquote(file.partition("?")[0])).resolve()


def _experiment(mlflow: "MlflowClient") -> str:
    """The id of the experiment that the environment names, else of `infill`, created if missing."""
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return _active(mlflow, given)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = mlflow.get_experiment_by_name(name)
    if found is None:
        database = database_file(tracking_uri())
        # Without a server MLflow would put artifacts below the working directory.
        location = None if database is None else (database.parent / "artifacts").as_uri()
        tags = {} if database is None else {moved_store.HOME_TAG: str(database.parent)}
        try:
            return str(mlflow.create_experiment(name, artifact_location=location, tags=tags))
        except Exception:
            found = mlflow.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
    return _active(mlflow, str(found.experiment_id))


def _active(mlflow: "MlflowClient", experiment_id: str) -> str:
    """Return the id of an experiment that takes runs. Raise InputError for one that is missing or deleted."""
    from mlflow.exceptions import MlflowException

    try:
        experiment = mlflow.get_experiment(experiment_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InputError(
            f"MLflow at {mask(tracking_uri())} has no experiment {experiment_id}; correct MLFLOW_EXPERIMENT_ID"
        ) from error
    if experiment.lifecycle_stage == "deleted":
        raise InputError(
            f"the experiment {experiment.name!r} of MLflow at {mask(tracking_uri())} is deleted; restore it by mlflow "
            f"experiments restore --experiment-id {experiment_id}, or set MLFLOW_EXPERIMENT_NAME to another"
        )
    return experiment_id


def _find_or_create(mlflow: "MlflowClient", experiment: str, name: str, tags: Mapping[str, str], find: bool) -> "Run":
    """The run with these infill and parent tags, running again, or a new one."""
    identity = {tag: value for tag, value in tags.items() if tag in {STAGE_TAG, KEY_TAG, PARENT_TAG}}
    if find:
        wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in identity.items())
        for run in mlflow.search_runs([experiment], wanted, max_results=1):
            mlflow.update_run(run.info.run_id, status="RUNNING")
            return run
    return mlflow.create_run(experiment, run_name=name, tags={tag: mask(value) for tag, value in tags.items()})


def _hash(text: str) -> str:
    """24 hexadecimal digits, which need no quoting in MLflow's search language."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _common_tags() -> dict[str, str]:
    tags = {"mlflow.source.name": "infill", "mlflow.source.git.commit": manifest.commit()}
    if image := os.environ.get("INFILL_IMAGE"):
        tags["infill.image"] = image
    return tags


def parent_run(name: str, key: str, *, tags: Mapping[str, str] | None = None, config: object | None = None) -> str:
    """The id of the pipeline run `key`, created or, after a kill, taken up again; "" when nothing is tracked.

    Set it as INFILL_PARENT_RUN_ID for the stages; `open_run` ends it. One key must mean one `config`: MLflow refuses a
    parameter that has changed. Raises ServiceError when MLflow is gone.
    """
    if not tracking_uri():
        return ""
    mlflow = client()
    with _service_errors():
        identity = {KEY_TAG: _hash(key), STAGE_TAG: "pipeline"}
        run = _find_or_create(mlflow, _experiment(mlflow), name, {**_common_tags(), **(tags or {}), **identity}, True)
        if config is not None:
            for batch in _params(config):
                mlflow.log_batch(run.info.run_id, params=batch)
    return str(run.info.run_id)


def run_of(key: str) -> "Run | None":
    """The MLflow run of the pipeline run `key`; None when there is none. Raises ServiceError when MLflow is gone."""
    mlflow = client()
    with _service_errors():
        experiment = mlflow.get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
        if experiment is None:
            return None
        wanted = f"tags.`{KEY_TAG}` = '{_hash(key)}'"
        return next(iter(mlflow.search_runs([experiment.experiment_id], wanted, max_results=1)), None)


def run_page(key: str) -> str:
    """The address, for a browser, of the pipeline run `key` on the MLflow server; "" when it cannot be told."""
    uri = tracking_uri()
    if not uri.startswith("http"):
        return ""
    try:
        run = run_of(key)
    except ServiceError as error:
        log.warning("%s", error)
        return ""
    return f"{uri.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" if run else ""


def end_run(run_id: str, status: str) -> None:
    """Give an existing run its final status, FINISHED or FAILED; nothing when `run_id` is ""."""
    if run_id and tracking_uri():
        mlflow = client()
        with _service_errors():
            mlflow.set_terminated(run_id, status)


@contextlib.contextmanager
def open_run(run_id: str) -> Iterator[Tracker]:
    """A tracker of an existing run, which is ended when the block ends; of nothing when `run_id` is ""."""
    if not run_id or not tracking_uri():
        yield Tracker()
        return
    mlflow = client()
    with _service_errors():
        run = mlflow.get_run(run_id)
        mlflow.update_run(run_id, status="RUNNING")
    with _writing(mlflow, run) as tracker:
        yield tracker


@contextlib.contextmanager
def stage_run(stage: str, *, config: object, tags: Mapping[str, str] | None = None, key: str = "") -> Iterator[Tracker]:
    """A tracker for one run of `stage`; `current()` gives it to the code below.

    The run is MLFLOW_RUN_ID when the platform has opened one, else nested under INFILL_PARENT_RUN_ID, else a run of
    its own. A repeated stage takes up its nested run again: it is found by the configuration that is logged to it,
    since MLflow refuses a parameter that has changed, and by `key`, the artifact's, or if that is empty by `tags`.
    Raises ServiceError when MLflow is gone.
    """
    if not tracking_uri():
        yield Tracker()
        return
    mlflow = client()
    parent, given = os.environ.get(PARENT_RUN, ""), os.environ.get("MLFLOW_RUN_ID")
    what = json.dumps([key or dict(tags or {}), flatten(config)], sort_keys=True)
    identity = {STAGE_TAG: stage, KEY_TAG: _hash(what)} | ({PARENT_TAG: parent} if parent and not given else {})
    all_tags = {**_common_tags(), **(tags or {}), **identity}
    with _service_errors():
        if given:
            run = mlflow.get_run(given)
            mlflow.update_run(given, status="RUNNING")
        else:
            experiment = _active(mlflow, mlflow.get_run(parent).info.experiment_id) if parent else _experiment(mlflow)
            run = _find_or_create(mlflow, experiment, stage, all_tags, bool(parent))
    with _writing(mlflow, run) as tracker:
        if given:
            tracker.tags(all_tags)
        tracker.params(config)
        yield tracker


_open: list[Tracker] = []


@contextlib.contextmanager
def _writing(mlflow: "MlflowClient", run: "Run") -> Iterator[Tracker]:
    with _service_errors():
        tracker = RunTracker(mlflow, run)
    _open.append(tracker)
    status = "KILLED"
    try:
        yield tracker
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        _open.remove(tracker)
        tracker.close(status)


def current() -> Tracker:
    """The tracker of the innermost stage run that is open in this process; one that logs nothing when there is none."""
    return _open[-1] if _open else Tracker()
