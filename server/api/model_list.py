"""GET /v1/models and /v1/models/{id}; POST /v1/models/reload."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.errors import ModelLoadError
from engine.gguf_check import GGUFHeader
from engine.memory import context_of
from engine.settings import Task
from server.api.http import json_response
from server.config import ConfigError
from server.errors import InvalidRequest, ModelNotFound
from server.located import Located
from server.models import Models, ServedModel
from server.protocol.models import AdapterCard, MemoryCard, ModelCard, ModelMeta
from server.reload import Reloader


class Listing(Struct):
    """OpenAI's list, with Anthropic's words for a page that is the last one."""

    data: list[ModelCard]
    first_id: str
    last_id: str
    object: Literal["list"] = "list"
    has_more: bool = False


class ModelList:
    """Every served model, loaded or not."""

    def __init__(self, models: Models, reloader: Reloader | None = None) -> None:
        self._models = models
        self._reloader = reloader

    def routes(self) -> list[Route]:
        """Names may contain slashes."""
        routes = [
            Route("/v1/models", self.all, methods=["GET"]),
            Route("/models", self.all, methods=["GET"]),
            Route("/v1/models/{name:path}", self.one, methods=["GET"]),
            Route("/models/{name:path}", self.one, methods=["GET"]),
        ]
        if self._reloader is not None:
            routes.append(Route("/v1/models/reload", self.reload, methods=["POST"]))
        return routes

    async def all(self, request: Request) -> Response:
        """In the order of the configuration."""
        for model in self._models.models:
            await self._models.look_at(model)
        cards = [card(model) for model in self._models.models]
        return json_response(Listing(cards, cards[0].id, cards[-1].id))

    async def one(self, request: Request) -> Response:
        """By name, alias or `provider/name`."""
        name = request.path_params["name"].rstrip("/")
        if not name:
            return await self.all(request)
        try:
            model = self._models.get(name)
        except ModelNotFound as error:
            error.loc = ("path", "name")
            raise
        await self._models.look_at(model)
        return json_response(card(model))

    async def reload(self, request: Request) -> Response:
        """Read models.toml again; the body says what has changed."""
        assert self._reloader is not None
        try:
            return json_response(await self._reloader.reload())
        except (ConfigError, ModelLoadError) as error:
            message = f"nothing has changed: {error}"
            raise InvalidRequest(message, code="invalid_configuration") from error


def card(model: ServedModel) -> ModelCard:
    """What is known of a model."""
    result = ModelCard(
        id=model.name,
        display_name=model.name,
        created=model.created,
        created_at=datetime.fromtimestamp(model.created, UTC),
        aliases=list(model.config.aliases),
        state=model.state,
        loaded=model.loaded,
    )
    if result.state == "failed":
        result.error = model.failure_reason
    if located := model.located:
        result.memory = MemoryCard(located.weights, located.kv_cache, located.need)
    if model.loaded:
        _describe(result, model)
    elif located and located.header:
        _foretell(result, located, located.header)
    return result


def _describe(result: ModelCard, model: ServedModel) -> None:
    info = model.info
    _set_context(result, info.context)
    result.capabilities = capabilities(model)
    result.meta = ModelMeta(
        description=info.description,
        architecture=info.architecture,
        quantization=info.quantization,
        n_params=info.n_params,
        n_vocab=info.n_vocab,
        n_ctx=info.context,
        n_ctx_train=info.context_trained,
        size=info.file_bytes,
        parallel=info.parallel,
        device=info.device,
        system_fingerprint=info.fingerprint,
        lora=[AdapterCard(each.name, each.scale) for each in info.lora],
    )


def _foretell(result: ModelCard, located: Located, header: GGUFHeader) -> None:
    _set_context(result, context_of(header, located.config.settings))
    result.capabilities = [*CAPABILITIES[header.task], *(["thinking"] if located.thinks else [])]


def _set_context(result: ModelCard, context: int) -> None:
    result.context_length = result.max_model_len = context
    result.max_input_tokens = result.max_tokens = context


CAPABILITIES: dict[Task, tuple[str, ...]] = {
    "generate": ("completion", "chat", "structured_output", "tools"),
    "embed": ("embedding",),
    "rerank": ("rerank",),
}


def capabilities(model: ServedModel) -> list[str]:
    """Of a loaded model: what it can be asked for."""
    result = list(CAPABILITIES[model.info.task])
    if model.info.task == "generate":
        result += ["thinking"] if model.format.learned.thought.learned else []
        result += ["infill"] if model.engine.tokenizer.infill is not None else []
    return result
