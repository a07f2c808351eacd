"""Streams over real sockets: how a token's words get from the engine's event to the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from msgspec import Struct
from starlette.types import Message, Receive, Scope, Send

from engine.request import Event, RequestDone, Timings, TokenOutput, Usage
from engine.stream import Stream
from server.connection import ClientDisconnected
from server.connections import Limits, guarded
from server.middleware import RequestLog
from server.sse import EventStream, Opened

pytestmark = pytest.mark.anyio

DONE = RequestDone(Usage(1, 1, 0), Timings(0, 0, 0))
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Words:
    """An encoder that adds nothing."""

    def opening(self) -> bytes:
        return b"<"

    def feed(self, event: Event) -> bytes:
        return event.text.encode() if isinstance(event, TokenOutput) else b">"


class Answer:
    """An application whose one answer is a stream that the test feeds."""

    def __init__(self) -> None:
        self.stream = Stream(self._cancel)
        self.cancelled = asyncio.Event()
        self.began = asyncio.Event()
        self.sent: list[Message] = []
        self.left = asyncio.Event()

    def _cancel(self) -> None:
        self.cancelled.set()

    def say(self, text: str) -> None:
        self.stream.put(TokenOutput(index=0, text=text, n_tokens=1))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noted(message: Message) -> None:
            self.sent.append(message)
            await send(message)
            if message.get("body") == b"<":
                self.began.set()

        await receive()
        scope["request_log"] = RequestLog("x", time.perf_counter())
        response = EventStream(Opened(self.stream, Words()), keepalive=60)
        try:
            await response(scope, receive, noted)
        except ClientDisconnected:
            self.left.set()


class Exchange(Struct):
    """The answer under way, and its client's end."""

    answer: Answer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def body(self) -> bytes:
        """All of it, out of its chunks."""
        data, whole = b"", b""
        while not data.endswith(b"0\r\n\r\n"):
            data += await asyncio.wait_for(self.reader.read(1 << 20), 10)
        data = data.partition(b"\r\n\r\n")[2]
        while data:
            size, _, data = data.partition(b"\r\n")
            whole, data = whole + data[: int(size, 16)], data[int(size, 16) + 2 :]
        return whole


@asynccontextmanager
async def asking() -> AsyncIterator[Exchange]:
    """A request whose answer has begun."""
    answer = Answer()
    limits = Limits(connections=4, connections_per_client=4)
    config = uvicorn.Config(
        answer, http=guarded(limits), ws="none", port=0, log_config=None, lifespan="off"
    )
    server = uvicorn.Server(config)
    server.config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 12)
    writer.write(REQUEST)
    await asyncio.wait_for(answer.began.wait(), 10)
    await asyncio.sleep(0)
    try:
        yield Exchange(answer, reader, writer)
    finally:
        writer.close()
        await server.shutdown()


async def until(condition: Callable[[], bool], act: Callable[[], Awaitable[None]]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await act()
    raise AssertionError("it never came to that")


async def test_a_token_is_no_message_of_the_application() -> None:
    async with asking() as exchange:
        for number in range(200):
            exchange.answer.say(f"{number},")
        exchange.answer.stream.put(DONE)
        expected = "<" + "".join(f"{number}," for number in range(200)) + ">"
        assert (await exchange.body()).decode() == expected
    # The head, what opens the answer, what ends it, and the end of the body.
    assert len(exchange.answer.sent) == 4


async def test_a_client_that_reads_late_gets_everything_in_order() -> None:
    async with asking() as exchange:
        said: list[str] = []

        async def say() -> None:
            said.append(f"{len(said)}".rjust(60_000, "."))
            exchange.answer.say(said[-1])
            await asyncio.sleep(0)

        # Once its buffers are full, the task waits with what it has.
        await until(lambda: len(exchange.answer.sent) > 2, say)
        for _ in range(3):
            await say()
        assert len(exchange.answer.sent) == 3
        exchange.answer.stream.put(DONE)
        assert (await exchange.body()).decode() == "<" + "".join(said) + ">"


async def test_a_client_that_leaves_ends_the_request() -> None:
    async with asking() as exchange:
        exchange.answer.say("a")
        exchange.writer.close()
        await asyncio.wait_for(exchange.answer.left.wait(), 10)
        assert exchange.answer.cancelled.is_set()
