"""MLflow runs: one for a pipeline, and a nested one for each stage.

Only this module imports mlflow for logging, when it opens a run; while MLFLOW_TRACKING_URI is unset, nothing here costs
time. Opening a run checks the server and raises ServiceError within seconds if it is unreachable. Then a thread sends
what is logged, in batches and with retries, so that a slow or restarted MLflow neither delays nor ends a training.
Records that could not be sent by the end of the stage are counted and reported.
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
    # By default MLflow waits 120 s and retries seven times; a stage should report a missing server when it starts.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # Importing mlflow 3 starts a client that reports usage to its developers.
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
    """Return the tracking URI (sqlite) of a run that writes to the local folder `out`; create its folder.

    Artifacts are stored next to the database. Raises InputError when `out` is remote: a database needs a disk.
    """
    if not storage.is_local(out):
        raise InputError(f"{out} cannot hold MLflow's database; set MLFLOW_TRACKING_URI to a server")
    folder = storage.local_path(out).resolve() / moved_store.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    moved_store.relocate(folder / "mlflow.db")
    return database_uri(folder / "mlflow.db")


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, with the absolute path if it is a sqlite database; "" if nothing is tracked."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    database = database_file(uri)
    return uri if database is None else "".join([database_uri(database), *uri.partition("?")[1:]])


def mask(text: str) -> str:
    """Return `text` with `user:password@` and secrets in the query strings of URIs replaced by asterisks."""
    return _SECRET_QUERY.sub(r"\1***", _USER_PART.sub(r"\1***@", text))


def flatten(config: Any) -> dict[str, str]:
    """Return a configuration (dataclass or mapping) as MLflow parameters: text by dotted field name, secrets masked.

    A field is a secret if a word of its name is one of key, token, password, secret (`api_key`, not `batch_tokens`).
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
    """The interface for what a stage logs. This base class logs nothing; it is used when no tracking is configured."""

    run_id: str = ""
    parent_id: str = ""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log `values` at `step`, the number of tokens seen."""

    def params(self, values: Any) -> None:
        """Log a configuration or a mapping, flattened and without secrets."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run."""

    def artifact(self, path: Path | str, folder: str = "") -> None:
        """Log a small local file, which must exist until the run is closed. Log the URI of a model instead."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows of equal keys as `name`.json, which MLflow shows as a table."""

    def conclude(self, values: Mapping[str, float], report: Path | str) -> None:
        """Log the results of the whole pipeline to its own run, the parent of this one, or here if there is none."""


class RunTracker(Tracker):
    """A tracker of one MLflow run; its own thread sends the records and samples the machine's load."""

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
        """The last step of each metric that was logged before: a resumed stage repeats its first rows."""
        self._metrics: deque[Metric] = deque()
        self._calls: deque[tuple[Callable[[], object], int]] = deque()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.failures = 0
        """Number of failed attempts to send."""
        self.lost = 0
        """Number of calls and metrics that were given up."""
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
        """Send the remaining records, for at most half a minute, and end the run with `status`."""
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
        """Sample, send and pause until the run is closed, with longer pauses after failures; then send the rest."""
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
        """Send the waiting records; return whether all of them were sent."""
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
                log.warning("MLflow at %s does not accept records: %s", mask(tracking_uri()), _sentence(error))
            return False
        return True


def _params(values: Any) -> Iterator[list["Param"]]:
    """Yield the flattened `values` in batches that MLflow accepts."""
    from mlflow.entities import Param

    params = [Param(name, value) for name, value in flatten(values).items()]
    for start in range(0, len(params), _PARAMS_PER_CALL):
        yield params[start : start + _PARAMS_PER_CALL]


def _metric_name(name: str) -> str:
    """Return `name` with characters that MLflow does not allow replaced by underscores."""
    return re.sub(r"[^\w\-./ :]", "_", name)


def _sentence(error: BaseException) -> str:
    """Return the first line of an error's message, without secrets."""
    return mask(str(error).strip().partition("\n")[0])[:500] or type(error).__name__


def client() -> "MlflowClient":
    """Return a client of the MLflow at MLFLOW_TRACKING_URI, after one successful request.

    Raises ServiceError when MLflow cannot be used, InputError when the variable is unset.
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
        mlflow = MlflowClient(tracking_uri=uri, registry_uri=uri)
        mlflow.search_experiments(max_results=1)
    if database and _escaped(database) != str(database):
        with contextlib.suppress(OSError):  # MLflow has also created the folder of the escaped path
            os.removedirs(Path(_escaped(database)).parent)
    return mlflow


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
        return "add the host name in this URI to the server's MLFLOW_SERVER_ALLOWED_HOSTS"
    if "database schema" in text:
        return "this database belongs to another version of MLflow: run mlflow db upgrade on it, or use another"
    if database := database_file(uri):
        return f"check free space and permissions of {database.parent}"
    return "start it, correct MLFLOW_TRACKING_URI, or unset it to run without tracking"


def database_uri(file: Path) -> str:
    """Return the tracking URI of the sqlite database `file`, an absolute path."""
    return f"sqlite:///{_escaped(file)}"


def _escaped(file: Path) -> str:
    """Return `file` escaped for a URI of SQLAlchemy, which decodes the path and ends it at a question mark."""
    return str(file).replace("%", "%25").replace("?", "%3F")


def database_file(uri: str) -> Path | None:
    """Return the absolute path of the file in a sqlite tracking URI; None for a server or a database in memory."""
    file = uri.removeprefix("sqlite:///")
    if file == uri or file.startswith((":", "file:")):
        return None
    return storage.local_path(unquote(file.partition("?")[0])).resolve()


def _experiment(mlflow: "MlflowClient") -> str:
    """Return the id of the experiment that the environment names, by default `infill`; create it if it is missing."""
    if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return _active(mlflow, experiment_id)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    experiment = mlflow.get_experiment_by_name(name)
    if experiment is None:
        database = database_file(tracking_uri())
        # Without a server MLflow would store artifacts below the working directory.
        location = None if database is None else (database.parent / "artifacts").as_uri()
        tags = {} if database is None else {moved_store.HOME_TAG: str(database.parent)}
        try:
            return str(mlflow.create_experiment(name, artifact_location=location, tags=tags))
        except Exception:
            experiment = mlflow.get_experiment_by_name(name)  # another process was faster
            if experiment is None:
                raise
    return _active(mlflow, str(experiment.experiment_id))


def _active(mlflow: "MlflowClient", experiment_id: str) -> str:
    """Return the id of an experiment that accepts runs. Raises InputError for one that is missing or deleted."""
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
            f"experiments restore --experiment-id {experiment_id}, or set MLFLOW_EXPERIMENT_NAME to another name"
        )
    return experiment_id


def _find_or_create(mlflow: "MlflowClient", experiment: str, name: str, tags: Mapping[str, str], find: bool) -> "Run":
    """Return the run with these infill and parent tags, set to running again, or a new one."""
    identity = {tag: value for tag, value in tags.items() if tag in {STAGE_TAG, KEY_TAG, PARENT_TAG}}
    if find:
        wanted = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in identity.items())
        for run in mlflow.search_runs([experiment], wanted, max_results=1):
            mlflow.update_run(run.info.run_id, status="RUNNING")
            return run
    return mlflow.create_run(experiment, run_name=name, tags={tag: mask(value) for tag, value in tags.items()})


def _hash(text: str) -> str:
    """Return 24 hexadecimal digits, which need no quoting in MLflow's search language."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _common_tags() -> dict[str, str]:
    tags = {"mlflow.source.name": "infill", "mlflow.source.git.commit": manifest.commit()}
    if image := os.environ.get("INFILL_IMAGE"):
        tags["infill.image"] = image
    return tags


def parent_run(name: str, key: str, *, tags: Mapping[str, str] | None = None, config: object | None = None) -> str:
    """Return the id of the MLflow run of the pipeline run `key`, a new or an existing one; "" if nothing is tracked.

    Set it as INFILL_PARENT_RUN_ID for the stages; `open_run` ends it. A key must always have the same `config`, since
    MLflow refuses a changed parameter. Raises ServiceError when MLflow is unreachable.
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
    """Return the MLflow run of the pipeline run `key`, or None. Raises ServiceError when MLflow is unreachable."""
    mlflow = client()
    with _service_errors():
        experiment = mlflow.get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
        if experiment is None:
            return None
        wanted = f"tags.`{KEY_TAG}` = '{_hash(key)}'"
        return next(iter(mlflow.search_runs([experiment.experiment_id], wanted, max_results=1)), None)


def run_page(key: str) -> str:
    """Return the web address of the pipeline run `key` on the MLflow server; "" if it is unknown."""
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
    """Set the final status of an existing run, FINISHED or FAILED; do nothing if `run_id` is ""."""
    if run_id and tracking_uri():
        mlflow = client()
        with _service_errors():
            mlflow.set_terminated(run_id, status)


@contextlib.contextmanager
def open_run(run_id: str) -> Iterator[Tracker]:
    """Yield a tracker of an existing run, and end the run with the block; for an empty `run_id` it logs nothing."""
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
    """Yield a tracker for one run of `stage`; in the block, `current()` returns it.

    The run is MLFLOW_RUN_ID if the platform has opened one, else nested under INFILL_PARENT_RUN_ID, else a run of its
    own. A repeated stage continues its nested run, which is identified by its configuration (MLflow refuses a changed
    parameter) and by `key`, the artifact's key, or by `tags` if that is empty. Raises ServiceError when MLflow is
    unreachable.
    """
    if not tracking_uri():
        yield Tracker()
        return
    mlflow = client()
    parent, run_id = os.environ.get(PARENT_RUN, ""), os.environ.get("MLFLOW_RUN_ID")
    what = json.dumps([key or dict(tags or {}), flatten(config)], sort_keys=True)
    identity = {STAGE_TAG: stage, KEY_TAG: _hash(what)} | ({PARENT_TAG: parent} if parent and not run_id else {})
    all_tags = {**_common_tags(), **(tags or {}), **identity}
    with _service_errors():
        if run_id:
            run = mlflow.get_run(run_id)
            mlflow.update_run(run_id, status="RUNNING")
        else:
            experiment = _active(mlflow, mlflow.get_run(parent).info.experiment_id) if parent else _experiment(mlflow)
            run = _find_or_create(mlflow, experiment, stage, all_tags, bool(parent))
    with _writing(mlflow, run) as tracker:
        if run_id:
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
    """Return the tracker of the innermost open stage run of this process; without one, a tracker that logs nothing."""
    return _open[-1] if _open else Tracker()
