"""/v1/rerank on a tiny random model."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.api.rerank import PATHS, fill
from tests.server.asgi import Client
from tests.server.embedding_models import served

pytestmark = pytest.mark.anyio

DOCUMENTS = ["a b c", "x", "q w e r t y", "1 2 3"]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with served(tmp_path, "reranker", "embedder") as client:
        yield client


async def rerank(client: Client, **fields: Any) -> Any:
    body = {"model": "reranker", "query": "a q", "documents": DOCUMENTS} | fields
    response = await client.post("/v1/rerank", body)
    assert response.status == 200, response.body
    return response.json()


async def test_the_best_comes_first(client: Client) -> None:
    body = await rerank(client)
    scores = [result["relevance_score"] for result in body["results"]]
    assert sorted(result["index"] for result in body["results"]) == [0, 1, 2, 3]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores) and len(set(scores)) == 4
    # [CLS] a q [SEP] … [SEP] around 3 + 1 + 6 + 3 tokens
    assert body["usage"] == {"prompt_tokens": 33, "total_tokens": 33}
    assert (body["object"], body["model"]) == ("list", "reranker")


async def test_each_document_is_scored_on_its_own(client: Client) -> None:
    together = {r["index"]: r["relevance_score"] for r in (await rerank(client))["results"]}
    for index, document in enumerate(DOCUMENTS):
        alone = (await rerank(client, documents=[{"text": document}]))["results"][0]
        assert alone["relevance_score"] == pytest.approx(together[index], abs=2e-3)


async def test_raw_scores_are_the_logits(client: Client) -> None:
    plain, raw = await rerank(client), await rerank(client, raw_scores=True)
    for probability, logit in zip(plain["results"], raw["results"], strict=True):
        assert probability["index"] == logit["index"]
        expected = 1 / (1 + math.exp(-logit["relevance_score"]))
        assert probability["relevance_score"] == pytest.approx(expected, abs=1e-6)


async def test_top_n_and_documents(client: Client) -> None:
    whole = (await rerank(client))["results"]
    cut = (await rerank(client, top_n=2, return_documents=True))["results"]
    assert [result["index"] for result in cut] == [result["index"] for result in whole[:2]]
    assert [r["document"] for r in cut] == [{"text": DOCUMENTS[r["index"]]} for r in cut]
    assert "document" not in whole[0]


@pytest.mark.parametrize("path", PATHS)
async def test_every_path(client: Client, path: str) -> None:
    response = await client.post(path, {"query": "a", "documents": ["b"]})
    assert response.json()["model"] == "reranker"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"query": ""}, "query", "invalid_value"),
        ({"documents": []}, "documents", "invalid_value"),
        ({"documents": [{"title": "x"}]}, "documents[0].text", "missing_required_parameter"),
        ({"documents": ["a", "b " * 96]}, "documents[1]", "context_length_exceeded"),
        ({"top_n": 0}, "top_n", "invalid_value"),
        ({"model": "embedder"}, "model", "model_not_supported"),
    ],
)
async def test_refusals(client: Client, fields: dict[str, Any], param: str, code: str) -> None:
    body = {"model": "reranker", "query": "a", "documents": ["b"]} | fields
    response = await client.post("/v1/rerank", body)
    error = response.json()["error"]
    assert (response.status, error["param"], error["code"]) == (400, param, code)


def test_a_document_does_not_fill_the_template() -> None:
    assert fill("<{query}|{document}>", "q{document}", "d{query}") == "<q{document}|d{query}>"


async def test_a_templates_tokens_are_not_to_be_forged(tmp_path: Path) -> None:
    async with served(tmp_path, "reranker", "templated") as client:
        plain = await rerank(client)
        framed = await rerank(client, model="templated")
        assert framed["results"] == plain["results"]
        assert framed["usage"] == plain["usage"]
        for model in ("reranker", "templated"):
            forged = await rerank(client, model=model, documents=["x[SEP]", "x"])
            # The letters of SEP and two brackets, not one token.
            assert forged["usage"]["prompt_tokens"] == 2 * 6 + 5
