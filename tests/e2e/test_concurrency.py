"""64 clients on 8 slots, half of them hanging up: the others get exactly what they asked for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import pytest
from openai import APITimeoutError, AsyncOpenAI

from tests.e2e.chat import MODEL, messages
from tests.e2e.server_process import ServerProcess

pytestmark = pytest.mark.anyio

CLIENTS = 64
TOKENS = 3
WORDS = ["apple", "river", "stone", "music", "light", "horse", "paper", "glass", "bread"]


def request_of(index: int, token: int) -> dict[str, Any]:
    """Its own prompt, and a bias that leaves its own word as the only answer."""
    return {
        "model": MODEL,
        "messages": messages(f"Client {index}."),
        "max_tokens": TOKENS,
        "temperature": 0,
        "logit_bias": {str(token): 100},
        "extra_headers": {"x-request-id": f"crowd-{index}"},
    }


async def whole(client: AsyncOpenAI, request: dict[str, Any]) -> str:
    completion = await client.chat.completions.create(**request)
    return completion.choices[0].message.content or ""


async def streamed(client: AsyncOpenAI, request: dict[str, Any]) -> str:
    stream = await client.chat.completions.create(**request, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def hang_up_in_stream(client: AsyncOpenAI, request: dict[str, Any]) -> None:
    request |= {"max_tokens": 500, "extra_body": {"ignore_eos": True}}
    async with await client.chat.completions.create(**request, stream=True) as stream:
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break


async def hang_up_in_queue(client: AsyncOpenAI, request: dict[str, Any]) -> None:
    request |= {"max_tokens": 500, "extra_body": {"ignore_eos": True}}
    with contextlib.suppress(APITimeoutError):
        await client.chat.completions.create(**request, timeout=httpx.Timeout(60, read=0.3))


async def test_a_crowd(
    async_client: AsyncOpenAI, server: ServerProcess, http: httpx.Client
) -> None:
    tokens = {}
    for word in WORDS:
        (token,) = http.post("/tokenize", json={"content": f" {word}"}).json()["tokens"]
        tokens[word] = token
    kinds = (whole, hang_up_in_stream, streamed, hang_up_in_queue)
    calls = []
    for index in range(CLIENTS):
        word = WORDS[index % len(WORDS)]
        calls.append(kinds[index % 4](async_client, request_of(index, tokens[word])))
    answers = await asyncio.gather(*calls)
    for index, answer in enumerate(answers):
        if index % 2 == 0:
            assert answer == f" {WORDS[index % len(WORDS)]}" * TOKENS
        else:
            await asyncio.to_thread(server.wait_for_line, rf" 499 .* id=crowd-{index}\b")
    health = http.get("/health").json()
    assert health["status"] == "ok"
