"""The pipeline's first step: is everything there that the run needs, and what will it cost?

All checks run at once and none may take longer than `PATIENCE_S`, so that a run that cannot succeed ends within a
minute, with a sentence for each reason and nothing half-made.
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

from infill import bases, stages, storage, tracking
from infill import config as configuration
from infill.cluster import settings as cluster_settings
from infill.cluster import sizing
from infill.config import Preset
from infill.errors import InfillError, InputError

PATIENCE_S: Final = 50.0
IN_A_POD: Final = "KUBERNETES_SERVICE_HOST"
"""Environment variable that Kubernetes sets in every pod."""

log = logging.getLogger(__name__)


def check(*, preset: str, settings: str, store: str, budget: float) -> str:
    """The digest of what the run reads from outside (sources, base model), once nothing speaks against the run.

    `budget` is in GPU-hours. Raises InputError with one sentence for each thing that is amiss; otherwise the run's
    MLflow run is opened.
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
    digest, found = "", []
    try:
        digest = _content(config)  # meanwhile, and for as long as it takes: sources may be large
    except InfillError as error:
        found.append(str(error))
    for name, problems in collect().items():
        found += [f"{name} did not answer within {PATIENCE_S:g} s"] if problems is None else problems
    if found:
        numbered = "; ".join(f"({number}) {each}" for number, each in enumerate(found, 1))
        raise InputError(found[0] if len(found) == 1 else f"{len(found)} things are in the way: {numbered}")
    if run := os.environ.get(stages.RUN, ""):
        tracking.parent_run(f"infill-{preset}", run, tags={"infill.preset": preset}, config=config)
    return digest


def _load(store: str) -> None:
    """Import here what the checks need: threads that import a library for the first time at once see it half-made."""
    names = ["infill.corpus.sources", "mlflow", "sqlalchemy.exc"]
    if cluster_settings.read() is not None:
        names += ["infill.cluster.api", "infill.cluster.preflight", "infill.release.deploy", "infill.release.frame"]
    for name in names:
        importlib.import_module(name)
    with contextlib.suppress(InfillError):  # the check of the store says what is wrong with it
        storage.filesystem(store)


def _start(checks: Mapping[str, Callable[[], Iterator[str]]]) -> Callable[[], dict[str, list[str] | None]]:
    """Start the checks; the result waits and tells what each found, in their order, None for one that takes too long.

    Daemon threads, because a client library that waits for a dead server must not keep the process alive.
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
        found: dict[str, list[str] | None] = dict.fromkeys(checks)
        while not answers.empty():
            name, answer = answers.get()
            if isinstance(answer, BaseException):
                raise answer
            found[name] = answer
        return found

    return collect


def _budget(preset: str, config: Preset, budget: float) -> Iterator[str]:
    hours = sizing.gpu_hours(preset, config)
    total = sum(hours.values())
    each = ", ".join(f"{name} {value:.1f}" for name, value in hours.items() if value)
    log.info("about %.1f GPU-hours: %s" if each else "no GPU is needed", *([total, each] if each else []))
    if total > budget:
        most = max(hours, key=lambda name: hours[name])
        yield (
            f"the run would take about {total:,.1f} GPU-hours ({most} alone {hours[most]:,.1f}), the budget is "
            f"{budget:,.1f}: raise the parameter budget, or choose a smaller preset"
        )


def _store(store: str) -> Iterator[str]:
    """Written, read back and removed: rights differ between the three."""
    if os.environ.get(IN_A_POD) and storage.is_local(store):
        yield f"the store {store} is a folder of this pod, which ends with it: name an object store, as s3://bucket/infill"
        return
    probe, text = storage.join(store, f".preflight-{uuid.uuid4().hex}"), b"written by Infill's preflight"
    try:
        storage.write_bytes(probe, text)
        if storage.read_bytes(probe) != text:
            yield f"the store {store} gives back something else than what was written to it: it cannot be used"
        storage.remove(probe)
    except InfillError as error:
        yield f"the store {store} cannot be written, read and cleaned ({error})"


def _mlflow() -> Iterator[str]:
    tracking.client()
    yield from ()


def _cluster(preset: str, config: Preset) -> Iterator[str]:
    settings = cluster_settings.read()
    if settings is None:
        if os.environ.get(IN_A_POD):
            yield (
                f"this pod has no {cluster_settings.VARIABLE}: install charts/infill-platform in its namespace, whose "
                "ConfigMap infill-cluster sets it"
            )
        return
    if not os.environ.get(stages.RUN):
        yield f"{stages.RUN} is not set: this step runs outside the compiled pipeline; compile it again"
        return
    from infill.cluster import api, preflight  # with the kubernetes client

    jobs = [
        settings.job(
            run=os.environ[stages.RUN],
            stage=stage,
            config_hash="preflight",
            entrypoint=("true",),
            env={},
            groups=sizing.groups(preset, config, stage),
            driver_gpus=sizing.driver_gpus(preset, config, stage),
        )
        for stage in sizing.RAY_STAGES
    ]
    connected = api.connect()
    if found := preflight.problems(connected, jobs):
        yield from found
        return
    from infill.release import deploy, frame

    frame.read(connected, deploy.release_of(config.deploy))


def _content(config: Preset) -> str:
    """Digest of the sources, the base model and adapters: an input of the steps that read them, for KFP's cache."""
    from infill.corpus import sources

    state = [sources.fingerprint(config.corpus.sources), *map(bases.fingerprint, _bases(config))]
    adapters = {config.pretrain.adapter, config.pretrain.train.lora_start, config.sft.train.lora_start} - {""}
    for adapter in sorted(adapters):
        if not storage.exists(adapter):
            raise InputError(f"there is no adapter at {adapter}")
        state.append(storage.fingerprint(adapter))
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _bases(config: Preset) -> list[str]:
    """Return what names the base model."""
    return sorted({config.tokenizer.base_model, config.pretrain.base_model} - {""})


def _reach(config: Preset) -> Iterator[str]:
    """A pod fetches nothing from a package index."""
    for base in _bases(config):
        if os.environ.get(IN_A_POD) and base.startswith(storage.PACKAGE):
            yield (
                f"the base model {base} is fetched by pip, which our images do not have: write it to the object store, "
                f"infill export base {base} --to s3://bucket/base, and set base_model to that"
            )
