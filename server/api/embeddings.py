"""POST /v1/embeddings."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.embedding import Rows
from server import embedding
from server.api.http import json_response, with_ignored
from server.checks import check_tokens, check_word
from server.config import ServerConfig
from server.connection import Attendance
from server.decode import JsonBody
from server.embedding import EmbeddingModels
from server.errors import InvalidRequest, Loc
from server.models import ServedModel
from server.protocol.embeddings import (
    EmbeddingItem,
    EmbeddingList,
    EmbeddingsRequest,
    EmbeddingUsage,
)

FORMATS = ("float", "base64")


class EmbeddingsApi:
    """decode → tokenize → compute."""

    def __init__(self, config: ServerConfig, models: EmbeddingModels) -> None:
        self._config = config
        self._models = models
        self._body = JsonBody(EmbeddingsRequest)

    def routes(self) -> list[Route]:
        """The endpoint, also where clients forget the /v1."""
        return [
            Route("/v1/embeddings", self.create, methods=["POST"]),
            Route("/embeddings", self.create, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        """One embedding an input."""
        wire, ignored = await self._body.read(request, self._config.max_body_bytes)
        if wire.encoding_format is not None:
            check_word(wire.encoding_format, FORMATS, ("body", "encoding_format"))
        leased = self._models.lease(wire.model, "embed")
        async with Attendance(request.receive), leased as model:
            embedding.check_dimensions(wire.dimensions, model)
            inputs = await read_inputs(wire.input, model)
            result = await embedding.compute(request, model, inputs)
        rows = embedding.normalized(result.rows, wire.dimensions)
        count = sum(map(len, inputs))
        body = EmbeddingList(
            data=await items(rows, wire.encoding_format == "base64"),
            model=model.name,
            usage=EmbeddingUsage(count, count),
        )
        return with_ignored(json_response(body), ignored)


async def read_inputs(
    wire: str | list[str | int | list[int]], model: ServedModel
) -> list[list[int]]:
    """Tokens of each input; what comes as tokens is taken as it is. Raises InvalidRequest."""

    def loc(index: int) -> Loc:
        return ("body", "input", index) if many else ("body", "input")

    many = isinstance(wire, list) and not all(isinstance(item, int) for item in wire)
    given = [wire] if not many else wire
    texts = [item for item in given if isinstance(item, str)]
    if texts and len(texts) == len(given):
        for index, text in enumerate(texts):
            if not text:
                raise InvalidRequest("an input must not be empty", loc=loc(index))
        inputs = await embedding.encode_inputs(texts, model)
    else:
        inputs = [token_list(item, model, loc(index)) for index, item in enumerate(given)]
    embedding.check_inputs(inputs, model, loc)
    return inputs


def token_list(item: object, model: ServedModel, loc: Loc) -> list[int]:
    """A list of token ids. Raises InvalidRequest."""
    if not isinstance(item, list):
        raise InvalidRequest("texts, tokens and lists of tokens cannot be mixed", loc=loc)
    check_tokens(item, model.info.n_vocab, loc)
    return item


async def items(rows: Rows, as_base64: bool) -> list[EmbeddingItem]:
    """The rows as they are sent."""
    forms: Sequence[Raw | str] = (
        [_base64(row) for row in rows] if as_base64 else await embedding.written(rows)
    )
    return [EmbeddingItem(index=index, embedding=form) for index, form in enumerate(forms)]


def _base64(row: Rows) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()
