"""Routes other than completions: health, the model and its limits, and events about suggestions."""

import asyncio
import os
import platform
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import Request, Response

import infill
from serving.http import read_body
from serving.protocol import parse_object
from serving.transformer import workspace_api
from serving.transformer.access import Principal
from serving.transformer.fields import Field, Fields, Schema, ignored
from serving.transformer.service import TokenLimits, TransformerService
from serving.transformer.telemetry import report

OLLAMA_API: Final = "0.6.4"
"""The version of Ollama whose interface we support: the first whose `/api/show` lists capabilities."""
TEMPLATE: Final = "{{ .Prompt }}{{ .Suffix }}"
"""A template in which clients find `.Suffix` and so see that the model can infill; our packer makes the prompts."""
STARTED: Final = datetime.now(UTC).isoformat().replace("+00:00", "Z")
OTHER: Final = "other"


@dataclass(frozen=True, kw_only=True)
class Page:
    """One route and its answer."""

    path: str
    about: str
    answer: Callable[[TransformerService, Request], Awaitable[dict[str, Any] | Response | None]]
    """A handler; None stands for status 200 without a body."""
    schema: Schema
    method: str = "GET"
    body: Fields | None = None
    """Fields of the request's body; None where there is no body."""
    parameters: Fields = field(default_factory=dict)
    """Parts of the path that the client names."""
    errors: tuple[int, ...] = ()
    """Statuses of its own errors, besides those of all pages."""


async def _limits(service: TransformerService, request: Request) -> TokenLimits:
    return await service.limits(service.headers(request))


async def _body(service: TransformerService, request: Request) -> dict[str, Any]:
    config = service.config
    return parse_object(await read_body(request, limit=config.max_body_bytes, timeout_s=config.total_s))


async def models(service: TransformerService, request: Request) -> dict[str, Any]:
    """Return the list of models in OpenAI's shape and in KServe's, whose route it replaces."""
    name, limits = service.config.name, await _limits(service, request)
    details = {
        "prompt_format": service.packer.fmt.hash,
        "max_prompt_tokens": limits.prompt,
        "max_new_tokens": limits.new,
        "tokenizer": service.packer.tokenizer.digest,
        "strategy": service.packer.strategy,
        "context_items": service.packer.context_items,
        "telemetry": service.telemetry.mode,
    }
    entry = {"id": name, "object": "model", "created": 0, "owned_by": "infill", "infill": details}
    entry["max_model_len"] = limits.prompt + limits.new
    return {"object": "list", "data": [entry], "models": [name]}


async def tokenizer(service: TransformerService, request: Request) -> Response:
    """Return the tokenizer and the prompt format, or 304 when the client has them."""
    return await asyncio.to_thread(service.packer.tokenizer.response, request)


async def health(service: TransformerService, request: Request) -> dict[str, Any]:
    """Return llama.cpp's health status."""
    return {"status": "ok"}


async def props(service: TransformerService, request: Request) -> dict[str, Any]:
    """Return llama.cpp's server properties, with the context length."""
    limits = await _limits(service, request)
    settings = {"n_ctx": limits.prompt + limits.new, "n_predict": limits.new}
    return {"default_generation_settings": settings, "total_slots": 1, "model_path": service.config.name}


async def tabby_health(service: TransformerService, request: Request) -> dict[str, Any]:
    """Return Tabby's health status; the device is unknown, since the predictor runs the model."""
    return {
        "model": service.config.name,
        "device": "remote",
        "arch": platform.machine(),
        "cpu_info": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count() or 1,
        "cuda_devices": [],
        "version": {
            "build_date": "",
            "build_timestamp": "",
            "git_sha": "",
            "git_describe": f"infill-{infill.__version__}",
        },
    }


async def tabby_setting(service: TransformerService, request: Request) -> dict[str, Any]:
    """Return the setting that turns off the telemetry of Tabby's clients."""
    return {"disable_client_side_telemetry": True}


async def event(service: TransformerService, request: Request) -> None:
    """Count what a client reports of a suggestion. Raises ApiError for an invalid event, or one that cannot be true."""
    principal: Principal = request.state.principal
    await service.telemetry.enter(principal.name or (request.client.host if request.client else ""))
    event = report.read(await _body(service, request))
    service.metrics.events.labels(event.kind if event.kind in report.KINDS else OTHER).inc()
    service.telemetry.report(principal.tenant, event)


def _ollama_model(service: TransformerService) -> dict[str, Any]:
    fmt = service.packer.fmt
    return {
        "name": service.config.name,
        "model": service.config.name,
        "modified_at": STARTED,
        "size": 0,
        "digest": fmt.hash,
        "details": _details(fmt.name),
    }


def _details(family: str) -> dict[str, Any]:
    unknown = {"parent_model": "", "format": "", "parameter_size": "", "quantization_level": ""}
    return {**unknown, "family": family, "families": [family]}


async def ollama_tags(service: TransformerService, request: Request) -> dict[str, Any]:
    """Return Ollama's list of models; their sizes are unknown here."""
    return {"models": [_ollama_model(service)]}


async def ollama_version(service: TransformerService, request: Request) -> dict[str, Any]:
    """Return the version of Ollama's interface that we support."""
    return {"version": OLLAMA_API}


async def ollama_show(service: TransformerService, request: Request) -> dict[str, Any]:
    """Return Ollama's description of the one model, whichever the request names."""
    await _body(service, request)
    limits, family = await _limits(service, request), service.packer.fmt.name
    context = limits.prompt + limits.new
    return {
        "modelfile": "",
        "parameters": f"num_ctx {context}",
        "template": TEMPLATE,
        "details": _details(family),
        "model_info": {"general.architecture": family, f"{family}.context_length": context},
        "capabilities": ["completion", "insert"],
        "modified_at": STARTED,
    }


TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
TEXTS: Final[Schema] = {"type": "array", "items": TEXT}


def _object(**properties: Schema) -> Schema:
    """Return the schema of an object that has at least these properties."""
    return {"type": "object", "properties": properties, "required": [*properties]}


HEALTH: Final = _object(
    model=TEXT,
    device=TEXT,
    arch=TEXT,
    cpu_info=TEXT,
    cpu_count=COUNT,
    cuda_devices=TEXTS,
    version=_object(build_date=TEXT, build_timestamp=TEXT, git_sha=TEXT, git_describe=TEXT),
)
DETAILS: Final = _object(family=TEXT, families=TEXTS, format=TEXT)
NAMED: Final[Fields] = {"model": Field(about="ignored: there is one model", schema={}), **ignored("name", "verbose")}
OPENAI_MODEL: Final = _object(id=TEXT, object={"const": "model"}, created=COUNT, owned_by=TEXT, max_model_len=COUNT)

PAGES: Final[tuple[Page, ...]] = (
    Page(
        path="/v1/models",
        about="the served model, its prompt format, tokenizer, context strategy and limits",
        answer=models,
        schema=_object(object={"const": "list"}, data={"type": "array", "items": OPENAI_MODEL}, models=TEXTS),
    ),
    Page(
        path="/v1/tokenizer",
        about="the tokenizer and the prompt format, for clients that pack prompts themselves; its `ETag` is the digest "
        "in `/v1/models`",
        answer=tokenizer,
        schema=_object(tokenizer={"type": "object"}, prompt_format={"type": "object"}),
    ),
    Page(
        path="/health", about="llama.cpp: health of the server", answer=health, schema=_object(status={"const": "ok"})
    ),
    Page(
        path="/props",
        about="llama.cpp: the context length",
        answer=props,
        schema=_object(
            default_generation_settings=_object(n_ctx=COUNT, n_predict=COUNT), total_slots=COUNT, model_path=TEXT
        ),
    ),
    Page(
        path="/v1/health",
        about="Tabby: health of the server",
        answer=tabby_health,
        schema=HEALTH,
    ),
    Page(
        path="/v1beta/server_setting",
        about="Tabby: turns off the clients' telemetry",
        answer=tabby_setting,
        schema=_object(disable_client_side_telemetry={"type": "boolean"}),
    ),
    Page(
        path="/v1/events",
        about="Tabby and our own clients: what became of a suggestion; see docs/how-to/telemetry.md",
        answer=event,
        schema={},
        method="POST",
        body=report.FIELDS,
        errors=(404, 429),
    ),
    Page(
        path="/api/tags",
        about="Ollama: the served model",
        answer=ollama_tags,
        schema=_object(
            models={
                "type": "array",
                "items": _object(name=TEXT, model=TEXT, modified_at=TEXT, size=COUNT, digest=TEXT, details=DETAILS),
            }
        ),
    ),
    Page(
        path="/api/version",
        about="Ollama: the version of the supported interface",
        answer=ollama_version,
        schema=_object(version=TEXT),
    ),
    Page(
        path="/api/show",
        about="Ollama: the model's capabilities",
        answer=ollama_show,
        schema=_object(
            template=TEXT,
            parameters=TEXT,
            details=DETAILS,
            model_info={"type": "object"},
            capabilities=TEXTS,
            modified_at=TEXT,
        ),
        method="POST",
        body=NAMED,
    ),
    Page(
        path=workspace_api.PATH,
        about="opens a workspace, or replaces its list of files",
        answer=workspace_api.put,
        schema=workspace_api.REPORT,
        method="PUT",
        parameters=workspace_api.PARAMETERS,
        body=workspace_api.LIST,
        errors=workspace_api.ERRORS,
    ),
    Page(
        path=workspace_api.PATH,
        about="changes files of a workspace, or sends texts that the server lacks",
        answer=workspace_api.patch,
        schema=workspace_api.REPORT,
        method="PATCH",
        parameters=workspace_api.PARAMETERS,
        body=workspace_api.DELTA,
        errors=workspace_api.ERRORS,
    ),
    Page(
        path=workspace_api.PATH,
        about="the state of a workspace, and the files whose texts the server lacks",
        answer=workspace_api.show,
        schema=workspace_api.STATE,
        parameters=workspace_api.PARAMETERS,
        errors=(400, 404),
    ),
    Page(
        path=workspace_api.PATH,
        about="closes a workspace",
        answer=workspace_api.close,
        schema={},
        method="DELETE",
        parameters=workspace_api.PARAMETERS,
        errors=(400, 404),
    ),
)
