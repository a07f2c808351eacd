"""What the engine says → a message in Anthropic's shape, whole or as named events; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from engine.request import (
    Event,
    FinishReason,
    RequestDone,
    RequestFailed,
    TokenOutput,
)
from server import sse
from server.api.chat_call import ChatCall
from server.api.messages_input import signature
from server.chat.deltas import CallDelta, ContentDelta, Delta, ReasoningDelta
from server.dialects import anthropic_error
from server.generation import GeneratedChoice
from server.protocol.anthropic_answer import (
    Content,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    Ending,
    InputJsonDelta,
    Message,
    MessageDelta,
    MessageStart,
    MessageStop,
    OutputTokensDetails,
    Ping,
    SignatureDelta,
    StreamEvent,
    TextContent,
    TextDelta,
    ThinkingContent,
    ThinkingDelta,
    ToolUseContent,
    Usage,
)

INVALID_INPUT = "INVALID_JSON"
"""Holds the input of a call that was cut short, as Anthropic advises for such text."""

_encoder = msgspec.json.Encoder()


class Answering(Struct, frozen=True):
    """What an answer needs to know of its request."""

    call: ChatCall
    max_tokens: int
    """As asked for; the engine was asked for no more than the context holds."""
    show_thoughts: bool
    request_id: str

    @property
    def id(self) -> str:
        """The message's."""
        return "msg_" + self.call.request.id.removeprefix("chatcmpl-")


def encode_event(event: StreamEvent) -> bytes:
    """One event with its name."""
    name = event.__struct_config__.tag
    assert isinstance(name, str)
    return sse.event(_encoder.encode(event), name)


PING = encode_event(Ping())


def framing(request_id: str) -> sse.Framing:
    """Pings, and errors as an event of their own."""

    def error(error: Exception) -> bytes:
        return sse.event(_encoder.encode(anthropic_error(error, request_id)), "error")

    return sse.Framing(keepalive=PING, error=error)


def message(answering: Answering, choice: GeneratedChoice, done: RequestDone) -> Message:
    """The whole answer."""
    ending = _ending(answering, choice.finish_reason, choice.stop_reason, choice.called)
    return Message(
        id=answering.id,
        model=answering.call.model,
        content=_content(choice, answering.show_thoughts),
        stop_reason=ending.stop_reason,
        stop_sequence=ending.stop_sequence,
        usage=_usage(answering, done, choice.reasoning_tokens),
    )


class MessageEncoder:
    """The same answer as named events."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._reader = answering.call.new_reader(0)
        self._blocks = _Blocks(answering.show_thoughts)
        self._ending = Ending("end_turn")

    def opening(self) -> bytes:
        """The empty message, and a first ping."""
        prompt = len(self._answering.call.request.prompt)
        start = Message(
            id=self._answering.id,
            model=self._answering.call.model,
            content=[],
            usage=Usage(input_tokens=prompt, output_tokens=0, service_tier=_tier(self._answering)),
        )
        return encode_event(MessageStart(start)) + PING

    def feed(self, event: Event) -> bytes:
        """Events of one step; the counts that hold come with the last one."""
        match event:
            case TokenOutput():
                return self._output(event)
            case RequestDone():
                counts = _usage(self._answering, event, self._reader.reasoning_tokens)
                return encode_event(MessageDelta(self._ending, counts)) + encode_event(
                    MessageStop()
                )
            case RequestFailed():
                body = anthropic_error(event.error, self._answering.request_id)
                return sse.event(_encoder.encode(body), "error")

    def _output(self, output: TokenOutput) -> bytes:
        piece = self._reader.piece(output)
        if isinstance(piece, str):
            if (frame := self._blocks.text) is not None:
                return frame.fill(piece)
            piece = [ContentDelta(piece)]
        return b"".join(map(encode_event, self._events(output, piece)))

    def _events(self, output: TokenOutput, deltas: Sequence[Delta]) -> Iterator[StreamEvent]:
        for delta in deltas:
            yield from self._blocks.read(delta)
        if output.finish_reason is not None:
            yield from self._blocks.close()
            self._ending = _ending(
                self._answering, output.finish_reason, output.stop_reason, self._reader.called
            )


class _Blocks:
    """Deltas → blocks: a new one wherever the kind changes or another call begins."""

    def __init__(self, show_thoughts: bool) -> None:
        self._show_thoughts = show_thoughts
        self._index = -1
        self._kind: type[Content] | None = None
        self._thought: list[str] = []
        self.text: sse.Frame | None = None
        """A piece of the open block, if that is one of text."""

    def read(self, delta: Delta) -> Iterator[StreamEvent]:
        """One delta's events."""
        match delta:
            case ContentDelta():
                yield from self._enter(TextContent(""))
                yield ContentBlockDelta(self._index, TextDelta(delta.text))
            case ReasoningDelta():
                yield from self._enter(ThinkingContent(""))
                self._thought.append(delta.text)
                if self._show_thoughts:
                    yield ContentBlockDelta(self._index, ThinkingDelta(delta.text))
            case CallDelta():
                yield from self._call(delta)

    def close(self) -> Iterator[StreamEvent]:
        """The end of the block that is open, if one is."""
        if self._kind is ThinkingContent:
            sign = signature("".join(self._thought), self._show_thoughts)
            yield ContentBlockDelta(self._index, SignatureDelta(sign))
            self._thought.clear()
        if self._kind is not None:
            yield ContentBlockStop(self._index)
        self._kind = self.text = None

    def _enter(self, content: Content) -> Iterator[StreamEvent]:
        if self._kind is type(content):
            return
        yield from self._open(content)

    def _open(self, content: Content) -> Iterator[StreamEvent]:
        yield from self.close()
        self._index += 1
        self._kind = type(content)
        if self._kind is TextContent:
            hole = ContentBlockDelta(self._index, TextDelta(sse.HOLE))
            self.text = sse.Frame(encode_event(hole))
        yield ContentBlockStart(self._index, content)

    def _call(self, delta: CallDelta) -> Iterator[StreamEvent]:
        if delta.id:
            yield from self._open(ToolUseContent(delta.id, delta.name, {}))
        if delta.id or delta.arguments:
            yield ContentBlockDelta(self._index, InputJsonDelta(delta.arguments))


def _content(choice: GeneratedChoice, show_thoughts: bool) -> list[Content]:
    content: list[Content] = []
    if choice.reasoning:
        sign = signature(choice.reasoning, show_thoughts)
        content.append(ThinkingContent(choice.reasoning if show_thoughts else "", sign))
    if choice.content:
        content.append(TextContent(choice.content))
    for call in choice.calls:
        name, arguments = call.function.name, call.function.arguments
        content.append(ToolUseContent(call.id or "", name, _input(str(arguments))))
    return content


def _input(arguments: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(arguments or "{}")
    except msgspec.DecodeError:
        value = None
    return value if isinstance(value, dict) else {INVALID_INPUT: arguments}


def _ending(
    answering: Answering, reason: FinishReason, stop: str | int | None, called: bool
) -> Ending:
    if reason is FinishReason.LENGTH:
        cut = answering.call.request.max_tokens < answering.max_tokens
        return Ending("model_context_window_exceeded" if cut else "max_tokens")
    if called:
        return Ending("tool_use")
    return Ending("stop_sequence", stop) if isinstance(stop, str) else Ending("end_turn")


def _usage(answering: Answering, done: RequestDone, thought: int) -> Usage:
    """Anthropic's `input_tokens` leave out those that were read from the cache."""
    counts = done.usage
    return Usage(
        input_tokens=counts.prompt_tokens - counts.cached_tokens,
        cache_read_input_tokens=counts.cached_tokens,
        output_tokens=counts.completion_tokens,
        output_tokens_details=OutputTokensDetails(thought),
        service_tier=_tier(answering),
    )


def _tier(answering: Answering) -> str:
    return "priority" if answering.call.service_tier == "priority" else "standard"
