"""The pipeline's first step: check that everything the run needs is available, and estimate its cost.

All checks run at once and none may take longer than `PATIENCE_S`, so that a run that cannot succeed ends within a
minute, with a sentence for each reason and without partial results.
"""

import contextlib
import hashlib
import importlib
import json
import logging
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from infill import bases, storage, tracking
from infill import config as configuration
from infill.cluster import job_settings
from infill.config import Preset
from infill.errors import InfillError, InputError
from infill.stages import RAY_STAGES, RUN, sizing

PATIENCE_S: Final = 50.0
IN_A_POD: Final = "KUBERNETES_SERVICE_HOST"
"""Environment variable that Kubernetes sets in every pod."""

log = logging.getLogger(__name__)


def check(*, preset: str, settings: str, store: str, budget: float) -> str:
    """Check a run, open its MLflow run, and return the digest of its outside inputs (sources and base model).

    `budget` is in GPU-hours. Raises InputError with one sentence for each problem.
    """
    config = configuration.resolve(preset, configuration.from_text(settings))
    checks: dict[str, Callable[[], Iterator[str]]] = {
        "the GPU-hours": lambda: _budget(preset, config, budget),
        "the store": lambda: _store(store),
        "MLflow": _mlflow,
        "the cluster": lambda: _cluster(preset, config),
        "the base model": lambda: _reach(config),
    }
    _load(store)
    collect = _start(checks)
    digest, problems = "", []
    try:
        digest = _content(config)  # at the same time, without a limit: sources may be large
    except InfillError as error:
        problems.append(str(error))
    for name, answer in collect().items():
        problems += [f"{name} did not answer within {PATIENCE_S:g} s"] if answer is None else answer
    if problems:
        numbered = "; ".join(f"({number}) {each}" for number, each in enumerate(problems, 1))
        raise InputError(problems[0] if len(problems) == 1 else f"{len(problems)} problems: {numbered}")
    if run := os.environ.get(RUN, ""):
        tracking.parent_run(f"infill-{preset}", run, tags={"infill.preset": preset}, config=config)
    return digest


def _load(store: str) -> None:
    """Import the libraries of the checks: threads that import one at the same time may see it half initialised."""
    names = ["infill.corpus.sources", "mlflow", "sqlalchemy.exc"]
    if job_settings.read() is not None:
        names += ["infill.cluster.api", "infill.cluster.admission", "infill.release.deploy", "infill.release.frame"]
    for name in names:
        importlib.import_module(name)
    with contextlib.suppress(InfillError):  # the check of the store reports the problem
        storage.filesystem(store)


def _start(checks: Mapping[str, Callable[[], Iterator[str]]]) -> Callable[[], dict[str, list[str] | None]]:
    """Start the checks; return a function that waits for them and returns the problems found by each, in their order.

    The value is None for a check that takes too long. The threads are daemons, because a client library that waits for
    a dead server must not keep the process alive.
    """
    answers: queue.SimpleQueue[tuple[str, list[str] | BaseException]] = queue.SimpleQueue()
    until = time.monotonic() + PATIENCE_S

    def run(name: str, call: Callable[[], Iterator[str]]) -> None:
        try:
            answers.put((name, list(call())))
        except InfillError as error:
            answers.put((name, [str(error)]))
        except BaseException as error:
            answers.put((name, error))

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in checks.items()]
    for thread in threads:
        thread.start()

    def collect() -> dict[str, list[str] | None]:
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        problems: dict[str, list[str] | None] = dict.fromkeys(checks)
        while not answers.empty():
            name, answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            problems[name] = answer
        return problems

    return collect


def _budget(preset: str, config: Preset, budget: float) -> Iterator[str]:
    hours = sizing.gpu_hours(preset, config)
    total = sum(hours.values())
    each = ", ".join(f"{name} {value:.1f}" for name, value in hours.items() if value)
    log.info("about %.1f GPU-hours: %s" if each else "no GPU is needed", *([total, each] if each else []))
    if total > budget:
        most = max(hours, key=lambda name: hours[name])
        yield (
            f"the run would take about {total:,.1f} GPU-hours ({most} alone {hours[most]:,.1f}), more than the budget "
            f"of {budget:,.1f}: raise the parameter budget, or choose a smaller preset"
        )


def _store(store: str) -> Iterator[str]:
    """Write, read and remove a file, since permissions for the three may differ; yield the problems."""
    if os.environ.get(IN_A_POD) and storage.is_local(store):
        yield (
            f"the store {store} is a folder of this pod and would be lost with it: "
            "choose an object store, such as s3://bucket/infill"
        )
        return
    probe, text = storage.join(store, f".preflight-{uuid.uuid4().hex}"), b"written by Infill's preflight"
    try:
        storage.write_bytes(probe, text)
        if storage.read_bytes(probe) != text:
            yield f"the store {store} returns other bytes than were written to it: choose another store"
        storage.remove(probe)
    except InfillError as error:
        yield f"the store {store} cannot be written, read or cleaned ({error})"


def _mlflow() -> Iterator[str]:
    tracking.client()
    yield from ()


def _cluster(preset: str, config: Preset) -> Iterator[str]:
    settings = job_settings.read()
    if settings is None:
        if os.environ.get(IN_A_POD):
            yield (
                f"this pod has no {job_settings.VARIABLE}: install charts/infill-platform in its namespace, whose "
                "ConfigMap infill-cluster sets it"
            )
        return
    if not os.environ.get(RUN):
        yield f"{RUN} is not set: this step does not belong to a compiled pipeline; compile the pipeline again"
        return
    from infill.cluster import admission, api  # with the kubernetes client

    jobs = [
        settings.job(
            run=os.environ[RUN],
            stage=stage,
            config_hash="preflight",
            entrypoint=("true",),
            env={},
            groups=sizing.groups(preset, config, stage),
            driver_gpus=sizing.driver_gpus(preset, config, stage),
        )
        for stage in RAY_STAGES
    ]
    connected = api.connect()
    if problems := admission.problems(connected, jobs):
        yield from problems
        return
    from infill.release import deploy, frame

    frame.read(connected, deploy.release_of(config.deploy))


def _content(config: Preset) -> str:
    """Return a digest of sources, base model, adapters and feedback: an input of the steps that read them, for KFP."""
    from infill.corpus import sources

    state = [sources.fingerprint(config.corpus.sources), *map(bases.fingerprint, _bases(config))]
    adapters = {config.pretrain.adapter, config.pretrain.train.lora_start, config.sft.train.lora_start} - {""}
    for adapter in sorted(adapters):
        if not storage.exists(adapter):
            raise InputError(f"there is no adapter at {adapter}")
        state.append(storage.fingerprint(adapter))
    if config.preferences.feedback:
        from infill.preferences import feedback

        state.append(str(feedback.digests(config.preferences.feedback)))
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _bases(config: Preset) -> list[str]:
    """Return what names the base model."""
    return sorted({config.tokenizer.base_model, config.pretrain.base_model} - {""})


def _reach(config: Preset) -> Iterator[str]:
    """Yield an error for each base that only a package index has: a pod fetches nothing from one."""
    for base in _bases(config):
        if os.environ.get(IN_A_POD) and base.startswith(storage.PACKAGE):
            yield (
                f"the base model {base} is fetched by pip, which our images do not have: write it to the object store, "
                f"infill export base {base} --to s3://bucket/base, and set base_model to that"
            )
