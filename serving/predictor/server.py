"""Start the predictor: check the model, load it, then listen. Until it listens nobody takes it for ready."""

import logging
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import uvicorn

from infill import llama_cpp, manifest, storage
from infill.errors import InputError, ServiceError, StorageError
from serving.predictor.app import Metrics, Service, create_app
from serving.predictor.completion import CompletionEngine
from serving.predictor.config import PredictorConfig
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


def load_engine(config: PredictorConfig, folder: Path) -> CompletionEngine:
    """Load the model in `folder` with the engine that `config` names.

    `auto` takes llama.cpp on a CPU, where it is faster (`benchmarks.serving --engines`), and transformers where there
    is a GPU or llama.cpp cannot be used; the log says why. Raises InputError when the model cannot be used.
    """
    if config.engine == "llama.cpp":
        return _llama_cpp(config, folder)
    if config.engine == "auto" and not _has_gpu(config.device):
        try:
            return _llama_cpp(config, folder)
        except (InputError, StorageError) as error:
            log.warning("the engine is transformers: %s", error)
    import transformers

    from serving.predictor.engine import Engine

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return Engine(folder, device=config.device, threads=config.threads, cache_gib=config.cache_gib)


def _llama_cpp(config: PredictorConfig, folder: Path) -> CompletionEngine:
    if reason := llama_cpp.obstacle():
        raise InputError(f"{reason}; choose --engine transformers")
    from serving.predictor.llama_cpp import LlamaCppEngine

    return LlamaCppEngine(folder, threads=config.threads, cache_gib=config.cache_gib, gguf_type=config.gguf_type)


def _has_gpu(device: str) -> bool:
    """Return whether the model goes to a GPU; `cuda` without one is refused when the model is loaded."""
    if device == "auto":
        from infill import inference

        return inference.choose_device().type == "cuda"
    return device == "cuda"


def build(config: PredictorConfig, folder: Path) -> Service:
    """A predictor with the model in `folder` loaded. Raises InputError when the model cannot be used."""
    if config.deployment:
        verify_model(folder, config.deployment)
    engine = load_engine(config, folder)
    engine.probe()
    metrics = Metrics()
    worker = Worker(engine, queue=config.queue, observe=metrics.observe)
    return Service(config=config, engine=engine, worker=worker, metrics=metrics)


def serve(config: PredictorConfig, folder: Path) -> None:
    """Serve the model in `folder` until a signal comes. Raises InputError or ServiceError when it cannot begin."""
    bound = bind(config.host, config.port)
    service = build(config, folder)
    engine = service.engine
    log.info("%s in %s, context %d, slots %d", config.model, engine.name, engine.context_length, engine.slots)
    settings = uvicorn.Config(
        create_app(service), log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S
    )
    with closing(engine):
        uvicorn.Server(settings).run(sockets=[bound])
