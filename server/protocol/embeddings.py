"""POST /v1/embeddings: OpenAI's shapes."""

from __future__ import annotations

from typing import Literal

from msgspec import Raw, Struct


class EmbeddingsRequest(Struct, kw_only=True):
    """`input`: a text, texts, tokens, or lists of tokens."""

    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None


class EmbeddingUsage(Struct):
    """Tokens of all inputs; nothing is generated."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingItem(Struct, kw_only=True):
    """One input's: an array of numbers, or its little-endian float32 in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: Raw | str


class EmbeddingList(Struct, kw_only=True):
    """One item an input, in order."""

    object: Literal["list"] = "list"
    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage
