"""A finished generation: all events of one request gathered, for answers that are sent whole."""

from __future__ import annotations

from collections.abc import Callable

from engine.request import FinishReason, RequestDone, RequestFailed, TokenLogprob, TokenOutput
from server.answers import ChoiceReader
from server.chat.deltas import CallDelta, ContentDelta, ReasoningDelta
from server.protocol.messages import FunctionCall, ToolCall
from server.sse import EventSource


class GeneratedChoice:
    """What one choice says and why it ended."""

    def __init__(self, reader: ChoiceReader) -> None:
        self._reader = reader
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []
        self.logprobs: list[TokenLogprob] = []
        self.prompt_logprobs: list[TokenLogprob] = []
        """Of the prompt before it, where they were asked for: the first choice has them."""
        self.finish_reason = FinishReason.STOP
        self.stop_reason: str | int | None = None

    @property
    def content(self) -> str:
        """The answer itself."""
        return "".join(self._content)

    @property
    def reasoning(self) -> str:
        """The thought before it."""
        return "".join(self._reasoning)

    @property
    def calls(self) -> list[ToolCall]:
        """The tools that were called, in order; the last may have been cut."""
        return self._calls

    @property
    def called(self) -> bool:
        """Tools have been called, all calls with their ends."""
        return self._reader.called

    def _add_call(self, delta: CallDelta) -> None:
        if delta.index == len(self._calls):
            self._calls.append(ToolCall(FunctionCall(delta.name, ""), delta.id))
        function = self._calls[delta.index].function
        assert isinstance(function.arguments, str)
        function.arguments += delta.arguments

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of the thought."""
        return self._reader.reasoning_tokens

    def add(self, output: TokenOutput) -> None:
        """What one step brought."""
        for delta in self._reader.read(output):
            match delta:
                case ContentDelta():
                    self._content.append(delta.text)
                case ReasoningDelta():
                    self._reasoning.append(delta.text)
                case CallDelta():
                    self._add_call(delta)
        self.logprobs += output.logprobs
        self.prompt_logprobs += output.prompt_logprobs
        if output.finish_reason is not None:
            self.finish_reason = output.finish_reason
            self.stop_reason = output.stop_reason


async def collect(
    stream: EventSource, n: int, new_reader: Callable[[int], ChoiceReader]
) -> tuple[list[GeneratedChoice], RequestDone]:
    """The n choices in order, and the counts. Raises the EngineError that the request failed with.

    Whatever ends it, the engine is told to forget the request.
    """
    choices = [GeneratedChoice(new_reader(index)) for index in range(n)]
    try:
        async for event in stream:
            match event:
                case TokenOutput():
                    choices[event.index].add(event)
                case RequestDone():
                    return choices, event
                case RequestFailed():
                    raise event.error
    finally:
        stream.cancel()
    raise RuntimeError("the engine ended a stream without a last word")
