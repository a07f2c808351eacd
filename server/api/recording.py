"""Completions with `store: true` on their way into the store, whole or streamed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence

import msgspec
from msgspec import UNSET, Struct

from engine.request import Event, RequestDone, TokenOutput
from engine.stream import Sink
from server.api.chat_answer import completion
from server.api.chat_call import ChatCall
from server.dispatch import Trail
from server.errors import StoreUnavailable
from server.generation import GeneratedChoice
from server.protocol.chat_completions import ChatCompletion, ChatCompletionRequest
from server.protocol.messages import ChatMessage, TextPart
from server.protocol.stored import StoredCompletion, StoredMessage
from server.sse import EventEncoder, EventSource
from server.store import Document, Store

KIND = "chat.completion"

log = logging.getLogger("ingle.store")
_encoder = msgspec.json.Encoder()


class Recording(Struct, frozen=True):
    """One completion that is to be stored."""

    store: Store
    wire: ChatCompletionRequest
    call: ChatCall
    request_id: str

    async def keep(self, answer: ChatCompletion) -> None:
        """Returns when `answer` is on the disk. A failure is logged and noted in `answer`: the
        client gets what was computed for it."""
        try:
            await self.store.put(self._document(answer))
        except StoreUnavailable as error:
            log.error("%s is not stored: %s", answer.id, error)
            answer.store_error = str(error)

    def _document(self, answer: ChatCompletion) -> Document:
        messages = [_message(answer.id, *item) for item in enumerate(self.wire.messages)]
        return Document(
            kind=KIND,
            id=answer.id,
            created=answer.created,
            model=answer.model,
            body=_encoder.encode(self._stored(answer)),
            input=_encoder.encode(messages),
            metadata=self.call.metadata or {},
        )

    def _stored(self, answer: ChatCompletion) -> StoredCompletion:
        wire, sampling = self.wire, self.call.request.sampling
        fields = msgspec.structs.asdict(answer) | {"metadata": UNSET}
        return StoredCompletion(
            **fields,
            request_id=self.request_id,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            seed=wire.seed,
            tools=wire.tools,
            tool_choice=wire.tool_choice,
            response_format=wire.response_format,
            input_user=wire.user,
        )


class RecordedStream:
    """The engine's events, listened to; the last one is held back until the answer is stored."""

    def __init__(self, source: EventSource, recording: Recording) -> None:
        call = recording.call
        self._source = source
        self._recording = recording
        self._choices = [GeneratedChoice(call.new_reader(i)) for i in range(call.request.n)]
        self.trail: Trail | None = None
        """To be set before the last event: the stored answer tells of it."""
        self.failure: str | None = None
        """Why the answer is not stored."""

    def divert(self, sink: Sink) -> None:
        """As the engine's own; what the sink takes is recorded too."""

        def take(output: TokenOutput) -> bool:
            taken = sink(output)
            if taken:
                self._choices[output.index].add(output)
            return taken

        self._source.divert(take)

    def cancel(self) -> None:
        """What is not complete is not stored."""
        self._source.cancel()

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in self._source:
            if isinstance(event, TokenOutput):
                self._choices[event.index].add(event)
            elif isinstance(event, RequestDone):
                assert self.trail is not None
                answer = completion(self._recording.call, self._choices, event, self.trail)
                await self._recording.keep(answer)
                self.failure = answer.store_error or None
            yield event


class RecordingEncoder:
    """Says in a comment, which clients pass over, that the answer could not be stored: its chunks
    have no place for it."""

    def __init__(self, encoder: EventEncoder, stream: RecordedStream, trail: Trail) -> None:
        self._encoder = encoder
        self._stream = stream
        stream.trail = trail

    def opening(self) -> bytes:
        """See EventEncoder."""
        return self._encoder.opening()

    def feed(self, event: Event) -> bytes:
        """See EventEncoder."""
        data = self._encoder.feed(event)
        if isinstance(event, RequestDone) and self._stream.failure is not None:
            text = " ".join(self._stream.failure.split())
            return f": store_error: {text}\n\n".encode() + data
        return data


def message_id(completion: str, index: int) -> str:
    """OpenAI's way to name the messages of a completion."""
    return f"{completion}-{index}"


def _message(completion: str, index: int, message: ChatMessage) -> StoredMessage:
    parts = message.content if isinstance(message.content, list) else None
    content = message.content if isinstance(message.content, str) else None
    return StoredMessage(
        id=message_id(completion, index),
        role=message.role,
        content=content if parts is None else _text(parts),
        content_parts=parts,
        name=message.name,
        tool_calls=message.tool_calls,
        tool_call_id=message.tool_call_id,
        function_call=message.function_call,
        refusal=message.refusal,
    )


def _text(parts: Sequence[object]) -> str:
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))
