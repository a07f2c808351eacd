"""Ollama's /api/embed and /api/embeddings, and its lists, on tiny random models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.server.asgi import Client
from tests.server.embedding_models import served

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with served(tmp_path, "chat", "embedder", "reranker") as client:
        yield client


async def embed(client: Client, **fields: Any) -> Any:
    response = await client.post("/api/embed", {"model": "embedder:latest"} | fields)
    assert response.status == 200, response.body
    return response.json()


async def test_embed_is_what_openai_gets(client: Client) -> None:
    body = await embed(client, input=["a b", "c"])
    openai = {"model": "embedder", "input": ["a b", "c"]}
    same = (await client.post("/v1/embeddings", openai)).json()
    assert body["embeddings"] == [item["embedding"] for item in same["data"]]
    assert body["model"] == "embedder:latest"
    assert body["prompt_eval_count"] == same["usage"]["prompt_tokens"]
    assert 0 <= body["load_duration"] < body["total_duration"]


async def test_one_text_or_none(client: Client) -> None:
    assert len((await embed(client, input="a"))["embeddings"]) == 1
    assert (await embed(client, input=[]))["embeddings"] == []
    assert (await embed(client))["embeddings"] == []
    assert np.shape((await embed(client, input="a", dimensions=4))["embeddings"]) == (1, 4)


async def test_the_older_form_is_not_normalized(client: Client) -> None:
    body = {"model": "embedder", "prompt": "a b"}
    raw = np.array((await client.post("/api/embeddings", body)).json()["embedding"])
    [unit] = (await embed(client, input="a b"))["embeddings"]
    assert not np.isclose(np.linalg.norm(raw), 1)
    assert np.allclose(raw / np.linalg.norm(raw), unit, atol=1e-6)
    empty = await client.post("/api/embeddings", {"model": "embedder", "prompt": ""})
    assert empty.json() == {"embedding": []}


async def test_nothing_is_truncated_unasked(client: Client) -> None:
    long = {"model": "embedder", "input": ["a", "b " * 200]}
    refused = await client.post("/api/embed", long)
    assert refused.status == 400
    assert "input[1]" in refused.json()["error"] and "202" in refused.json()["error"]
    cut = await embed(client, input=["b " * 200], truncate=True)
    assert cut["prompt_eval_count"] == 96
    assert cut["embeddings"] == (await embed(client, input=["b " * 94]))["embeddings"]


async def test_refusals(client: Client) -> None:
    for model, status in (("chat", 400), ("reranker", 400), ("nobody", 404)):
        response = await client.post("/api/embed", {"model": model, "input": "a"})
        assert response.status == status
        assert "error" in response.json()
    chat = {"model": "embedder", "messages": [{"role": "user", "content": "Hi"}]}
    assert (await client.post("/api/chat", chat)).status == 400


async def test_options_are_listed_as_unused(client: Client) -> None:
    body = {"model": "embedder", "input": "a", "options": {"num_ctx": 5, "num_gpu": 1}}
    response = await client.post("/api/embed", body)
    ignored = response.headers["x-ignored-params"].split(", ")
    assert sorted(ignored) == ["options.num_ctx", "options.num_gpu"]


@pytest.mark.parametrize("load", [False, True])
async def test_lists_know_what_is_not_loaded(client: Client, load: bool) -> None:
    if load:
        await embed(client, input="a")
    running = [each["name"] for each in (await client.get("/api/ps")).json()["models"]]
    assert running == ["chat:latest", *(["embedder:latest"] if load else [])]
    tags = {each["name"]: each for each in (await client.get("/api/tags")).json()["models"]}
    assert tags["embedder:latest"]["details"]["family"] == "bert"
    assert tags["embedder:latest"]["size"] > 10_000
    shown = (await client.post("/api/show", {"model": "embedder"})).json()
    assert shown["capabilities"] == ["embedding"]
    assert shown["model_info"]["bert.embedding_length"] == 32
    assert shown["model_info"]["tokenizer.ggml.tokens"] is None
