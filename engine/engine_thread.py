"""What every engine is: an inbox, one thread that computes, and a way back to one event loop.

No lock is held while the model computes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from msgspec import Struct

from engine.errors import EngineError, EngineUnavailable, QueueFull
from engine.settings import ModelInfo, ModelSettings

if TYPE_CHECKING:
    from engine.probe import ProbeResult
    from engine.vocabulary_file import VocabularyFile

log = logging.getLogger("ingle.engine")

State = Literal["ready", "draining", "failed", "stopped"]

FAILURES_BEFORE_GIVING_UP = 3
"""Steps in a row that raise."""

Message = TypeVar("Message")
"""A new request, as the thread takes it."""
Waiter = TypeVar("Waiter")
"""Who gets what comes of a request, on the loop."""
Outcome = TypeVar("Outcome")
"""What comes of a request, as it crosses to the loop."""


class EngineStats(Struct, frozen=True):
    """A glance at the load."""

    running: int
    waiting: int
    slots: int


class EngineThread(ABC, Generic[Message, Waiter, Outcome]):
    """Base of the engines. What is public belongs to one event loop, but for `close`."""

    def __init__(
        self,
        name: str,
        info: ModelInfo,
        *,
        max_queue: int,
        release: Callable[[], None],
    ) -> None:
        """`release` frees the model, on the thread called `name`, after the last step."""
        self.info = info
        self.state: State = "ready"
        self.failure: str | None = None
        self.settings: ModelSettings | None = None
        self.probed: ProbeResult | None = None
        """What it was loaded with, and why; whoever loaded it says so."""
        self.vocabulary_file: VocabularyFile | None = None
        """Where the bytes of its tokens are kept between two starts, if at all."""
        self._max_in_flight = info.parallel + max_queue
        self._max_queue = max_queue
        self._release = release
        self._inbox: deque[Message | str] = deque()
        """New requests, and the ids of those to abort."""
        self._wake = threading.Event()
        self._waiters: dict[str, Waiter] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread; what it has to say arrives on `loop`."""
        self._loop = loop
        self._thread.start()

    def _check_open(self) -> None:
        """Raises EngineUnavailable and QueueFull."""
        if self.state != "ready":
            raise EngineUnavailable(self.state, self.failure or "")
        if len(self._waiters) >= self._max_in_flight:
            raise QueueFull(self._max_queue, retry_after=1)

    def _enter(self, request_id: str, waiter: Waiter, message: Message) -> None:
        self._waiters[request_id] = waiter
        self._idle.clear()
        self._post(message)

    def _forget(self, request_id: str) -> None:
        self._waiters.pop(request_id, None)
        if not self._waiters:
            self._idle.set()

    async def drain(self, timeout: float) -> None:
        """Refuse new requests, wait at most `timeout` seconds for the running ones, and end by
        name those that take longer."""
        if self.state == "ready":
            self.state = "draining"
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except TimeoutError:
            log.warning("%d requests did not end in the time to drain", len(self._waiters))
            self._end_all(EngineUnavailable("draining", "the server stops"))

    def _end_all(self, error: EngineError) -> None:
        """On the loop: whoever waits gets `error`, and nothing more is computed for them."""
        running = list(self._waiters)
        self._deliver([(request_id, self._failed(error)) for request_id in running])
        for request_id in running:
            self._post(request_id)

    def close(self) -> None:
        """Stop after the current step, fail what is left and free the model; blocks until then."""
        if self.state != "failed":
            self.state = "stopped"
        self._wake.set()
        if self._thread.ident is None:
            self._release()  # loaded, but never started
        else:
            self._thread.join()
        stopped = self._failed(EngineUnavailable("stopped"))
        self._hand_over([(request_id, stopped) for request_id in list(self._waiters)])

    def _post(self, message: Message | str) -> None:
        self._inbox.append(message)
        self._wake.set()

    def _wait(self) -> float:
        """On the thread: until something is posted; the seconds that took."""
        began = time.monotonic()
        self._wake.wait()
        self._wake.clear()
        return time.monotonic() - began

    def _hand_over(self, outcomes: list[tuple[str, Outcome]]) -> None:
        if outcomes and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, outcomes)

    @abstractmethod
    def stats(self) -> EngineStats:
        """Counts of this moment."""

    @abstractmethod
    def _run(self) -> None:
        """The thread: works while the state is ready or draining, then calls `_release`."""

    @abstractmethod
    def _failed(self, error: EngineError) -> Outcome:
        """`error` as the last that comes of a request."""

    @abstractmethod
    def _deliver(self, outcomes: list[tuple[str, Outcome]]) -> None:
        """On the loop: to those who still wait for them, by the ids of their requests."""
