"""A finished generation: all events of one request gathered, for answers that are sent whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.request import FinishReason, RequestDone, RequestFailed, TokenLogprob, TokenOutput

if TYPE_CHECKING:
    from engine.stream import Stream


class GeneratedChoice:
    """The text of one choice and why it ended."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.n_tokens = 0
        self.finish_reason = FinishReason.STOP
        self.stop_reason: str | int | None = None

    @property
    def text(self) -> str:
        """The whole of it."""
        return "".join(self._pieces)

    def add(self, output: TokenOutput) -> None:
        """What one step brought."""
        self._pieces.append(output.text)
        self.logprobs += output.logprobs
        self.n_tokens += output.n_tokens
        if output.finish_reason is not None:
            self.finish_reason = output.finish_reason
            self.stop_reason = output.stop_reason


async def collect(stream: Stream, n: int) -> tuple[list[GeneratedChoice], RequestDone]:
    """The n choices in order, and the counts. Raises the EngineError that the request failed with.

    Whatever ends it, the engine is told to forget the request.
    """
    choices = [GeneratedChoice() for _ in range(n)]
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
