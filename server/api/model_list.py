"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.api.http import json_response
from server.models import Models, ServedModel
from server.protocol.models import AdapterCard, ModelCard, ModelMeta


class Listing(Struct):
    """OpenAI's list, with Anthropic's words for a page that is the last one."""

    data: list[ModelCard]
    first_id: str
    last_id: str
    object: Literal["list"] = "list"
    has_more: bool = False


class ModelList:
    """Every served model, loaded or not."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def routes(self) -> list[Route]:
        """Names may contain slashes."""
        return [
            Route("/v1/models", self.all, methods=["GET"]),
            Route("/models", self.all, methods=["GET"]),
            Route("/v1/models/{name:path}", self.one, methods=["GET"]),
            Route("/models/{name:path}", self.one, methods=["GET"]),
        ]

    async def all(self, request: Request) -> Response:
        """In the order of the configuration."""
        cards = [card(model) for model in self._models.models]
        return json_response(Listing(cards, cards[0].id, cards[-1].id))

    async def one(self, request: Request) -> Response:
        """By name, alias or `provider/name`."""
        return json_response(card(self._models.get(request.path_params["name"])))


def card(model: ServedModel) -> ModelCard:
    """What is known of a model; the engine's part only once it is loaded."""
    result = ModelCard(
        id=model.name,
        display_name=model.name,
        created=model.created,
        created_at=datetime.fromtimestamp(model.created, UTC),
        aliases=list(model.config.aliases),
        state=model.state,
        loaded=model.loaded,
    )
    if model.loaded:
        info = model.info
        result.context_length = result.max_model_len = info.context
        result.max_input_tokens = result.max_tokens = info.context
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
    return result


def capabilities(model: ServedModel) -> list[str]:
    """Of a loaded model: what it can be asked for."""
    match model.info.task:
        case "embed":
            return ["embedding"]
        case "rerank":
            return ["rerank"]
        case _:
            thinking = ["thinking"] if model.format.learned.thought.learned else []
            infill = ["infill"] if model.engine.tokenizer.infill is not None else []
            return ["completion", "chat", "structured_output", "tools", *thinking, *infill]
