"""The transformer as a KServe model server: health, readiness and metrics are KServe's, the completions are ours."""

import asyncio
import gc
import logging
import sys
from typing import Any

import uvloop
from fastapi import FastAPI
from kserve import Model, ModelServer, model_server
from kserve.errors import InvalidInput
from kserve.logging import trace_logger
from prometheus_client import REGISTRY
from starlette.types import ASGIApp
from timing_asgi import TimingMiddleware

from serving.transformer.access import audit_log
from serving.transformer.openapi import include
from serving.transformer.packer import warm_up
from serving.transformer.routes import allow_origins, create_router
from serving.transformer.service import build
from serving.transformer.transformer_config import Prepared, TransformerConfig
from serving.transformer.uvicorn_protocol import QuietProtocol

log = logging.getLogger("kserve.infill")

GRACE_S = 5
"""Seconds that open requests get to finish when the server stops."""


class CompletionModel(Model):  # type: ignore[misc]
    """The model as KServe sees it: a name that is ready. KServe's inference protocols carry no completions."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True

    async def predict(self, *_: Any, **__: Any) -> Any:
        """Raise InvalidInput for a request in one of KServe's inference protocols."""
        raise InvalidInput("this model answers at /v1/completions only")


class TransformerServer(ModelServer):  # type: ignore[misc]
    """KServe's server without gRPC, on a configurable address (KServe's own listens on all)."""

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        """Take the application around KServe's own."""
        super().__init__(http_port=port, workers=1, enable_grpc=False, grace_period=GRACE_S)
        self._app = app
        self._host = host

    def setup_event_loop(self) -> None:
        """Use uvloop unless --event_loop says asyncio; KServe starts asyncio's own loop whatever it says."""
        if self.event_loop != "asyncio":
            asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
            asyncio.set_event_loop(asyncio.new_event_loop())
        super().setup_event_loop()

    async def _serve(self) -> None:
        self._rest_server.config.app = self._app
        self._rest_server.config.http = QuietProtocol
        self._rest_server.config.host = self._host
        add_all = self._rest_server._add_middlewares

        def add(app: FastAPI) -> None:
            """Leave out the times of each request, which KServe's trace log would show."""
            add_all(app)
            app.user_middleware = [each for each in app.user_middleware if each.cls is not TimingMiddleware]

        self._rest_server._add_middlewares = add
        await super()._serve()


def _audit_to_stdout() -> None:
    """Write the audit log as lines of JSON, whatever becomes of the other logs."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    audit_log.addHandler(handler)
    audit_log.setLevel(logging.INFO)
    audit_log.propagate = False


def serve(config: TransformerConfig, prepared: Prepared) -> None:
    """Serve until a signal arrives."""
    service = build(config, prepared, REGISTRY)
    warm_up(service.packer)
    if service.candidate:
        warm_up(service.candidate.packer)
    app: ASGIApp = include(model_server.app, create_router(service))
    if config.cors_origins:
        app = allow_origins(app, config.cors_origins)
    trace_logger.setLevel(logging.WARNING)  # three lines per request, which the metrics replace
    if not service.access.open:
        _audit_to_stdout()
    elif config.host not in ("127.0.0.1", "localhost", "::1"):
        log.warning("whoever reaches %s:%d may complete: name a file of keys or an issuer", config.host, config.port)
    log.info("prompt format %s", prepared.why_format)
    log.info("prompts of at most %d tokens to %s", service.packer.budget, config.predictor)
    gc.collect()
    gc.freeze()  # else what lives as long as the server is searched for garbage again and again, for 0.1 s each time
    TransformerServer(app, config.host, config.port).start([CompletionModel(config.name)])
