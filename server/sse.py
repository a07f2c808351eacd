"""Server-sent events: a stream of the engine, encoded by one API, sent to one client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.request import Event, TokenOutput
from engine.stream import Sink
from server.connection import Attendance
from server.errors import error_body
from server.middleware import RequestLog

KEEPALIVE = b": keepalive\n\n"
DONE = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder()


def event(data: bytes, name: str | None = None) -> bytes:
    """One event; `data` is JSON without line breaks."""
    if name is None:
        return b"data: %b\n\n" % data
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


HOLE = "\0"
"""Stands for a text in what is encoded for a `Frame`."""


class Frame:
    """What stands around a text: most chunks of a stream differ in nothing else."""

    __slots__ = ("_after", "_before")

    def __init__(self, chunk: bytes) -> None:
        """`chunk`: with HOLE for the text, and nothing like it after."""
        self._before, hole, self._after = chunk.rpartition(_encoder.encode(HOLE))
        assert hole

    def fill(self, text: str) -> bytes:
        """The chunk with `text`."""
        return b"".join((self._before, _encoder.encode(text), self._after))


class EventEncoder(Protocol):
    """One API's words for what the engine says; pure."""

    def opening(self) -> bytes:
        """Sent at once, before any event; may be empty."""

    def feed(self, event: Event) -> bytes:
        """What one event adds; empty where there is nothing to say yet."""


class EventSource(Protocol):
    """The engine's events of one request, in order."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    def divert(self, sink: Sink) -> None:
        """Outputs that somebody waits for may go to `sink` instead, in their order."""

    def cancel(self) -> None:
        """Nobody listens any more."""


class DirectBody(Protocol):
    """Writes to a response's connection at once, where the server offers that (see DIRECT)."""

    @property
    def ready(self) -> bool:
        """A body is under way, and the client reads it: nobody has to wait before writing."""

    def write(self, data: bytes) -> None:
        """A piece of the body; only when ready."""


DIRECT = "ingle.direct"
"""The ASGI extension whose `body` is a DirectBody."""


def openai_error(error: Exception) -> bytes:
    """An error as OpenAI's clients read it in a stream."""
    return event(_encoder.encode(error_body(error)))


class Framing(Struct, frozen=True):
    """How one API's stream looks where the engine has nothing to do with it."""

    media_type: str = "text/event-stream"
    keepalive: bytes = KEEPALIVE
    """Breaks the silence; empty where the API has nothing that clients pass over."""
    pulse: bytes | None = None
    """The same once the answer has begun, where clients count only events as life."""
    error: Callable[[Exception], bytes] = openai_error
    """Ends a stream whose request was refused after the response had begun."""


SSE = Framing()


class Opened(Struct):
    """A request in the engine's hands."""

    stream: EventSource
    encoder: EventEncoder
    close: Callable[[], None] = lambda: None
    """Called once nothing more is wanted of the stream."""
    ignored: Sequence[str] = ()
    """Fields of the request that mean nothing here."""

    def end(self) -> None:
        """Cancels what is left of it."""
        self.stream.cancel()
        self.close()


class EventStream(Response):
    """Streams one request's events; the request is cancelled when the client hangs up.

    Given a task that still opens the request, it begins at once, with a keepalive.
    """

    def __init__(
        self,
        source: Opened | asyncio.Task[Opened],
        keepalive: float,
        framing: Framing = SSE,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.media_type = framing.media_type
        self._source = source
        self._keepalive = keepalive
        self._framing = framing
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ClientDisconnected."""
        writer = Writer(send, self._framing.keepalive)
        try:
            attendance = Attendance(
                receive, keepalive=self._keepalive, on_silence=writer.keep_alive
            )
            async with attendance:
                start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                await send(start)
                opened = await self._open(writer, scope["request_log"])
                if opened is not None:
                    await self._relay(opened, writer, attendance, scope)
            await writer.end()
        finally:
            self._end()

    async def _open(self, writer: Writer, record: RequestLog) -> Opened | None:
        """None where the request was refused, and the client has been told."""
        if isinstance(self._source, Opened):
            return self._source
        await writer.keep_alive()
        try:
            return await self._source
        except Exception as error:  # noqa: BLE001, every error has an answer
            record.failed(error)
            await writer.write(self._framing.error(error))
            return None

    async def _relay(
        self, opened: Opened, writer: Writer, attendance: Attendance, scope: Scope
    ) -> None:
        encoder, record = opened.encoder, scope["request_log"]
        await writer.write(encoder.opening())
        writer.keepalive = self._framing.pulse or self._framing.keepalive
        if direct := scope.get("extensions", {}).get(DIRECT):
            opened.stream.divert(_direct_sink(encoder, direct["body"], attendance))
        async for engine_event in opened.stream:
            if data := encoder.feed(engine_event):
                await writer.write(data)
                attendance.spoke()
            if not isinstance(engine_event, TokenOutput):
                record.outcome(engine_event)

    def _end(self) -> None:
        """Also of a request that was opened while the client hung up."""
        source = self._source
        if isinstance(source, Opened):
            source.end()
        elif not source.done():
            source.cancel()
        elif not source.cancelled() and source.exception() is None:
            source.result().end()


def _direct_sink(encoder: EventEncoder, body: DirectBody, attendance: Attendance) -> Sink:
    """From the engine's event to the socket in one go; declines where the client must be waited
    for."""

    def take(output: TokenOutput) -> bool:
        if not body.ready:
            return False
        if data := encoder.feed(output):
            body.write(data)
            attendance.spoke()
        return True

    return take


class Writer:
    """The body of one response."""

    def __init__(self, send: Send, keepalive: bytes) -> None:
        self._send = send
        self.keepalive = keepalive

    async def write(self, data: bytes) -> None:
        """Nothing is sent for no data."""
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def keep_alive(self) -> None:
        """Shows the client, and what lies between, that somebody is there."""
        await self.write(self.keepalive)

    async def end(self) -> None:
        """The body is complete."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
