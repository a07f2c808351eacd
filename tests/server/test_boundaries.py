"""Where messages end: told to engines whose memory cannot be trimmed, and to no other."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.server.asgi import Client
from tests.server.fakes import INFO, FakeEngine

pytestmark = pytest.mark.anyio

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "And?"},
]


@pytest.fixture
async def engine() -> FakeEngine:
    return FakeEngine(info=replace(INFO, can_trim=False))


async def test_the_ends_of_the_system_message_and_of_the_last(
    client: Client, engine: FakeEngine
) -> None:
    await client.chat(messages=MESSAGES)
    request = engine.requests[-1]
    text = "".join(map(chr, request.prompt))
    ends = [text[:length] for length in request.checkpoints]
    assert ends == ["<system>Be brief.", text.removesuffix("<assistant>")]
    assert ends[1].endswith("<user>And?")


async def test_without_a_system_message(client: Client, engine: FakeEngine) -> None:
    await client.chat(messages=MESSAGES[1:])
    (length,) = engine.requests[-1].checkpoints
    assert length == len("<user>Hi<assistant>Hello<user>And?")


async def test_memory_that_can_be_trimmed_needs_none(client: Client, engine: FakeEngine) -> None:
    engine.info = INFO
    await client.chat(messages=MESSAGES)
    assert engine.requests[-1].checkpoints == ()
