"""A response that takes long to begin: its stream shows life in a way that Codex counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from server.config import ServerConfig
from tests.server.asgi import Client
from tests.server.conftest import MODEL
from tests.server.fakes import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    config = ServerConfig(models=(MODEL,), store=tmp_path / "store.sqlite3")
    return replace(config, keepalive=0.01)


async def test_silence_is_broken_by_events_after_the_first(
    client: Client, engine: FakeEngine
) -> None:
    engine.hold.clear()
    body = {"model": "fake-model", "input": "Hi", "stream": True}
    exchange = client.begin("POST", "/v1/responses", body)
    await exchange.until(b'event: keepalive\ndata: {"type":"keepalive"}\n\n' * 2)
    engine.hold.set()
    await exchange.finish()
    names = [line[7:] for line in exchange.body.decode().split("\n") if line.startswith("event: ")]
    assert names.index("response.created") < names.index("keepalive")
    assert names[-1] == "response.completed"
