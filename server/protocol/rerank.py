"""POST /v1/rerank: the shape that Jina, Cohere and llama-server share."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from server.protocol.embeddings import EmbeddingUsage


class Document(Struct):
    """A document that is more than a string."""

    text: str


class RerankRequest(Struct, kw_only=True):
    """`raw_scores` leaves out the sigmoid that makes 0 to 1 of a logit."""

    query: str
    documents: list[str | Document]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    raw_scores: bool | None = None


class RerankResult(Struct):
    """One document: its place in the request and its score."""

    index: int
    relevance_score: float
    document: Document | UnsetType = UNSET


class RerankResponse(Struct, kw_only=True):
    """The most relevant document first."""

    model: str
    object: Literal["list"] = "list"
    results: list[RerankResult]
    usage: EmbeddingUsage
