"""/v1/embeddings on a tiny random model: forms of input and output, and refusals."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.server.asgi import Client, Exchange
from tests.server.embedding_models import served

pytestmark = pytest.mark.anyio
CONTEXT = 96


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with served(tmp_path, "chat", "embedder", "reranker") as client:
        yield client


async def embed(client: Client, input: Any, **fields: Any) -> Exchange:
    body = {"model": "embedder", "input": input} | fields
    return await client.post("/v1/embeddings", body)


def rows(exchange: Exchange) -> np.ndarray:
    assert exchange.status == 200, exchange.body
    return np.array([item["embedding"] for item in exchange.json()["data"]])


async def test_the_shape_of_an_answer(client: Client) -> None:
    body = (await embed(client, ["a b", "c"])).json()
    assert (body["object"], body["model"]) == ("list", "embedder")
    assert [(item["object"], item["index"]) for item in body["data"]] == [
        ("embedding", 0),
        ("embedding", 1),
    ]
    # [CLS] a b [SEP], [CLS] c [SEP]
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert np.allclose([np.linalg.norm(item["embedding"]) for item in body["data"]], 1)


async def test_all_forms_of_input_mean_the_same(client: Client) -> None:
    tokens = (await client.post("/tokenize", {"model": "embedder", "content": "a b"})).json()
    framed = [2, *tokens["tokens"], 3]
    expected = rows(await embed(client, "a b"))
    for form in (["a b"], framed, [framed]):
        assert np.allclose(rows(await embed(client, form)), expected, atol=1e-6)
    many = rows(await embed(client, ["x y z", "a b", "w"]))
    assert np.allclose(many[1], expected[0], atol=2e-3)
    assert not np.allclose(many[0], expected[0], atol=2e-2)


async def test_special_tokens_are_not_to_be_forged(client: Client) -> None:
    body = (await embed(client, "[SEP]")).json()
    assert body["usage"]["prompt_tokens"] == 2 + 5


async def test_base64_holds_the_same_floats(client: Client) -> None:
    encoded = (await embed(client, "a b", encoding_format="base64")).json()["data"][0]["embedding"]
    floats = np.frombuffer(base64.b64decode(encoded), "<f4")
    plain = rows(await embed(client, "a b", encoding_format="float"))[0]
    assert floats.astype(np.float64).tolist() == plain.tolist()


async def test_dimensions_cut_and_normalize(client: Client) -> None:
    whole = rows(await embed(client, "a b"))[0]
    cut = rows(await embed(client, "a b", dimensions=8))[0]
    assert np.allclose(cut, whole[:8] / np.linalg.norm(whole[:8]), atol=1e-6)


async def test_an_answer_too_large_for_the_loop(client: Client) -> None:
    many = rows(await embed(client, [f"{n} {n * n}" for n in range(700)]))
    assert many.shape == (700, 32)
    assert np.allclose(many[699], rows(await embed(client, "699 488601"))[0], atol=2e-3)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": ""}, "input", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": ["a", ""]}, "input[1]", "invalid_value"),
        ({"input": [[5], []]}, "input[1]", "invalid_value"),
        ({"input": ["a", [5]]}, "input[0]", "invalid_value"),
        ({"input": [5, 1_000_000]}, "input[1]", "invalid_token"),
        ({"input": [[5], [5, -1]]}, "input[1][1]", "invalid_token"),
        ({"input": {"text": "a"}}, "input", "invalid_type"),
        ({"input": ["a", "b " * CONTEXT]}, "input[1]", "context_length_exceeded"),
        ({"input": "a", "dimensions": 33}, "dimensions", "invalid_value"),
        ({"input": "a", "dimensions": 0}, "dimensions", "invalid_value"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "invalid_value"),
        ({"input": "a", "model": "chat"}, "model", "model_not_supported"),
        ({"input": "a", "model": "reranker"}, "model", "model_not_supported"),
        ({"input": "a", "model": "nobody"}, "model", "model_not_found"),
        ({}, "input", "missing_required_parameter"),
    ],
)
async def test_refusals(client: Client, fields: dict[str, Any], param: str, code: str) -> None:
    response = await client.post("/v1/embeddings", {"model": "embedder"} | fields)
    error = response.json()["error"]
    assert (response.status, error["param"], error["code"]) == (
        404 if code == "model_not_found" else 400,
        param,
        code,
    )


async def test_too_long_says_how_long(client: Client) -> None:
    message = (await embed(client, ["a", "b " * 200])).json()["error"]["message"]
    assert "96" in message and "202" in message and "number 1" in message


async def test_the_wrong_model_names_the_right_one(client: Client) -> None:
    chat = await client.post("/v1/embeddings", {"model": "chat", "input": "a"})
    assert "embedder" in chat.json()["error"]["message"]
    embedder = await client.chat(model="embedder")
    assert (embedder.status, embedder.json()["error"]["code"]) == (400, "model_not_supported")
    template = {"model": "embedder", "messages": [{"role": "user", "content": "a"}]}
    assert (await client.post("/apply-template", template)).status == 400


async def test_without_a_name_the_model_that_can(client: Client) -> None:
    assert (await client.post("/v1/embeddings", {"input": "a"})).json()["model"] == "embedder"


async def test_unknown_fields_are_listed(client: Client) -> None:
    response = await embed(client, "a", user="u", task="x")
    assert response.headers["x-ignored-params"] == "task"


async def test_models_tell_what_they_can(client: Client) -> None:
    await embed(client, "a")
    await client.post("/v1/rerank", {"query": "a", "documents": ["b"]})
    cards = {card["id"]: card for card in (await client.get("/v1/models")).json()["data"]}
    assert cards["embedder"]["capabilities"] == ["embedding"]
    assert cards["reranker"]["capabilities"] == ["rerank"]
    assert cards["embedder"]["context_length"] == CONTEXT
    assert (await client.get("/health")).json()["status"] == "ok"


async def test_hanging_up_leaves_nothing_behind(client: Client) -> None:
    await embed(client, "a")
    body = {"model": "embedder", "input": ["a b c d"] * 20_000}
    exchange = client.begin("POST", "/v1/embeddings", body)
    while (await client.get("/health")).json()["models"]["embedder"]["running"] == 0:
        assert not exchange.task.done()
    await exchange.hang_up()
    assert exchange.status is None
    health = (await client.get("/health")).json()["models"]["embedder"]
    assert health["running"] == health["waiting"] == 0
    assert rows(await embed(client, "a")).shape == (1, 32)


async def test_metrics_know_embedding_models(client: Client) -> None:
    await embed(client, "a")
    metrics = (await client.get("/metrics")).body.decode()
    assert 'ingle_slots{model="embedder"} 64.0' in metrics
