"""Clients that are there and do not read."""

from __future__ import annotations

import asyncio
import socket

import pytest
from starlette.types import Message, Receive, Scope, Send

from server.connection import Attendance, ClientDisconnected, SlowReader, WriteTimeout
from server.startup import StartError, bind

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


def test_a_name_is_listened_to_on_the_first_address_that_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """IPv4 first; the other family where that one cannot be had."""
    here = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 0))
    nowhere = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("192.0.2.1", 0))
    other = (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("2001:db8::1", 0, 0, 0))
    for found in ([other, here], [nowhere, other, here]):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, found=found, **__: found)
        with bind("name", 0) as listener:
            assert listener.getsockname()[0] == "127.0.0.1"
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [nowhere])
    with pytest.raises(StartError, match="cannot listen on name:0: Cannot assign"):
        bind("name", 0)


def test_accepted_sockets_notice_peers_that_vanish() -> None:
    listener = bind("127.0.0.1", 0)
    listener.setblocking(True)
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            if hasattr(socket, "TCP_KEEPIDLE"):
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
