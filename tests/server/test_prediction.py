"""Predicted outputs on the wire: what reaches the engine, what comes back, what is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from engine.request import Event, Request, RequestDone, Usage
from tests.server.asgi import Client
from tests.server.fakes import INFO, FakeEngine, answer

pytestmark = pytest.mark.anyio

PARTS = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]


def predicted(content: Any) -> dict[str, Any]:
    return {"type": "content", "content": content}


@pytest.mark.parametrize("content", ["Hello", PARTS, [{"type": "text", "text": "Hello"}]])
async def test_the_engine_gets_its_tokens(
    client: Client, engine: FakeEngine, content: object
) -> None:
    response = await client.chat(prediction=predicted(content))
    assert response.status == 200
    assert engine.requests[0].prediction == tuple(map(ord, "Hello"))
    assert "x-ignored-params" not in response.headers


@pytest.mark.parametrize("prediction", [None, predicted(""), predicted([])])
async def test_none_is_none(client: Client, engine: FakeEngine, prediction: object) -> None:
    assert (await client.chat(prediction=prediction)).status == 200
    assert engine.requests[0].prediction == ()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_counts_come_back(client: Client, engine: FakeEngine, stream: bool) -> None:
    def script(request: Request) -> Iterable[Event]:
        for event in answer("Hello")(request):
            if isinstance(event, RequestDone):
                event = replace(event, usage=Usage(10, 5, 4, 3, 2))
            yield event

    engine.script = script
    fields = {"stream_options": {"include_usage": True}} if stream else {}
    response = await client.chat(prediction=predicted("Help"), stream=stream, **fields)
    usage = response.events()[-2]["usage"] if stream else response.json()["usage"]
    assert (usage["completion_tokens"], usage["total_tokens"]) == (5, 15)
    details = usage["completion_tokens_details"]
    assert details["accepted_prediction_tokens"] == 3
    assert details["rejected_prediction_tokens"] == 2


@pytest.mark.parametrize(
    ("prediction", "param"),
    [
        ("Hello", "prediction"),
        ([], "prediction"),
        ({"content": "Hello"}, "prediction.type"),
        ({"type": "text", "content": "Hello"}, "prediction.type"),
        ({"type": "content"}, "prediction.content"),
        (predicted(None), "prediction.content"),
        (predicted([{"text": "Hello"}]), "prediction.content[0].type"),
        (predicted([{"type": "text"}]), "prediction.content[0].text"),
        (predicted([{"type": "image_url", "image_url": {}}]), "prediction.content[0].type"),
        (predicted(["Hello"]), "prediction.content[0]"),
        (predicted("x" * (INFO.context + 1)), "prediction.content"),
        (predicted("x" * 100_000), "prediction.content"),
    ],
)
async def test_what_it_cannot_be(
    client: Client, engine: FakeEngine, prediction: object, param: str
) -> None:
    response = await client.chat(prediction=prediction)
    assert (response.status, response.json()["error"]["param"]) == (400, param)
    assert engine.requests == []


async def test_what_is_unknown_in_it_is_told(client: Client) -> None:
    response = await client.chat(prediction={**predicted("x"), "mood": 1})
    assert response.headers["x-ignored-params"] == "prediction.mood"


@pytest.mark.parametrize("stream", [False, True])
async def test_models_that_cannot_take_tokens_back_say_so(
    client: Client, engine: FakeEngine, stream: bool
) -> None:
    engine.info = replace(INFO, can_draft=False)
    response = await client.chat(prediction=predicted("Hello"), stream=stream)
    assert response.status == 200
    assert response.headers["x-ignored-params"] == "prediction"
    assert engine.requests[0].prediction == ()


async def test_it_goes_with_all_other_options(client: Client, engine: FakeEngine) -> None:
    fields = {"n": 2, "logprobs": True, "presence_penalty": 1, "max_completion_tokens": 9}
    assert (await client.chat(prediction=predicted("Hello"), **fields)).status == 200
    assert len(engine.requests[0].prediction) == 5
