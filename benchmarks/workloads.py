"""What users feel of a chat server, as figures: each workload of compare.py."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.throughput import Client, at, requests_per_second

Workload = Callable[[], Awaitable[float]]

WORDS = ("amber", "basil", "cedar", "delta", "ember", "frost", "grove", "heron", "iris", "kelp")
SCHEMA = {
    "type": "object",
    "properties": {
        name: {
            "type": "object",
            "properties": {"first": {"type": "boolean"}, "count": {"type": "integer"}},
            "required": ["first", "count"],
            "additionalProperties": False,
        }
        for name in ("inventory_north", "inventory_south", "inventory_east")
    },
    "required": ["inventory_north", "inventory_south", "inventory_east"],
    "additionalProperties": False,
}

RATES = (
    "1 stream, tok/s",
    "4 streams, tok/s",
    "16 streams, tok/s",
    "busy neighbour, tok/s",
    "requests/s at one token",
)
"""More is better; of all others less is."""


def text(n_words: int, salt: int) -> str:
    """About 3 tokens a word; no two salts share a beginning."""
    step = salt + 3
    words = (WORDS[(salt * 7 + i * step) % len(WORDS)] + str(salt + i) for i in range(n_words))
    return " ".join(words)


def body(system: str, user: str, tokens: int, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return {
        "messages": messages,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "ignore_eos": True,
    } | fields


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """Another process that never rests."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Workloads:
    """Each method returns a figure; no two runs share a prompt, on any server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._salt = 1

    def all(self) -> dict[str, Workload]:
        """By the names that the tables carry."""
        return {
            "1 stream, tok/s": lambda: self.streams(1),
            "4 streams, tok/s": lambda: self.streams(4),
            "16 streams, tok/s": lambda: self.streams(16),
            "busy neighbour, tok/s": self.busy,
            "8 users, one new prompt, s": self.shared_prompt,
            "next turn's first token, s": self.next_turn,
            "long lone prompt, s": self.lone_prompt,
            "JSON schema, s": self.schema,
            "n = 4, s": self.four_choices,
            "longest stall, s": self.stall,
            "requests/s at one token": self.rate,
        }

    def _new(self) -> int:
        self._salt += 1
        return self._salt

    async def streams(self, count: int) -> float:
        """Tokens per second over all streams."""
        return (await at(self._client, count, 64 + 2 * count, 100 * self._new()))["tok_s"]

    async def busy(self) -> float:
        """One stream beside another process that computes."""
        with busy_neighbour():
            return (await at(self._client, 1, 32, 100 * self._new()))["tok_s"]

    async def shared_prompt(self) -> float:
        """Seconds until 8 users of one new system prompt have their answers."""
        system = text(300, self._new())
        began = time.perf_counter()
        users = (self._client.stream(body(system, f"Question {i}?", 8)) for i in range(8))
        await asyncio.gather(*users)
        return time.perf_counter() - began

    async def next_turn(self) -> float:
        """Seconds to the first token of a second turn."""
        system = text(250, self._new())
        first = body(system, "Tell me of it.", 16)
        await self._client.stream(first)
        first["messages"] += [
            {"role": "assistant", "content": "It is a list of words."},
            {"role": "user", "content": "What else can you say about the words in the list?"},
        ]
        return (await self._client.stream(first))[0]

    async def lone_prompt(self) -> float:
        """Seconds to the first token of a long prompt that nothing is known of."""
        return (await self._client.stream(body(text(500, self._new()), "Go on.", 2)))[0]

    async def schema(self) -> float:
        """Seconds for one object-heavy document, streamed."""
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
        wanted = body("Be brief.", f"Fill it in, {self._new()}.", 120)
        wanted |= {"response_format": form, "ignore_eos": False}
        began = time.perf_counter()
        await self._client.stream(wanted)
        return time.perf_counter() - began

    async def four_choices(self) -> float:
        """Seconds for n = 4."""
        began = time.perf_counter()
        await self._client.stream(body(text(120, self._new()), "Go on.", 24, n=4))
        return time.perf_counter() - began

    async def stall(self) -> float:
        """Longest gap, in seconds, of a running stream while a 2,500-token prompt comes in."""
        running = asyncio.create_task(self._client.stream(body("Be brief.", "Count.", 220)))
        await asyncio.sleep(0.5)
        await self._client.stream(body(text(900, self._new()), "Go on.", 1))
        times = await running
        return max(b - a for a, b in itertools.pairwise(times))

    async def rate(self) -> float:
        """Requests per second, four at a time."""
        return await requests_per_second(self._client, 4.0, workers=4)
