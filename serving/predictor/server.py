"""Start the predictor: check the model, load it, then listen. Until it listens nobody takes it for ready."""

import logging
import socket
from pathlib import Path
from typing import Any

import transformers
import uvicorn

from infill import manifest, storage
from infill.errors import InputError, ServiceError
from serving.predictor.app import Metrics, Service, create_app
from serving.predictor.config import PredictorConfig
from serving.predictor.engine import Engine
from serving.predictor.worker import Worker

log = logging.getLogger("infill.predictor")

GRACE_S = 5
"""Seconds that open requests get when the server is told to stop."""


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet. Raises ServiceError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ServiceError(f"cannot listen on {host}:{port} ({error.strerror}); choose another --port") from error
    return bound


def verify_model(folder: Path, deployment: str) -> None:
    """Compare the model with the deployment record. Raises InputError when it is another one, or a file is damaged."""
    record: dict[str, Any] = storage.read_json(deployment)
    found = manifest.load(str(folder))
    if found.digest != record.get("model_digest"):
        raise InputError(
            f"{folder} has digest {found.digest}, but {deployment} names {record.get('model_digest')}; deploy again"
        )
    manifest.verify(found)


def build(config: PredictorConfig, folder: Path) -> Service:
    """A predictor with the model in `folder` loaded. Raises InputError when the model cannot be used."""
    if config.deployment:
        verify_model(folder, config.deployment)
    engine = Engine(folder, device=config.device, threads=config.threads, cache_gib=config.cache_gib)
    engine.probe()
    metrics = Metrics()
    worker = Worker(engine, queue=config.queue, observe=metrics.observe)
    return Service(config=config, engine=engine, worker=worker, metrics=metrics)


def serve(config: PredictorConfig, folder: Path) -> None:
    """Serve the model in `folder` until a signal comes. Raises InputError or ServiceError when it cannot begin."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    bound = bind(config.host, config.port)
    service = build(config, folder)
    log.info("%s on %s, context %d", config.model, service.engine.device, service.engine.context_length)
    settings = uvicorn.Config(
        create_app(service), log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S
    )
    uvicorn.Server(settings).run(sockets=[bound])
