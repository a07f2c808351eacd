"""Clients that are there and do not read."""

from __future__ import annotations

import asyncio
import socket

import pytest
from starlette.types import Message, Receive, Scope, Send

from server.connection import Attendance, ClientDisconnected, SlowReader, WriteTimeout
from server.startup import bind

SCOPE: Scope = {"type": "http"}


async def never(*_: object) -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def test_a_client_that_reads_nothing_is_dropped() -> None:
    cleaned = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.body", "body": b"x"})
        finally:
            cleaned.append(True)

    with pytest.raises(SlowReader, match=r"nothing was read for 0.01 s"):
        asyncio.run(WriteTimeout(app, 0.01)(SCOPE, never, never))  # type: ignore[arg-type]
    assert cleaned


def test_a_keepalive_that_nobody_reads_ends_the_block_too() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def speak() -> None:
            await send({"type": "http.response.body", "body": b": keepalive"})

        async with Attendance(receive, keepalive=0.01, on_silence=speak):
            await asyncio.Event().wait()

    with pytest.raises(ClientDisconnected):
        asyncio.run(WriteTimeout(app, 0.01)(SCOPE, never, never))  # type: ignore[arg-type]


def test_accepted_sockets_notice_peers_that_vanish() -> None:
    listener = bind("127.0.0.1", 0)
    listener.setblocking(True)
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
