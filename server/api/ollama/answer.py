"""What the engine says → Ollama's lines, one after another or all in one; pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from engine.request import Event, RequestDone, RequestFailed, TokenOutput
from engine.request import TokenLogprob as EngineLogprob
from server.answers import ChoiceReader
from server.api.chat_answer import token_logprobs
from server.api.ollama.body import nanoseconds, timestamp
from server.chat.deltas import CallDelta, ContentDelta, Delta, ReasoningDelta
from server.dialects import ollama_error
from server.generation import GeneratedChoice
from server.protocol.ollama import (
    AnswerMessage,
    ChatLine,
    FunctionCall,
    GenerateLine,
    Line,
    Logprob,
    ToolCall,
    TopLogprob,
)
from server.sse import Framing

MEDIA_TYPE = "application/x-ndjson"

_CHAT = (b'Z","done":false,"message":{"role":"assistant","content":', b"}}\n")
_GENERATE = (b'Z","done":false,"response":', b"}\n")
"""What stands around a piece of text in a line, after the microseconds."""

_encoder = msgspec.json.Encoder()


class Answering(Struct, frozen=True):
    """What an answer needs to know of its request."""

    words: Words
    new_reader: Callable[[int], ChoiceReader]
    load: float
    """Seconds that the model took to be there."""


class Words(Struct, frozen=True):
    """How one of the two routes puts what a model says."""

    model: str
    """As the client calls it."""
    chat: bool
    """/api/chat, not /api/generate."""

    def line(
        self, content: str = "", thinking: str = "", calls: Sequence[ToolCall] = ()
    ) -> ChatLine | GenerateLine:
        """A piece of the answer, or all of it."""
        created = timestamp()
        if not self.chat:
            thought = thinking or UNSET
            return GenerateLine(
                model=self.model, created_at=created, response=content, thinking=thought
            )
        message = AnswerMessage(
            content=content,
            thinking=thinking or UNSET,
            tool_calls=list(calls) if calls else UNSET,
        )
        return ChatLine(model=self.model, created_at=created, message=message)

    def loaded(self, reason: str) -> ChatLine | GenerateLine:
        """The answer to a request that only loads the model, or unloads it."""
        line = self.line()
        line.done, line.done_reason = True, reason
        return line


def framing(words: Words) -> Framing:
    """An empty piece keeps the connection alive: NDJSON has no comments."""
    return Framing(
        media_type=MEDIA_TYPE,
        keepalive=encoded(words.line()),
        error=lambda error: encoded(ollama_error(error, "")),
    )


def encoded(line: Struct) -> bytes:
    """With its end."""
    return _encoder.encode(line) + b"\n"


def whole(answering: Answering, choice: GeneratedChoice, done: RequestDone) -> Line:
    """The answer as one line."""
    calls, texts = [], [choice.content]
    for number, call in enumerate(choice.calls):
        made = _tool_call(number, call.id or "", call.function.name, str(call.function.arguments))
        calls.append(made) if isinstance(made, ToolCall) else texts.append(made)
    line = answering.words.line("".join(texts), choice.reasoning, calls)
    line.logprobs = _logprobs(choice.logprobs)
    return _finish(line, answering, choice.finish_reason, done)


class _TimedFrame:
    """What stands around a text and a moment: `Words.line`, encoded, with each second spelled once.

    To spell every moment anew took longer than all else that a token costs here.
    """

    def __init__(self, words: Words) -> None:
        self._head = b'{"model":%b,"created_at":"' % _encoder.encode(words.model)
        self._middle, self._tail = _CHAT if words.chat else _GENERATE
        self._second = self._before = b""

    def fill(self, text: str) -> bytes:
        """The line with `text`, made now."""
        now = _encoder.encode(time.time_ns())  # Digits, at half the price of a format.
        if now[:-9] != self._second:
            self._spell(now[:-9])
        return b"".join((self._before, now[-9:-3], self._middle, _encoder.encode(text), self._tail))

    def _spell(self, second: bytes) -> None:
        self._second = second
        spelled = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(int(second)))
        self._before = self._head + spelled.encode()


class LineEncoder:
    """The same answer, a line for each piece; what is constant is encoded once."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._words = answering.words
        self._frame = _TimedFrame(answering.words)
        self._reader = answering.new_reader(0)
        self._calls = _Calls()
        self._reason = "stop"

    def opening(self) -> bytes:
        """Nothing: the first line has the first words."""
        return b""

    def feed(self, event: Event) -> bytes:
        """The lines of one event; the last one brings the counts."""
        match event:
            case TokenOutput():
                return self._output(event)
            case RequestDone():
                line = self._words.line()
                return encoded(_finish(line, self._answering, self._reason, event))
            case RequestFailed():
                return encoded(ollama_error(event.error, ""))

    def _output(self, output: TokenOutput) -> bytes:
        piece = self._reader.piece(output)
        if isinstance(piece, str):
            return self._frame.fill(piece)
        return b"".join(map(encoded, self._all_lines(output, piece)))

    def _all_lines(
        self, output: TokenOutput, deltas: Sequence[Delta]
    ) -> list[ChatLine | GenerateLine]:
        lines = [line for delta in deltas for line in self._lines(delta)]
        if output.finish_reason is not None:
            self._reason = output.finish_reason
            lines += self._called(self._calls.take())
        if output.logprobs:
            lines = lines or [self._words.line()]
            lines[-1].logprobs = _logprobs(output.logprobs)
        return lines

    def _lines(self, delta: Delta) -> list[ChatLine | GenerateLine]:
        match delta:
            case ContentDelta():
                return [self._words.line(delta.text)]
            case ReasoningDelta():
                return [self._words.line(thinking=delta.text)]
            case CallDelta():
                return self._called(self._calls.add(delta))

    def _called(self, call: ToolCall | str | None) -> list[ChatLine | GenerateLine]:
        if call is None:
            return []
        return [self._words.line(call) if isinstance(call, str) else self._words.line(calls=[call])]


class _Calls:
    """A call is told once its arguments, an object, are complete."""

    def __init__(self) -> None:
        self._call: CallDelta | None = None
        self._arguments: list[str] = []

    def add(self, delta: CallDelta) -> ToolCall | str | None:
        """The call before, where this begins the next one."""
        before = None
        if self._call is None or delta.index != self._call.index:
            before, self._call = self.take(), delta
        self._arguments.append(delta.arguments)
        return before

    def take(self) -> ToolCall | str | None:
        """The call that is under way: it has ended."""
        call, arguments = self._call, "".join(self._arguments)
        self._call, self._arguments = None, []
        return None if call is None else _tool_call(call.index, call.id, call.name, arguments)


def _tool_call(index: int, id: str, name: str, arguments: str) -> ToolCall | str:
    """Text where the arguments were cut short and are no object."""
    try:
        values = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except msgspec.DecodeError:
        return name + arguments
    return ToolCall(id=id, function=FunctionCall(name=name, arguments=values, index=index))


def _finish(line: Line, answering: Answering, reason: str, done: RequestDone) -> Line:
    counts, times = done.usage, done.timings
    line.done, line.done_reason = True, str(reason)
    line.load_duration = nanoseconds(answering.load)
    line.prompt_eval_count = counts.prompt_tokens
    line.prompt_eval_duration = nanoseconds(times.prefill)
    line.eval_count = counts.completion_tokens
    line.eval_duration = nanoseconds(times.decode)
    line.total_duration = nanoseconds(answering.load + times.queued + times.prefill + times.decode)
    return line


def _logprobs(tokens: Sequence[EngineLogprob]) -> Any:
    if not tokens:
        return UNSET
    return [
        Logprob(
            each.token,
            each.logprob,
            each.bytes,
            [TopLogprob(top.token, top.logprob, top.bytes) for top in each.top_logprobs] or UNSET,
        )
        for each in token_logprobs(tokens).content
    ]
