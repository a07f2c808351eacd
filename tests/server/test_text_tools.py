"""/tokenize, /detokenize, /apply-template, and the list of models."""

from __future__ import annotations

import pytest

from tests.server.asgi import Client

pytestmark = pytest.mark.anyio


async def test_tokenize(client: Client) -> None:
    response = await client.post("/tokenize", {"content": "aé"})
    assert response.json() == {"tokens": [97, 233]}


async def test_tokenize_with_pieces(client: Client) -> None:
    response = await client.post("/tokenize", {"content": "a\ud800", "with_pieces": True})
    assert response.status == 400
    response = await client.post("/tokenize", {"content": "aé", "with_pieces": True})
    assert response.json() == {"tokens": [{"id": 97, "piece": "a"}, {"id": 233, "piece": "é"}]}


async def test_detokenize(client: Client) -> None:
    response = await client.post("/detokenize", {"tokens": [97, 233], "model": "alias"})
    assert response.json() == {"content": "aé"}


@pytest.mark.parametrize("token", [-1, 0x110000])
async def test_detokenize_unknown_token(client: Client, token: int) -> None:
    response = await client.post("/detokenize", {"tokens": [97, token]})
    assert response.status == 400
    assert response.json()["detail"][0]["loc"] == ["body", "tokens", 1]


async def test_apply_template(client: Client) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "enable_thinking": False}
    response = await client.post("/apply-template", body)
    assert response.json() == {"prompt": "<user>Hi[thinking=False]<assistant>"}


async def test_apply_template_names_the_bad_field(client: Client) -> None:
    response = await client.post("/apply-template", {"messages": [{"role": "x"}]})
    assert response.status == 400
    assert response.json()["error"]["param"] == "messages[0].role"


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/apply-template"])
async def test_missing_field(client: Client, path: str) -> None:
    response = await client.post(path, {})
    error = response.json()["error"]
    assert response.status == 400
    assert error["code"] == "missing_required_parameter"
    assert error["param"] in ("content", "tokens", "messages")


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/apply-template"])
async def test_unknown_model(client: Client, path: str) -> None:
    body = {"content": "", "tokens": [], "messages": [], "model": "gpt-9"}
    assert (await client.post(path, body)).status == 404


async def test_a_slash_at_the_end_of_a_path_is_no_part_of_a_name(client: Client) -> None:
    assert (await client.get("/v1/models/")).json()["object"] == "list"
    assert (await client.get("/v1/models/alias/")).json()["id"] == "fake-model"
    (detail,) = (await client.get("/v1/models/gpt-9/")).json()["detail"]
    assert detail["loc"] == ["path", "name"]


async def test_model_list(client: Client) -> None:
    body = (await client.get("/v1/models")).json()
    assert body["object"] == "list"
    (card,) = body["data"]
    assert card["id"] == "fake-model"
    assert card["object"] == "model"
    assert card["loaded"] is True
    assert card["aliases"] == ["alias"]
    assert card["context_length"] == card["max_model_len"] == 512
    assert {"chat", "tools", "structured_output"} <= set(card["capabilities"])
    assert "thinking" not in card["capabilities"]
    assert card["meta"]["n_ctx_train"] == 2048
    assert card["meta"]["n_ctx"] == 512


@pytest.mark.parametrize("name", ["fake-model", "alias", "org/fake-model"])
async def test_one_model(client: Client, name: str) -> None:
    assert (await client.get(f"/v1/models/{name}")).json()["id"] == "fake-model"


async def test_no_such_model(client: Client) -> None:
    response = await client.get("/v1/models/gpt-9")
    assert response.status == 404
    assert response.json()["error"]["code"] == "model_not_found"
