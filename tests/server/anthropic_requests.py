"""Requests to /v1/messages, and the events of their streams."""

from __future__ import annotations

import json
from typing import Any

from tests.server.asgi import Client, Exchange


async def ask(client: Client, path: str = "", **fields: Any) -> Exchange:
    body = {
        "model": "fake-model",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    return await client.post("/v1/messages" + path, body | fields)


async def streamed(client: Client, **fields: Any) -> list[tuple[str, Any]]:
    """Name and data of each event; the data must repeat the name."""
    exchange = await ask(client, stream=True, **fields)
    events = []
    for block in exchange.body.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    assert all(name == data["type"] for name, data in events)
    return events
