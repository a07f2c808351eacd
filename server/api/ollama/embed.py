"""POST /api/embed and the older /api/embeddings."""

from __future__ import annotations

import time

import msgspec
import numpy as np
from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.embedding import Rows
from server import embedding
from server.api.http import json_response, with_ignored
from server.api.ollama.body import Body, find, nanoseconds, seconds_of
from server.config import ServerConfig
from server.connection import Attendance
from server.embedding import EmbeddingModels
from server.errors import Loc
from server.models import Models, ServedModel
from server.protocol.ollama import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    EmbedRequest,
    EmbedResponse,
    Options,
)


class OllamaEmbeddings:
    """decode → tokenize → compute."""

    def __init__(self, config: ServerConfig, models: Models, embedders: EmbeddingModels) -> None:
        self._config = config
        self._models = models
        self._embedders = embedders
        self._embed = Body(EmbedRequest)
        self._embeddings = Body(EmbeddingsRequest)

    def routes(self) -> list[Route]:
        """Many inputs, or one prompt."""
        return [
            Route("/api/embed", self.embed, methods=["POST"]),
            Route("/api/embeddings", self.embeddings, methods=["POST"]),
        ]

    async def embed(self, request: Request) -> Response:
        """One embedding an input, of length 1."""
        wire, ignored = await self._embed.read(request, self._config.max_body_bytes)
        began = time.monotonic()
        stay = seconds_of(wire.keep_alive)
        leased = self._embedders.lease(find(self._models, wire.model).name, "embed")
        async with Attendance(request.receive), leased as model:
            load = time.monotonic() - began
            model.stay(stay)
            embedding.check_dimensions(wire.dimensions, model)
            texts = [wire.input] if isinstance(wire.input, str) else wire.input or []
            inputs = await _inputs(model, texts, "input", bool(wire.truncate))
            rows = await _rows(request, model, inputs)
        body = EmbedResponse(
            model=wire.model,
            embeddings=await embedding.written(embedding.normalized(rows, wire.dimensions)),
            total_duration=nanoseconds(time.monotonic() - began),
            load_duration=nanoseconds(load),
            prompt_eval_count=sum(map(len, inputs)),
        )
        return with_ignored(json_response(body), [*ignored, *_unused(wire.options)])

    async def embeddings(self, request: Request) -> Response:
        """The embedding of one prompt; none for an empty one."""
        wire, ignored = await self._embeddings.read(request, self._config.max_body_bytes)
        stay = seconds_of(wire.keep_alive)
        leased = self._embedders.lease(find(self._models, wire.model).name, "embed")
        async with Attendance(request.receive), leased as model:
            model.stay(stay)
            texts = [wire.prompt] if wire.prompt else []
            rows = await _rows(request, model, await _inputs(model, texts, "prompt", False))
        [numbers] = await embedding.written(rows) or [Raw(b"[]")]
        body = EmbeddingsResponse(numbers)
        return with_ignored(json_response(body), [*ignored, *_unused(wire.options)])


async def _inputs(
    model: ServedModel, texts: list[str], field: str, truncate: bool
) -> list[list[int]]:
    """Each text's tokens; `truncate` leaves out those before the last that do not fit."""

    def loc(index: int) -> Loc:
        return ("body", field, index) if field == "input" else ("body", field)

    context = model.info.context
    inputs = await embedding.encode_inputs(texts, model)
    if truncate:
        # The last token may be a separator, on which some models pool.
        inputs = [
            tokens if len(tokens) <= context else [*tokens[: context - 1], tokens[-1]]
            for tokens in inputs
        ]
    embedding.check_inputs(inputs, model, loc)
    return inputs


async def _rows(request: Request, model: ServedModel, inputs: list[list[int]]) -> Rows:
    """No inputs are no rows: such a request only loads the model."""
    if not inputs:
        return np.empty((0, model.info.embedding_length), np.float32)
    return (await embedding.compute(request, model, inputs)).rows


def _unused(options: Options | None) -> list[str]:
    """Nothing is sampled: no option has an effect."""
    given = msgspec.structs.asdict(options) if options is not None else {}
    return [f"options.{name}" for name, value in given.items() if value is not None]
