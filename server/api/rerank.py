"""POST /v1/rerank: how well each document answers a query, by a reranking model."""

from __future__ import annotations

import re

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.embedding import Rows
from server import embedding
from server.api.http import json_response, with_ignored
from server.config import ServerConfig
from server.connection import Attendance
from server.decode import JsonBody
from server.embedding import EmbeddingModels
from server.errors import InvalidRequest
from server.models import ServedModel
from server.prompt_text import PromptText
from server.protocol.embeddings import EmbeddingUsage
from server.protocol.rerank import Document, RerankRequest, RerankResponse, RerankResult

PATHS = ("/v1/rerank", "/rerank", "/v1/reranking", "/reranking")
"""llama-server has all four."""


class Reranking:
    """decode → pairs → compute → sort."""

    def __init__(self, config: ServerConfig, models: EmbeddingModels) -> None:
        self._config = config
        self._models = models
        self._body = JsonBody(RerankRequest)

    def routes(self) -> list[Route]:
        """One endpoint by all its names."""
        return [Route(path, self.create, methods=["POST"]) for path in PATHS]

    async def create(self, request: Request) -> Response:
        """The documents in the order of their scores."""
        wire, ignored = await self._body.read(request, self._config.max_body_bytes)
        check(wire)
        texts = [text_of(document) for document in wire.documents]
        leased = self._models.lease(wire.model, "rerank")
        async with Attendance(request.receive), leased as model:
            inputs = await pairs(model, wire.query, texts)
            result = await embedding.compute(request, model, inputs)
            scores = scores_of(result.rows, model, raw=bool(wire.raw_scores))
        count = sum(map(len, inputs))
        body = RerankResponse(
            model=model.name,
            results=ranked(scores, texts if wire.return_documents else None)[: wire.top_n],
            usage=EmbeddingUsage(count, count),
        )
        return with_ignored(json_response(body), ignored)


def check(wire: RerankRequest) -> None:
    """Raises InvalidRequest."""
    if not wire.query:
        raise InvalidRequest("query must not be empty", loc=("body", "query"))
    if not wire.documents:
        raise InvalidRequest("documents must not be empty", loc=("body", "documents"))
    if wire.top_n is not None and wire.top_n < 1:
        raise InvalidRequest(
            f"top_n must be at least 1, but is {wire.top_n}", loc=("body", "top_n")
        )


def text_of(document: str | Document) -> str:
    """Its text."""
    return document if isinstance(document, str) else document.text


async def pairs(model: ServedModel, query: str, documents: list[str]) -> list[list[int]]:
    """The tokens of each document with the query, as the model was trained on them."""
    tokenizer, template = model.embedder.tokenizer, model.info.rerank_template
    if template is not None:
        prompt_text = PromptText(tokenizer, model.info.context)
        asked, *read = (_marked(prompt_text, text) for text in (query, *documents))
        prompts = [fill(template, asked, text) for text in read]
        inputs = await embedding.encode_all(prompts, lambda text: prompt_text.encode(text)[1])
    else:

        def encode(text: str) -> list[int]:
            return tokenizer.encode(text, parse_special=False)

        [head, *tails] = await embedding.encode_all([query, *documents], encode)
        inputs = [tokenizer.pair(head, tail) for tail in tails]
    embedding.check_inputs(inputs, model, lambda index: ("body", "documents", index))
    return inputs


def _marked(prompt_text: PromptText, text: str) -> str:
    """What looks like one of the template's own tokens is text."""
    [message] = prompt_text.mark([{"role": "user", "content": text}])
    return str(message["content"])


def fill(template: str, query: str, document: str) -> str:
    """Both at once: a document may contain `{query}`."""
    texts = {"{query}": query, "{document}": document}
    return re.sub(r"\{(query|document)\}", lambda found: texts[found[0]], template)


def scores_of(rows: Rows, model: ServedModel, *, raw: bool) -> list[float]:
    """The first value of each row, as a number from 0 to 1 unless `raw`."""
    logits = rows[:, 0].astype(np.float64)
    if raw or model.info.scores_are_probabilities:
        return [float(score) for score in logits]
    return [float(score) for score in 1 / (1 + np.exp(-np.clip(logits, -500, 500)))]


def ranked(scores: list[float], texts: list[str] | None) -> list[RerankResult]:
    """The best first; equals stay in the order of the request."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    results = [RerankResult(index, scores[index]) for index in order]
    if texts is not None:
        for result in results:
            result.document = Document(texts[result.index])
    return results
