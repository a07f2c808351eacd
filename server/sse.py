"""Server-sent events: a stream of the engine, encoded by one API, sent to one client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.request import Event, TokenOutput
from server.connection import Attendance

if TYPE_CHECKING:
    from engine.stream import Stream

KEEPALIVE = b": keepalive\n\n"
DONE = b"data: [DONE]\n\n"


def event(data: bytes, name: str | None = None) -> bytes:
    """One event; `data` is JSON without line breaks."""
    if name is None:
        return b"data: %b\n\n" % data
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


class EventEncoder(Protocol):
    """One API's words for what the engine says; pure."""

    def opening(self) -> bytes:
        """Sent at once, before any event; may be empty."""

    def feed(self, event: Event) -> bytes:
        """What one event adds; empty where there is nothing to say yet."""


class EventStream(Response):
    """Streams one request's events; the request is cancelled when the client hangs up."""

    media_type = "text/event-stream"

    def __init__(
        self, stream: Stream, encoder: EventEncoder, keepalive: float, ping: bytes = KEEPALIVE
    ) -> None:
        """`ping` is sent after every `keepalive` seconds of silence."""
        self.status_code = 200
        self.background = None
        self._stream = stream
        self._encoder = encoder
        self._keepalive = keepalive
        self._ping = ping
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises ClientDisconnected."""

        async def write(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async def keep_alive() -> None:
            await write(self._ping)

        try:
            attendance = Attendance(receive, keepalive=self._keepalive, on_silence=keep_alive)
            async with attendance:
                start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                await send(start)
                await write(self._encoder.opening())
                async for engine_event in self._stream:
                    if data := self._encoder.feed(engine_event):
                        await write(data)
                        attendance.spoke()
                    if not isinstance(engine_event, TokenOutput):
                        scope["request_log"].outcome(engine_event)
            await write(b"", more=False)
        finally:
            self._stream.cancel()
