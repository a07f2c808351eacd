"""Several prompts of one request as one stream of events, their choices numbered through."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.errors import EngineError, QueueFull
from engine.request import (
    Event,
    Request,
    RequestDone,
    RequestFailed,
    Timings,
    TokenOutput,
    Usage,
)

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.stream import Sink, Stream


class PromptBatch:
    """Choice c of prompt p has the index p × n + c. Ends with the sums, or the first failure.

    At most as many prompts as the engine has slots are in line at once: a long batch leaves the
    queue to others.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        """Submits the first ones; raises what `Engine.submit` raises."""
        self._engine = engine
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._left = deque(enumerate(requests))
        self._unfinished = len(requests)
        self._done: list[RequestDone] = []
        self._streams: set[Stream] = set()
        self._readers: set[asyncio.Task[None]] = set()
        self._window = min(engine.info.parallel, len(requests))
        self._submit_next()
        try:
            self._fill()
        except EngineError:
            self.cancel()
            raise

    def divert(self, sink: Sink) -> None:
        """Nothing is: all events pass through the queue that brings the prompts together."""

    def cancel(self) -> None:
        """Forget all prompts, wherever they are."""
        self._left.clear()
        for stream in self._streams:
            stream.cancel()
        for reader in self._readers:
            reader.cancel()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            event = await self._events.get()
            if isinstance(event, RequestFailed):
                self.cancel()
            yield event
            if not isinstance(event, TokenOutput):
                return

    def _fill(self) -> None:
        """Where others have taken the queue, the rest follows as ours end."""
        while self._left and len(self._streams) < self._window:
            try:
                self._submit_next()
            except QueueFull:
                if not self._streams:
                    raise
                return

    def _submit_next(self) -> None:
        place, request = self._left[0]
        stream = self._engine.submit(request)
        self._left.popleft()
        self._streams.add(stream)
        reader = asyncio.create_task(self._read(stream, place * request.n))
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)

    async def _read(self, stream: Stream, first_index: int) -> None:
        async for event in stream:
            match event:
                case TokenOutput():
                    event = replace(event, index=first_index + event.index)
                case RequestDone():
                    self._streams.discard(stream)
                    self._finish(event)
                    return
            self._events.put_nowait(event)

    def _finish(self, event: RequestDone) -> None:
        self._done.append(event)
        self._unfinished -= 1
        if not self._unfinished:
            self._events.put_nowait(total(self._done))
            return
        try:
            self._fill()
        except EngineError as error:
            self._events.put_nowait(RequestFailed(error))


def total(parts: Sequence[RequestDone]) -> RequestDone:
    """Sums over all prompts, but for the time in the queue: that of the first to leave it."""
    usages, timings = [part.usage for part in parts], [part.timings for part in parts]
    return RequestDone(
        Usage(
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.completion_tokens for usage in usages),
            sum(usage.cached_tokens for usage in usages),
            sum(usage.accepted_prediction_tokens for usage in usages),
            sum(usage.rejected_prediction_tokens for usage in usages),
        ),
        Timings(
            queued=min(timing.queued for timing in timings),
            prefill=sum(timing.prefill for timing in timings),
            decode=sum(timing.decode for timing in timings),
        ),
    )
