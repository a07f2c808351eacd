"""The application: routes, lifespan, and the envelope around every request.

uvicorn should run it with httptools, uvloop and `access_log=False`: the log line per request
is `server.middleware`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from server.api.chat import ChatCompletions
from server.api.completions import Completions
from server.api.embeddings import EmbeddingsApi
from server.api.engine_info import EngineInfo
from server.api.grammar import GrammarTool
from server.api.health import Health
from server.api.messages import Messages
from server.api.metrics import MetricsApi
from server.api.model_list import ModelList
from server.api.ollama import OllamaEmbeddings, OllamaGeneration, OllamaListing
from server.api.rerank import Reranking
from server.api.responses.routes import Responses
from server.api.stored import StoredCompletions
from server.api.text import TextTools
from server.config import ServerConfig
from server.connection import WriteTimeout
from server.crashes import CrashGuard, CrashRecord
from server.dispatch import Dispatcher
from server.embedding import EmbeddingModels
from server.errors import ApiError, InvalidRequest, MethodNotAllowed, NotFound, quote
from server.metrics import Metrics
from server.middleware import Envelope, error_response
from server.models import Models
from server.reload import Reloader
from server.security import Gate, Hosts, Origins
from server.store import open_store
from server.tracing import Tracing, flushed


def create_app(
    config: ServerConfig,
    models: Models,
    record: CrashRecord | None = None,
    reloader: Reloader | None = None,
    tracing: Tracing | None = None,
) -> Starlette:
    """Serves `models`, which begin to load when the server starts. `record` tells of the workers
    before this one; without it nobody supervises. Without `reloader` the models stay the same,
    without `tracing` there are no spans."""

    store = open_store(config.store, config.store_mib)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        models.start()
        yield
        await models.drain(config.drain_timeout)
        await models.close()
        store.close()
        if tracing is not None:
            await flushed(tracing)

    dispatcher = Dispatcher(models, config.keepalive)
    embedders = EmbeddingModels(models, dispatcher)
    metrics = Metrics(models, restarts=len(record.crashes) if record is not None else 0)
    apis = (
        ChatCompletions(config, dispatcher, store),
        StoredCompletions(config, store),
        Completions(config, dispatcher),
        Messages(config, dispatcher),
        EmbeddingsApi(config, embedders),
        Reranking(config, embedders),
        Responses(config, dispatcher, store),
        OllamaGeneration(config, models, dispatcher),
        OllamaEmbeddings(config, models, embedders),
        OllamaListing(config, models),
        ModelList(models, reloader),
        TextTools(config, dispatcher),
        GrammarTool(config),
        Health(models, record),
        MetricsApi(metrics),
        EngineInfo(models),
    )
    routes = [route for api in apis for route in api.routes()]
    metrics.know_routes(routes)
    middleware = [
        Middleware(
            Envelope,
            gate=gate_of(config),
            metrics=metrics,
            tracing=tracing,
            log_prompts=config.log_prompts,
        ),
        Middleware(WriteTimeout, seconds=config.write_timeout),
    ]
    if record is not None:
        middleware.append(Middleware(CrashGuard, record=record))
    return Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={HTTPException: _on_http_exception},
        lifespan=lifespan,
    )


def gate_of(config: ServerConfig) -> Gate:
    """Who gets in, by the settings."""
    hosts = Hosts.of(config.host, config.allowed_hosts)
    return Gate(hosts, Origins(config.allowed_origins), config.api_keys)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(_api_error(request, error), request.scope)


def _api_error(request: Request, error: HTTPException) -> ApiError:
    where = f"{request.method} {quote(request.url.path)}"
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return NotFound(f"there is no route {where}", headers=headers)
    if error.status_code == 405:
        headers["Allow"] = allowed = ", ".join(_methods(request))
        return MethodNotAllowed(f"{where} is not served; allowed: {allowed}", headers=headers)
    return InvalidRequest(error.detail, headers=headers)


def _methods(request: Request) -> list[str]:
    """What the path can be asked for: several routes may share it."""
    routes: list[Route] = request.app.routes
    here = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted({method for route in here for method in route.methods or ()})
