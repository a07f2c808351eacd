"""The front end's side of a request: an asynchronous iterator of its events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from engine.request import Event, RequestDone, RequestFailed


class Stream:
    """Events of one request in order; ends after RequestDone or RequestFailed.

    Lives on the event loop: the engine's thread reaches it only through `call_soon_threadsafe`.
    """

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._cancel = cancel
        self.ended = False
        """No event will be added any more."""

    def put(self, event: Event) -> None:
        """Add an event; on the loop."""
        self._events.append(event)
        if isinstance(event, RequestDone | RequestFailed):
            self.ended = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

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
