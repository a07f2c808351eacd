"""Connections that are bounded: how many, how long they may idle, how big and slow a head may be.

uvicorn's httptools protocol bounds none of this but idle keep-alive.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from http import HTTPStatus

import msgspec
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from server.protocol.errors import ErrorBody, ErrorInfo
from server.sse import DIRECT


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds of all connections and of each."""

    connections: int
    connections_per_client: int
    """From one address."""
    header_bytes: int = 64 * 1024
    """Request line and headers."""
    headers: int = 100
    header_seconds: float = 10.0
    """From a connection's opening, or the first byte of its next request, to the head's end."""
    write_seconds: float = 120.0
    """In which a peer takes something of what is held for it."""


class HeadRefused(Exception):
    """The head of a request is too much; ends the parser's work."""


class Connections:
    """Counts those that are open, by address; lives on the event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._by_client: Counter[str] = Counter()
        self._total = 0

    def open(self, client: str) -> HTTPStatus | None:
        """Counts one more, or says why not."""
        if self._total >= self.limits.connections:
            return HTTPStatus.SERVICE_UNAVAILABLE
        if self._by_client[client] >= self.limits.connections_per_client:
            return HTTPStatus.TOO_MANY_REQUESTS
        self._total += 1
        self._by_client[client] += 1
        return None

    def close(self, client: str) -> None:
        """One less."""
        self._total -= 1
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]


class CycleBody:
    """A `DirectBody` over uvicorn's response: what its `send` does with a piece of a chunked body,
    without the coroutines on the way there."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    @property
    def ready(self) -> bool:
        """See DirectBody."""
        cycle = self._cycle
        return bool(
            cycle.chunked_encoding
            and cycle.response_started
            and not (cycle.response_complete or cycle.disconnected or cycle.flow.write_paused)
        )

    def write(self, data: bytes) -> None:
        """See DirectBody."""
        self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))


MESSAGES = {
    HTTPStatus.SERVICE_UNAVAILABLE: "there are too many connections",
    HTTPStatus.TOO_MANY_REQUESTS: "there are too many connections from this address",
    HTTPStatus.REQUEST_TIMEOUT: "the head of the request took too long",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "the head of the request is too large",
}
RETRIED = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `guarded` makes the class that uvicorn takes."""

    all: Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuses one too many, and starts the clock of the first head."""
        super().connection_made(transport)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = False
        self._in_body = False
        self._peer = self.client[0] if self.client else ""
        self._refusal = self.all.open(self._peer)
        self._counted = self._refusal is None
        if self._refusal is not None:
            self._refuse(self._refusal)
        else:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """The count goes down."""
        self._stop_clock()
        self._stop_watching()
        if self._counted:
            self.all.close(self._peer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a head that never ends are counted; so is the time from the first of them."""
        if self._refusal is not None:
            return
        all_head = self._in_head or self._is_idle()  # and no rest of a body
        self._in_body = False
        super().data_received(data)
        # Between the bytes of a chunked body there may be extensions, and after them trailers.
        if (self._in_head and all_head) or not (self._in_head or self._in_body or all_head):
            self._head_bytes += len(data)
            if self._head_bytes > self.all.limits.header_bytes:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif not self._in_head and self._is_idle():
            # Blank lines end uvicorn's patience with an idle connection, and begin no request.
            self._start_clock()

    def pause_writing(self) -> None:
        """More is held for the peer than is good."""
        super().pause_writing()
        self._watch(None)

    def resume_writing(self) -> None:
        """The peer has read."""
        super().resume_writing()
        self._stop_watching()

    def _watch(self, before: int | None) -> None:
        """Ends a connection whose peer reads nothing: closing it would wait for that peer."""
        self._stop_watching()
        held = self.transport.get_write_buffer_size()
        if before is not None and held >= before:
            self.transport.abort()
            return
        seconds = self.all.limits.write_seconds
        self._write_timer = self.loop.call_later(seconds, self._watch, held)

    def _stop_watching(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._start_clock()

    def on_headers_complete(self) -> None:
        """Nothing of a request runs before its head is known to be within bounds."""
        self._in_head = False
        self._stop_clock()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        limits = self.all.limits
        if size > limits.header_bytes or len(self.headers) > limits.headers:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise HeadRefused
        super().on_headers_complete()
        if self.cycle is not None:
            self.scope["extensions"] = {DIRECT: {"body": CycleBody(self.cycle)}}

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers would only ever be kept, never read."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A part of a body came: what stands around the next one is counted anew."""
        self._in_body, self._head_bytes = True, 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Also reached where a head was refused in the middle of parsing."""
        if self._refusal is not None:
            self._refuse(self._refusal)
        else:
            super().send_400_response(msg)

    def _refuse(self, status: HTTPStatus) -> None:
        """A short answer where none is under way, and the end of the connection."""
        self._refusal = status
        self._stop_clock()
        if self._is_idle() and not self.transport.is_closing():
            self.transport.write(_answer(status))
        self.transport.close()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_clock(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(
                self.all.limits.header_seconds, self._refuse, HTTPStatus.REQUEST_TIMEOUT
            )

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def guarded(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol of one server."""
    return type("Guarded", (GuardedProtocol,), {"all": Connections(limits)})


def _answer(status: HTTPStatus) -> bytes:
    code = status.phrase.lower().replace(" ", "_")
    info = ErrorInfo(MESSAGES[status], "invalid_request_error", None, code)
    body = msgspec.json.encode(ErrorBody(info))
    retry = "retry-after: 1\r\n" if status in RETRIED else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n"
        f"{retry}"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body
