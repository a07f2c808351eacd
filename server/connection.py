"""Watches the client while its answer is made: gone, or waiting in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class ClientDisconnected(Exception):
    """The client hung up before its answer was complete; nothing is sent any more."""


class SlowReader(ClientDisconnected):
    """The client is connected, but takes nothing of its answer any more."""


class WriteTimeout:
    """ASGI: drops a client that leaves an answer unread. Until then at most what fits the
    transport's buffer is held for it: whoever sends waits."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self._seconds):
                    await send(message)
            except TimeoutError:
                raise SlowReader(f"nothing was read for {self._seconds:g} s") from None

        await self._app(scope, receive, send_in_time)


class Attendance:
    """A block that is cancelled, and raises ClientDisconnected, when the client hangs up.

    With `keepalive` it awaits `on_silence` whenever `spoke` was not called for so many seconds.
    The request's body must have been read: its `receive` is used up here.
    """

    def __init__(
        self,
        receive: Receive,
        *,
        keepalive: float | None = None,
        on_silence: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._receive = receive
        self._keepalive = keepalive
        self._on_silence = on_silence
        self._loop = asyncio.get_running_loop()
        self._last_word = self._loop.time()
        self._gone = False

    def spoke(self) -> None:
        """Something was sent just now."""
        self._last_word = self._loop.time()

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watcher.cancel()
        # As in asyncio.timeout: our own cancellation ends here, any other one passes.
        if self._gone and self._task.uncancel() <= 0 and kind is asyncio.CancelledError:
            raise ClientDisconnected from error

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout_at(self._deadline()):
                    message = await self._receive()
            except TimeoutError:
                try:
                    await self._break_silence()
                except ClientDisconnected:
                    return self._leave()
                continue
            if message["type"] == "http.disconnect":
                return self._leave()

    def _leave(self) -> None:
        self._gone = True
        self._task.cancel()

    def _deadline(self) -> float | None:
        return None if self._keepalive is None else self._last_word + self._keepalive

    async def _break_silence(self) -> None:
        if self._on_silence is not None and self._deadline_passed():
            self.spoke()
            await self._on_silence()

    def _deadline_passed(self) -> bool:
        deadline = self._deadline()
        return deadline is not None and self._loop.time() >= deadline
