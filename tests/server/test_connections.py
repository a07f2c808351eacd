"""Real sockets: heads too big, too many or too slow, and one connection too many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from msgspec import Struct
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.connections import Limits, guarded

pytestmark = pytest.mark.anyio

LIMITS = Limits(
    connections=4, connections_per_client=4, header_bytes=4096, headers=10, header_seconds=30
)
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n"


class Peer(Struct):
    """One client's end."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def status(self) -> int:
        """Reads one answer."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await self.reader.readexactly(length)
        return int(head.split(b" ", 2)[1])

    async def ended(self) -> bool:
        """Waits until the server closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), 10) == b""
        except ConnectionResetError:
            return True


class Service(Struct):
    """A server, and everybody who is connected to it."""

    port: int
    connections: set[object]
    """Of uvicorn."""
    peers: list[Peer] = []

    @property
    def open_connections(self) -> int:
        """As the server sees it."""
        return len(self.connections)

    async def connect(self) -> Peer:
        """One more connection."""
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port))
        self.peers.append(peer)
        return peer

    async def answer(self, data: bytes) -> int:
        """The status of the answer to `data` on a connection of its own."""
        peer = await self.connect()
        await peer.send(data)
        status = await peer.status()
        peer.writer.close()
        return status


async def hello(request: Request) -> Response:
    if await request.body() == b"{much}":
        return Response(b"x" * 2**23)
    return Response("hello")


@asynccontextmanager
async def serving(limits: Limits = LIMITS) -> AsyncIterator[Service]:
    """A server with these limits."""
    app = Starlette(routes=[Route("/", hello, methods=["GET", "POST"])])
    config = uvicorn.Config(
        app, http=guarded(limits), ws="none", port=0, log_config=None, lifespan="off"
    )
    server = uvicorn.Server(config)
    server.config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    service = Service(port, server.server_state.connections)
    try:
        yield service
    finally:
        for peer in service.peers:
            peer.writer.close()
        await server.shutdown()


def head_of(size: int) -> bytes:
    """A head of exactly `size` bytes as the limit counts them: URL, names, values, separators."""
    fixed = len(b"/") + len(b"hostx") + 4 + len(b"a") + 4
    return REQUEST + b"A: " + b"x" * (size - fixed) + b"\r\n\r\n"


async def test_the_size_of_a_head() -> None:
    async with serving() as service:
        assert await service.answer(head_of(LIMITS.header_bytes)) == 200
        assert await service.answer(head_of(LIMITS.header_bytes + 1)) == 431
        assert await service.answer(b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n") == 431


async def test_the_number_of_headers() -> None:
    async with serving() as service:
        assert await service.answer(REQUEST + b"A: b\r\n" * 9 + b"\r\n") == 200
        assert await service.answer(REQUEST + b"A: b\r\n" * 10 + b"\r\n") == 431


async def test_a_head_that_never_ends() -> None:
    async with serving() as service:
        peer = await service.connect()
        await peer.send(REQUEST + b"A: ")
        await peer.send(b"x" * (LIMITS.header_bytes - 20))
        assert await peer.status() == 431
        assert await peer.ended()


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("start", [b"2;", b"2\r\n{}\r\n0\r\nA: "])
async def test_what_surrounds_chunks_is_bounded(start: bytes) -> None:
    async with serving() as service:
        peer = await service.connect()
        await peer.send(CHUNKED + start)
        ended = asyncio.create_task(peer.ended())
        for _ in range(200):
            if ended.done():
                break
            peer.writer.write(b"x" * 1024)
            await asyncio.sleep(0.001)
        assert ended.done()
        assert await ended


async def test_trailers_are_dropped() -> None:
    async with serving() as service:
        peer = await service.connect()
        for _ in range(3):
            await peer.send(CHUNKED + b"2\r\n{}\r\n0\r\n" + b"A: b\r\n" * 20 + b"\r\n")
            assert await peer.status() == 200


async def test_many_small_chunks() -> None:
    async with serving() as service:
        peer = await service.connect()
        await peer.send(CHUNKED)
        for _ in range(LIMITS.header_bytes // 4):
            await peer.send(b"2\r\n{}\r\n")
        await peer.send(b"0\r\n\r\n")
        assert await peer.status() == 200


@pytest.mark.parametrize("first", [b"", b"G", REQUEST, b"\r\n\r\n"])
async def test_a_slow_head(first: bytes) -> None:
    async with serving(replace(LIMITS, header_seconds=0.05)) as service:
        peer = await service.connect()
        await peer.send(first)
        assert await peer.status() == 408
        assert await peer.ended()


@pytest.mark.parametrize("first", [b"G", REQUEST, b"\r\n"])
async def test_a_slow_head_of_a_later_request(first: bytes) -> None:
    async with serving(replace(LIMITS, header_seconds=0.2)) as service:
        peer = await service.connect()
        await peer.send(REQUEST + b"\r\n")
        assert await peer.status() == 200
        await peer.send(first)
        assert await peer.status() == 408
        assert await peer.ended()


async def test_a_slow_body_is_not_a_slow_head() -> None:
    async with serving(replace(LIMITS, header_seconds=0.1)) as service:
        peer = await service.connect()
        await peer.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        other = await service.connect()
        assert await other.status() == 408  # its clock started later than that of the first head
        await peer.send(b"{}")
        assert await peer.status() == 200


async def test_one_connection_too_many() -> None:
    async with serving() as service:
        peers = [await service.connect() for _ in range(4)]
        for peer in peers:
            await peer.send(REQUEST + b"\r\n")
            assert await peer.status() == 200
        fifth = await service.connect()
        assert await fifth.status() == 503
        assert await fifth.ended()
        await peers[0].send(REQUEST + b"Connection: close\r\n\r\n")
        assert await peers[0].status() == 200
        assert await peers[0].ended()
        assert await service.answer(REQUEST + b"\r\n") == 200


async def test_one_connection_too_many_of_one_client() -> None:
    async with serving(replace(LIMITS, connections_per_client=1)) as service:
        first = await service.connect()
        await first.send(REQUEST + b"\r\n")
        assert await first.status() == 200
        assert await (await service.connect()).status() == 429


async def test_many_requests_on_one_connection() -> None:
    async with serving() as service:
        peer = await service.connect()
        for _ in range(20):
            await peer.send(REQUEST + b"\r\n")
            assert await peer.status() == 200
        await peer.send((REQUEST + b"\r\n") * 3)
        assert [await peer.status() for _ in range(3)] == [200, 200, 200]


MUCH = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n{much}"


async def test_an_answer_that_nobody_reads_ends_its_connection() -> None:
    async with serving(replace(LIMITS, connections=1, write_seconds=0.1)) as service:
        peer = await service.connect()
        await peer.send(MUCH)
        while service.open_connections:
            await asyncio.sleep(0.01)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await peer.reader.readexactly(2**23)


async def test_an_answer_that_is_read_slowly_is_sent_to_its_end() -> None:
    async with serving(replace(LIMITS, write_seconds=0.5)) as service:
        peer = await service.connect()
        await peer.send(MUCH)
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        for _ in range(16):
            await asyncio.sleep(0.05)
            assert len(await peer.reader.readexactly(2**19)) == 2**19
