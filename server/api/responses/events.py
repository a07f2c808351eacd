"""A response as server-sent events, kept in the store before its last one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import msgspec

from engine.request import Event, RequestDone, RequestFailed, TokenOutput
from engine.stream import Sink
from server import sse
from server.api.responses.answer import Answer
from server.api.responses.call import ResponseCall
from server.api.responses.history import History
from server.api.responses.open_items import OpenMessage
from server.errors import error_body
from server.protocol.response_events import StreamEvent, TextDelta, event_name

_NUMBER = b'"sequence_number":'

_encoder = msgspec.json.Encoder()


class ResponseEncoder:
    """Each event by its name; after `completed`, `incomplete` or `failed` nothing follows."""

    def __init__(self, call: ResponseCall, history: History) -> None:
        self._call = call
        self._history = history
        self._answer = Answer(call)
        self._last = b""
        self._frame: _TextFrame | None = None

    def opening(self) -> bytes:
        """created and in_progress."""
        return _encoded(self._answer.begin())

    def feed(self, event: Event) -> bytes:
        """The events of one step."""
        match event:
            case TokenOutput():
                return self._output(event)
            case RequestFailed():
                return _encoded(self._answer.fail(event.error))
            case RequestDone():
                return self._last

    def _output(self, output: TokenOutput) -> bytes:
        said = self._answer.take(output)
        if not isinstance(said, OpenMessage):
            return _encoded(said)
        if self._frame is None or self._frame.message is not said:
            self._frame = _TextFrame(said)
        return self._frame.fill(self._answer.number(), output.text)

    async def settle(self, done: RequestDone) -> None:
        """Before `done` is fed: who reads the last event finds the response stored."""
        event = self._answer.end(done)
        event.response = await self._history.keep(self._call, event.response)
        self._last = _encoded([event])


class _TextFrame:
    """What stands around a message's next text and its number in the stream."""

    def __init__(self, message: OpenMessage) -> None:
        self.message = message
        delta = TextDelta(
            sequence_number=0, item_id=message.id, output_index=message.index, delta=sse.HOLE
        )
        before, _, rest = _encoded([delta]).partition(_NUMBER + b"0")
        self._before = before + _NUMBER
        self._between, _, self._after = rest.rpartition(_encoder.encode(sse.HOLE))

    def fill(self, number: int, text: str) -> bytes:
        """The event."""
        encode = _encoder.encode
        return b"".join((self._before, encode(number), self._between, encode(text), self._after))


class SettledStream:
    """The engine's events, the last one once the encoder has settled."""

    def __init__(self, stream: sse.EventSource, encoder: ResponseEncoder) -> None:
        self._stream = stream
        self._encoder = encoder

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in self._stream:
            if isinstance(event, RequestDone):
                await self._encoder.settle(event)
            yield event

    def divert(self, sink: Sink) -> None:
        """As the engine's own."""
        self._stream.divert(sink)

    def cancel(self) -> None:
        """As the engine's own."""
        self._stream.cancel()


def stream_error(error: Exception) -> bytes:
    """A request that was refused while its model loaded: there is no response to fail."""
    body = error_body(error)
    info = body.error
    fields = {"code": info.code, "message": info.message, "param": info.param, "error": info}
    return sse.event(_encoder.encode({"type": "error", "sequence_number": 0, **fields}), "error")


PULSE = sse.event(b'{"type":"keepalive"}', "keepalive")
"""An event that clients pass over. Codex hangs up where none came for five minutes, and does not
count comments; before `response.created` OpenAI's own helper takes no other event."""
FRAMING = sse.Framing(pulse=PULSE, error=stream_error)


def _encoded(events: Iterable[StreamEvent]) -> bytes:
    return b"".join(sse.event(_encoder.encode(event), event_name(event)) for event in events)
