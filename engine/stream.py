"""The front end's side of a request: an asynchronous iterator of its events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from engine.request import Event, RequestDone, RequestFailed, TokenOutput

Sink = Callable[[TokenOutput], bool]
"""Takes an output, or declines it."""


class Stream:
    """Events of one request in order; ends after RequestDone or RequestFailed.

    Lives on the event loop: the engine's thread reaches it only through `call_soon_threadsafe`.
    """

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._cancel = cancel
        self._sink: Sink | None = None
        self.ended = False
        """No event will be added any more."""

    def put(self, event: Event) -> None:
        """Add an event; on the loop."""
        if isinstance(event, TokenOutput) and self._passed_on(event):
            return
        self._events.append(event)
        if isinstance(event, RequestDone | RequestFailed):
            self.ended = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def divert(self, sink: Sink) -> None:
        """Offer `sink` every output that somebody waits for, as it is delivered and without waking
        them: a task's turn costs more than a token's words. What it declines goes through the
        iterator, and so does what it raises."""
        self._sink = sink

    def _passed_on(self, output: TokenOutput) -> bool:
        # While somebody waits nothing is queued, so the order is kept.
        waiter = self._waiter
        if self._sink is None or waiter is None or waiter.done():
            return False
        try:
            return self._sink(output)
        except Exception as error:  # noqa: BLE001, other requests' events come after this one
            waiter.set_exception(error)
            return True

    def cancel(self) -> None:
        """Stop the request wherever it is; the engine spends nothing on it after this step."""
        if not self.ended:
            self.ended = True
            self._cancel()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self.ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.popleft()
