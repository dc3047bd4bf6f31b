"""The start of the predictor: check the model, load it, then listen, so that it looks ready only when it is."""

import logging
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import uvicorn

from infill import llama_cpp, manifest, storage
from infill.errors import InputError, ServiceError, StorageError
from serving.predictor.app import PredictorMetrics, PredictorService, create_app
from serving.predictor.completion import CompletionEngine
from serving.predictor.predictor_config import PredictorConfig
from serving.predictor.worker import Worker

log = logging.getLogger("infill.predictor")

GRACE_S = 5
"""Seconds that open requests get to finish when the server stops."""


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket that does not listen yet. Raises ServiceError when the address cannot be bound."""
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
    """Compare the model with its deployment record. Raises InputError when they differ or a file is damaged."""
    record: dict[str, Any] = storage.read_json(deployment)
    artifact = manifest.load(str(folder))
    if artifact.digest != record.get("model_digest"):
        raise InputError(
            f"{folder} has digest {artifact.digest}, but {deployment} names {record.get('model_digest')}; deploy again"
        )
    manifest.verify(artifact)


def load_engine(config: PredictorConfig, folder: Path) -> CompletionEngine:
    """Load the model in `folder` with the engine that `config` names.

    `auto` takes llama.cpp on a CPU, where it is faster (`benchmarks.serving --engines`), and transformers on a GPU or
    where llama.cpp cannot be used; the log then says why. Raises InputError when the model cannot be loaded.
    """
    if config.engine == "llama.cpp":
        return _llama_cpp(config, folder)
    if config.engine == "auto" and not _has_gpu(config.device):
        try:
            return _llama_cpp(config, folder)
        except (InputError, StorageError) as error:
            log.warning("using the engine transformers: %s", error)
    import transformers

    from serving.predictor.transformers_engine import TransformersEngine

    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return TransformersEngine(
        folder,
        device=config.device,
        threads=config.threads,
        cache_gib=config.cache_gib,
        draft_tokens=config.draft_tokens,
    )


def _llama_cpp(config: PredictorConfig, folder: Path) -> CompletionEngine:
    if reason := llama_cpp.obstacle():
        raise InputError(f"{reason}; choose --engine transformers")
    from serving.predictor.llama_cpp_engine import LlamaCppEngine

    return LlamaCppEngine(
        folder,
        threads=config.threads,
        cache_gib=config.cache_gib,
        gguf_type=config.gguf_type,
        draft_tokens=config.draft_tokens,
    )


def _has_gpu(device: str) -> bool:
    """Return whether the model goes to a GPU; loading fails later for `cuda` without one."""
    if device == "auto":
        from infill import inference

        return inference.choose_device().type == "cuda"
    return device == "cuda"


def build(config: PredictorConfig, folder: Path) -> PredictorService:
    """Return a predictor that has loaded the model in `folder`. Raises InputError when the model cannot be used."""
    if config.deployment:
        verify_model(folder, config.deployment)
    engine = load_engine(config, folder)
    engine.probe()
    metrics = PredictorMetrics()
    worker = Worker(engine, queue=config.queue, observe=metrics.observe)
    return PredictorService(config=config, engine=engine, worker=worker, metrics=metrics)


def serve(config: PredictorConfig, folder: Path) -> None:
    """Serve the model in `folder` until a signal arrives. Raises InputError or ServiceError when it cannot start."""
    bound = bind(config.host, config.port)
    service = build(config, folder)
    engine = service.engine
    log.info("%s in %s, context %d, slots %d", config.model, engine.name, engine.context_length, engine.slots)
    settings = uvicorn.Config(
        create_app(service), log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S
    )
    with closing(engine):
        uvicorn.Server(settings).run(sockets=[bound])
