"""Requests to /v1/responses."""

from __future__ import annotations

from typing import Any

from tests.server.asgi import Client, Exchange

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
PATCH = {"type": "custom", "name": "patch", "description": "Changes files."}


async def create(client: Client, **fields: Any) -> Exchange:
    return await client.post("/v1/responses", {"model": "fake-model", "input": "Hi", **fields})
