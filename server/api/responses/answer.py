"""What the engine says → output items and stream events; pure. One order for both forms."""

from __future__ import annotations

import time
from collections.abc import Iterator

from msgspec.structs import replace

from engine.request import FinishReason, RequestDone, TokenLogprob, TokenOutput
from server.api import chat_answer
from server.api.responses.call import ResponseCall
from server.api.responses.open_items import (
    OpenCall,
    OpenCustomCall,
    OpenItem,
    OpenMessage,
    OpenReasoning,
)
from server.chat.deltas import CallDelta, ContentDelta, Delta, ReasoningDelta
from server.errors import error_body, fate_of
from server.protocol import response_events as events
from server.protocol.responses import (
    IncompleteDetails,
    InputTokensDetails,
    OutputItem,
    OutputTokensDetails,
    ResponseError,
    ResponseObject,
    ResponseUsage,
)


class Answer:
    """Grows with each event of the engine; `response` is the whole of it so far."""

    def __init__(self, call: ResponseCall) -> None:
        self._call = call
        self._reader = call.chat.new_reader(0)
        self._items: list[OutputItem] = []
        self._open: OpenItem | None = None
        self._finish: FinishReason = FinishReason.STOP
        self._logprobs: list[TokenLogprob] = []
        self._count = 0
        self.response: ResponseObject = call.response

    def begin(self) -> Iterator[events.StreamEvent]:
        """Before the first token."""
        yield events.Created(sequence_number=self.number(), response=self.response)
        yield events.InProgress(sequence_number=self.number(), response=self.response)

    def number(self) -> int:
        """The next sequence number."""
        self._count += 1
        return self._count - 1

    def read(self, output: TokenOutput) -> Iterator[events.StreamEvent]:
        """The events of one step. Exhaust it: it does the work."""
        return self._events(output, self._reader.read(output))

    def take(self, output: TokenOutput) -> OpenMessage | Iterator[events.StreamEvent]:
        """As `read`; where all there is to say is that a message grew by the output's text, that
        message: most of a stream is this."""
        piece, message = self._reader.piece(output), self._open
        if not isinstance(piece, str):
            return self._events(output, piece)
        if self._logprobs or not isinstance(message, OpenMessage):
            return self._events(output, [ContentDelta(piece)])
        message.grow(piece)
        return message

    def _events(self, output: TokenOutput, deltas: list[Delta]) -> Iterator[events.StreamEvent]:
        self._logprobs += output.logprobs
        for delta in deltas:
            yield from self._read(delta)
        if deltas:
            self._logprobs = []
        if output.finish_reason is not None:
            self._finish = output.finish_reason
            yield from self._close(cut=output.finish_reason is FinishReason.LENGTH)
            if not self._items:
                yield from self._begin(OpenMessage(self, len(self._items)))
                yield from self._close(cut=output.finish_reason is FinishReason.LENGTH)

    def _read(self, delta: Delta) -> Iterator[events.StreamEvent]:
        match delta:
            case ContentDelta():
                if not isinstance(self._open, OpenMessage):
                    yield from self._begin(OpenMessage(self, len(self._items)))
            case ReasoningDelta():
                if not isinstance(self._open, OpenReasoning):
                    yield from self._begin(self._new_thought())
            case CallDelta(id=str(id), name=str(name)) if id:
                yield from self._begin(self._new_call(id, name))
        assert self._open is not None
        if isinstance(delta, CallDelta):
            yield from self._open.add(delta.arguments)
        elif isinstance(self._open, OpenMessage):
            logprobs = chat_answer.token_logprobs(self._logprobs).content
            yield from self._open.add(delta.text, logprobs)
            self._logprobs = []
        else:
            yield from self._open.add(delta.text)

    def _new_thought(self) -> OpenReasoning:
        call = self._call
        return OpenReasoning(self, len(self._items), summary=call.summary, sealed=call.encrypted)

    def _new_call(self, id: str, name: str) -> OpenItem:
        kind = OpenCustomCall if name in self._call.chat.customs else OpenCall
        return kind(self, len(self._items), id, name)

    def _begin(self, item: OpenItem) -> Iterator[events.StreamEvent]:
        yield from self._close()
        item.index = len(self._items)
        self._open = item
        yield events.ItemAdded(
            sequence_number=self.number(), output_index=item.index, item=item.item("in_progress")
        )
        yield from item.begin()

    def _close(self, cut: bool = False) -> Iterator[events.StreamEvent]:
        """The open item ends; `cut`: for want of tokens."""
        item = self._open
        if item is None:
            return
        self._open = None
        yield from item.end()
        done = item.item("incomplete" if cut else "completed")
        self._items.append(done)
        yield events.ItemDone(sequence_number=self.number(), output_index=item.index, item=done)

    def end(self, done: RequestDone) -> events.ResponseEvent:
        """The last event; `response` is final."""
        cut = self._finish is FinishReason.LENGTH
        self.response = replace(
            self.response,
            status="incomplete" if cut else "completed",
            completed_at=None if cut else int(time.time()),
            incomplete_details=IncompleteDetails("max_output_tokens") if cut else None,
            output=self._items,
            usage=self._usage(done),
            timings=chat_answer.timings(done, 1),
        )
        kind = events.Incomplete if cut else events.Completed
        return kind(sequence_number=self.number(), response=self.response)

    def _usage(self, done: RequestDone) -> ResponseUsage:
        counts = done.usage
        return ResponseUsage(
            input_tokens=counts.prompt_tokens,
            input_tokens_details=InputTokensDetails(counts.cached_tokens),
            output_tokens=counts.completion_tokens,
            output_tokens_details=OutputTokensDetails(self._reader.reasoning_tokens),
            total_tokens=counts.prompt_tokens + counts.completion_tokens,
        )

    def fail(self, error: Exception) -> Iterator[events.StreamEvent]:
        """The response cannot be completed."""
        info = error_body(error).error
        yield events.ErrorEvent(
            sequence_number=self.number(), code=info.code, message=info.message, param=info.param
        )
        code = "server_error" if fate_of(error).status >= 500 else "invalid_prompt"
        self.response = replace(
            self.response,
            status="failed",
            output=self._items,
            error=ResponseError(code, info.message),
        )
        yield events.Failed(sequence_number=self.number(), response=self.response)
