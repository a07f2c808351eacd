"""How much a request may hold, each bound at its edge."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.errors import ContextLengthExceeded
from server.prompt_text import CHARS_PER_TOKEN
from tests.server.asgi import Client, chat_body
from tests.server.fakes import FakeEngine

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"


def tools(count: int) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": f"f{i}"}} for i in range(count)]


def functions(count: int) -> list[dict[str, Any]]:
    return [{"name": f"f{i}", "input_schema": {}} for i in range(count)]


@pytest.mark.parametrize(
    ("path", "field", "fitting", "too_much"),
    [
        (CHAT, "messages", 3, 4),
        (CHAT, "tools", 2, 3),
        (CHAT, "stop", 16, 17),
        ("/v1/messages", "messages", 3, 4),
        ("/v1/messages", "tools", 2, 3),
        ("/v1/messages", "stop_sequences", 16, 17),
    ],
)
async def test_how_many(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    field: str,
    fitting: int,
    too_much: int,
) -> None:
    monkeypatch.setattr("server.conversation.MAX_MESSAGES", 3)
    monkeypatch.setattr("server.tools.MAX_TOOLS", 2)
    make = {
        "messages": lambda n: [{"role": "user", "content": "x"}] * n,
        "tools": tools if path == CHAT else functions,
        "stop": lambda n: ["x"] * n,
        "stop_sequences": lambda n: ["x"] * n,
    }[field]
    body = chat_body(max_tokens=1, tool_choice=None)
    # The fake model has no room for a list of tools: that is another 400.
    answer = await client.post(path, body | {field: make(fitting)})
    assert f"at most {fitting}" not in answer.body.decode()
    answer = await client.post(path, body | {field: make(too_much)})
    assert answer.status == 400
    message = answer.json()["error"]["message"]
    assert f"at most {fitting}" in message
    assert str(too_much) in message


async def test_floats_for_integers(client: Client) -> None:
    """However many stand in a list, the body is read a few times at most."""
    tokens = [float(ord("a"))] * 200_000
    answer = await client.post("/detokenize", {"tokens": tokens})
    assert answer.json() == {"content": "a" * 200_000}
    mixed = await client.post("/detokenize", {"tokens": [97.0, 97.5]})
    assert mixed.status == 400
    assert "tokens[1]" in mixed.json()["error"]["message"]


async def test_depth(client: Client) -> None:
    """The edge is Python's own, less the frames that are in use."""

    async def fits(depth: int) -> bool:
        body = json.dumps(chat_body())[:-1] + ', "x": ' + "[" * depth + "]" * depth + "}"
        answer = await client.post(CHAT, body.encode())
        refused = answer.status == 400 and "nested too deeply" in answer.json()["error"]["message"]
        assert answer.status == 200 or refused
        return not refused

    low, high = 100, 5000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if await fits(middle) else (low, middle)
    assert 800 < low < 1000


@pytest.mark.parametrize(
    ("fitting", "too_much", "param"),
    [
        ({"stop": ["a" * 1024]}, {"stop": ["a" * 1025]}, "stop[0]"),
        (
            {"functions": [{"name": "f" * 128}]},
            {"functions": [{"name": "f" * 129}]},
            "functions[0].name",
        ),
        (
            {"metadata": {"k" * 64: "v" * 512}},
            {"metadata": {"k": "v" * 513}},
            "metadata.k",
        ),
        (
            {"metadata": {f"{i}": "" for i in range(16)}},
            {"metadata": {f"{i}": "" for i in range(17)}},
            "metadata",
        ),
        ({"n": 128}, {"n": 129}, "n"),
        (
            {"logprobs": True, "top_logprobs": 20},
            {"logprobs": True, "top_logprobs": 21},
            "top_logprobs",
        ),
    ],
)
async def test_how_long(
    client: Client, fitting: dict[str, Any], too_much: dict[str, Any], param: str
) -> None:
    answer = await client.chat(**fitting)
    # The fake model has no room for functions: that is another 400.
    assert answer.status == 200 or answer.json()["error"]["param"] != param
    answer = await client.chat(**too_much)
    assert answer.status == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(("prompts", "status"), [(2048, 200), (2049, 400)])
async def test_how_many_choices(client: Client, prompts: int, status: int) -> None:
    body = {"model": "fake-model", "prompt": ["a"] * prompts, "max_tokens": 1}
    answer = await client.post("/v1/completions", body)
    assert answer.status == status
    assert status == 200 or "at most 2048" in answer.json()["error"]["message"]


async def test_characters_of_a_prompt(client: Client, engine: FakeEngine) -> None:
    """What is surely too long, whatever its tokens are, is not even encoded."""
    encoded: list[int] = []
    encode = engine.tokenizer.encode

    def counting(text: str, **kwargs: bool) -> list[int]:
        encoded.append(len(text))
        return encode(text, **kwargs)

    engine.tokenizer.encode = counting  # type: ignore[method-assign]
    edge = CHARS_PER_TOKEN * engine.info.context
    for chars, tried in ((edge, 1), (edge + 1, 0)):
        encoded.clear()
        engine.refusal = ContextLengthExceeded(chars, engine.info.context)
        answer = await client.post("/v1/completions", {"prompt": "x" * chars, "max_tokens": 1})
        assert answer.status == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert len(encoded) == tried


async def test_a_body_that_never_comes(
    client: Client, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.decode.BODY_SECONDS", 0.01)
    exchange = client.begin("POST", CHAT, b'{"messages": [', more_body=True)
    await asyncio.wait_for(exchange.task, 10)
    assert exchange.status == 408
    assert exchange.headers["connection"] == "close"
    assert engine.requests == []


async def test_media_are_not_fetched(client: Client, engine: FakeEngine) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}
    answer = await client.chat(messages=[{"role": "user", "content": [image]}])
    assert answer.status == 400
    assert answer.json()["error"]["param"] == "messages[0].content[0].type"
    assert engine.requests == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "x" * 50_000}]}]}),
        ("/v1/messages", {"thinking": {"type": "x" * 50_000}}),
        (CHAT, {"messages": [{"role": "x" * 50_000, "content": "Hi"}]}),
        (CHAT, {"response_format": {"type": "x" * 50_000}}),
        (CHAT, {"metadata": {"x" * 50_000: 1}}),
        (CHAT, {"model": "x" * 50_000}),
    ],
)
async def test_errors_repeat_little_of_a_body(
    client: Client, path: str, field: dict[str, Any]
) -> None:
    answer = await client.post(path, chat_body(max_tokens=1) | field)
    assert answer.status in (400, 404)
    assert 0 < len(answer.json()["error"]["message"]) < 1000
