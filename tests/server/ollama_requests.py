"""Requests to Ollama's door, and what comes back."""

from __future__ import annotations

import json
from typing import Any

from tests.server.asgi import Client, Exchange

HI = [{"role": "user", "content": "Hi"}]


async def chat(client: Client, **fields: Any) -> Exchange:
    body = {"model": "fake-model", "messages": HI, "stream": False} | fields
    return await client.post("/api/chat", body)


async def generate(client: Client, **fields: Any) -> Exchange:
    body = {"model": "fake-model", "prompt": "Hi", "stream": False} | fields
    return await client.post("/api/generate", body)


def lines(exchange: Exchange) -> list[Any]:
    assert exchange.headers["content-type"].startswith("application/x-ndjson")
    assert exchange.body.endswith(b"\n")
    return [json.loads(line) for line in exchange.body.splitlines()]


def said(lines: list[Any], field: str = "content") -> str:
    return "".join(line["message"].get(field, "") for line in lines)
