"""Pieces of text in every API's stream: what is encoded ahead reads as what is encoded whole."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.server.asgi import Client, Exchange
from tests.server.fakes import FakeEngine, answer
from tests.server.ollama_requests import HI

pytestmark = pytest.mark.anyio

TEXT = 'a"\\\n\0{é😀}</p> "sequence_number":0'

_CHAT: dict[str, Any] = {"messages": HI, "max_tokens": 99, "stream": True}
DOORS = {
    "/v1/chat/completions": (_CHAT, ("choices", 0, "delta", "content")),
    "/v1/completions": ({"prompt": "Hi", "stream": True}, ("choices", 0, "text")),
    "/v1/messages": (_CHAT, ("delta", "text")),
    "/v1/responses": ({"input": "Hi", "stream": True}, ("delta",)),
    "/api/chat": ({"messages": HI}, ("message", "content")),
    "/api/generate": ({"prompt": "Hi"}, ("response",)),
}


def documents(exchange: Exchange) -> Iterator[Any]:
    for line in exchange.body.decode().split("\n"):
        data = line.removeprefix("data: ")
        if data.startswith("{"):
            yield json.loads(data)


def found(document: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and document:
            document = document[step]
        else:
            return None
    return document


@pytest.mark.parametrize("path", DOORS)
async def test_any_character_comes_through(client: Client, engine: FakeEngine, path: str) -> None:
    engine.script = answer(TEXT)
    body, place = DOORS[path]
    exchange = await client.post(path, {"model": "fake-model"} | body)
    pieces = [piece for each in documents(exchange) if (piece := found(each, place))]
    # The last one comes with the end, or beside it: never from what was encoded ahead.
    assert pieces == list(TEXT)


async def test_pieces_differ_in_nothing_but_their_text(client: Client, engine: FakeEngine) -> None:
    """With the last one, which no frame makes."""
    engine.script = answer("xyz")
    for path, (body, place) in DOORS.items():
        exchange = await client.post(path, {"model": "fake-model"} | body)
        said = [each for each in documents(exchange) if found(each, place)]
        assert [found(each, place) for each in said] == ["x", "y", "z"]
        first, _, last = said
        assert first.keys() == last.keys(), path
        changing = {"created_at", "choices", "delta", "message", "response", "sequence_number"}
        for key in first.keys() - changing:
            assert first[key] == last[key], (path, key)


async def test_responses_count_every_event(client: Client, engine: FakeEngine) -> None:
    engine.script = answer("some text")
    exchange = await client.post(
        "/v1/responses", {"model": "fake-model", "input": "Hi", "stream": True}
    )
    numbers = [each["sequence_number"] for each in documents(exchange)]
    assert numbers == list(range(len(numbers))) and len(numbers) > len("some text")


async def test_each_line_has_its_time_however_the_clock_jumps(
    client: Client, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = 1_700_000_000 * 10**9
    moments = [
        second + 999_999_999,
        second + 10**9,
        second + 1_000,
        3 * 10**9,
        second + 10**16,
        30 * 10**9,
    ]
    engine.script = answer("x" * (len(moments) + 1))
    coming = iter(moments)
    monkeypatch.setattr(time, "time_ns", lambda: next(coming, second))
    exchange = await client.post("/api/chat", {"model": "fake-model", "messages": HI})
    times = [each["created_at"] for each in documents(exchange)]
    assert all(moment.endswith("Z") for moment in times)
    assert [datetime.fromisoformat(moment) for moment in times[: len(moments)]] == [
        datetime.fromtimestamp(moment // 1000 / 1e6, UTC) for moment in moments
    ]
