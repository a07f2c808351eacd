"""The wall clock may jump: only time stamps follow it."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from tests.server.asgi import Client

ROOT = Path(__file__).resolve().parents[2]
FILES = [path for name in ("server", "engine", "grammars") for path in (ROOT / name).rglob("*.py")]
STAMPS = {
    *("server/served_model.py", "server/crashes.py", "server/logs.py", "server/tracing.py"),
    *("server/api/completions_call.py", "server/api/chat_call.py"),
    *("server/api/responses/answer.py", "server/api/ollama/body.py"),
    "server/api/ollama/listing.py",
    "server/api/ollama/answer.py",
    # What a template prints as today's date.
    "server/chat/sandbox.py",
    # Ages of files, which carry wall time themselves: which prefix goes first, what is left over.
    "engine/disk_cache.py",
}
"""Files that may ask for the time of day."""
WALL = {"time", "time_ns", "now", "today", "utcnow", "gmtime", "localtime"}


def asks_for_the_time_of_day(source: str) -> bool:
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in WALL
        and isinstance(node.value, ast.Name)
        and node.value.id in ("time", "datetime", "date")
        for node in ast.walk(ast.parse(source))
    )


def test_who_asks_for_the_time_of_day() -> None:
    asking = {path for path in FILES if asks_for_the_time_of_day(path.read_text("utf-8"))}
    assert {str(path.relative_to(ROOT)) for path in asking} == STAMPS


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A clock that goes back a year, forth by ten and to the beginning, at every look."""
    now = time.time()
    moments = cycle((now, now - 3e7, now + 3e8, 1.0))
    monkeypatch.setattr(time, "time", lambda: next(moments))
    yield
    monkeypatch.undo()


@pytest.mark.anyio
async def test_answers_while_the_clock_jumps(client: Client, jumping: None) -> None:
    ids = []
    for _ in range(5):
        answer = await client.chat(store=True)
        assert answer.status == 200
        assert 0 <= int(answer.headers["openai-processing-ms"]) < 60_000
        ids.append(answer.json()["id"])
    assert (await client.chat(stream=True)).events()[-1] == "[DONE]"
    listed = (await client.get("/v1/chat/completions")).json()
    assert sorted(item["id"] for item in listed["data"]) == sorted(ids)
    first = (await client.get("/v1/chat/completions?limit=2")).json()
    rest = (await client.get(f"/v1/chat/completions?after={first['last_id']}")).json()
    seen = [item["id"] for item in (*first["data"], *rest["data"])]
    assert sorted(seen) == sorted(ids)
