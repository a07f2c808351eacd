"""How a door gets a model and puts a request in line: loading, leases, fallbacks, streams.

A door says in an `Attempt` how its request is prepared for one model and submitted; whichever
model takes it is kept from being unloaded until the admission is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from msgspec import Struct

from engine.errors import ContextLengthExceeded, EngineUnavailable, ModelLoadError, QueueFull
from server.api.http import with_ignored
from server.errors import InvalidRequest, ModelNotFound, error_body
from server.models import Models, ServedModel
from server.protocol.chat_completions import Tried
from server.sse import SSE, EventEncoder, EventSource, EventStream, Framing, Opened

PATIENCE = 0.5
"""Seconds that a stream's first bytes wait for a model that must be loaded: errors of these
are a status, later ones an event."""
MOVES_ON = (ModelLoadError, EngineUnavailable, QueueFull, ContextLengthExceeded)
"""Errors that another model may not have."""

_T = TypeVar("_T")
Attempt = Callable[[ServedModel], Awaitable[_T]]
"""Prepares a request for one model and submits it; may run once for each fallback."""


class Asked(Struct, frozen=True):
    """The names in a request. Without `fallbacks` (None) those of the model's configuration."""

    model: str | None
    fallbacks: Sequence[str] | None = None


class Trail:
    """Which models were asked, in order."""

    def __init__(self, requested: str | None, has_fallbacks: bool) -> None:
        self.requested = requested
        self.has_fallbacks = has_fallbacks
        """Whether anybody wants to know."""
        self.attempts: list[Tried] = []
        self.began = self._last = time.monotonic()

    def add(self, model: ServedModel, error: Exception | None = None) -> None:
        """The outcome of the attempt since the last one."""
        now = time.monotonic()
        tried = Tried(model.name, round((now - self._last) * 1000))
        if error is not None:
            info = error_body(error).error
            tried.error, tried.message = info.code, info.message
        self.attempts.append(tried)
        self._last = now


class Admission(Generic[_T]):
    """A request that a model took: what its attempt returned. To be closed."""

    def __init__(self, models: Models, model: ServedModel, value: _T, trail: Trail) -> None:
        self.model = model
        self.value = value
        self.trail = trail
        self._models: Models | None = models

    def close(self) -> None:
        """The model may be unloaded as far as this request is concerned."""
        models, self._models = self._models, None
        if models is not None:
            models.keeper.release(self.model)


class Submitted(Struct, Generic[_T]):
    """What the attempt of a streamed answer returns; `call` is for its encoder."""

    call: _T
    stream: EventSource
    ignored: Sequence[str] = ()
    """Further names for the header `x-ignored-params`."""


class Dispatcher:
    """One for all doors."""

    def __init__(self, models: Models, keepalive: float, patience: float = PATIENCE) -> None:
        self._models = models
        self._keepalive = keepalive
        self._patience = patience

    @asynccontextmanager
    async def lease(self, name: str | None) -> AsyncIterator[ServedModel]:
        """The model of a name, loaded and kept so. Raises ModelNotFound, ModelLoadError,
        EngineUnavailable."""
        model = self._models.get(name)
        await self._models.keeper.acquire(model)
        try:
            yield model
        finally:
            self._models.keeper.release(model)

    @asynccontextmanager
    async def admit(self, asked: Asked, attempt: Attempt[_T]) -> AsyncIterator[Admission[_T]]:
        """The first model that takes the request; where none does, the first one's error.

        Raises ModelNotFound, and InvalidRequest for a fallback that is not served.
        """
        admission = await self._admit(self._candidates(asked), asked, attempt)
        try:
            yield admission
        finally:
            admission.close()

    async def stream(
        self,
        asked: Asked,
        attempt: Attempt[Submitted[_T]],
        encoder: Callable[[Admission[Submitted[_T]]], EventEncoder],
        *,
        ignored: Sequence[str] = (),
        framing: Framing = SSE,
    ) -> EventStream:
        """The response that streams what a model says.

        Admission is awaited, so that its errors are statuses; but where a model must be loaded
        first and that takes long, the response begins, and they become events.
        """
        candidates = self._candidates(asked)
        late = Patience(self._patience)

        async def open() -> Opened:
            return _opened(await self._admit(candidates, asked, attempt, late.begin), encoder)

        if all(model.available for model in candidates):
            opened = await open()
        else:
            task = asyncio.create_task(open())
            if not await late.outlasts(task):
                return with_ignored(EventStream(task, self._keepalive, framing), ignored)
            opened = task.result()
        response = EventStream(opened, self._keepalive, framing)
        return with_ignored(response, [*ignored, *opened.ignored])

    def _candidates(self, asked: Asked) -> list[ServedModel]:
        """The model that was asked for, then its fallbacks, each once."""
        first = self._models.get(asked.model)
        if asked.fallbacks is None:
            found = [first, *(self._models.get(name) for name in first.config.fallbacks)]
        else:
            found = [first, *(self._fallback(*item) for item in enumerate(asked.fallbacks))]
        return list(dict.fromkeys(found))

    def _fallback(self, index: int, name: str) -> ServedModel:
        try:
            return self._models.get(name)
        except ModelNotFound as error:
            loc = ("body", "fallbacks", index)
            raise InvalidRequest(str(error), loc=loc, code="model_not_found") from None

    async def _admit(
        self,
        candidates: Sequence[ServedModel],
        asked: Asked,
        attempt: Attempt[_T],
        on_wait: Callable[[], None] = lambda: None,
    ) -> Admission[_T]:
        trail = Trail(asked.model, bool(asked.fallbacks) or len(candidates) > 1)
        refusals: list[Exception] = []
        for model in candidates:
            if not model.available:
                on_wait()
            try:
                value = await self._try(model, attempt)
            except MOVES_ON as error:
                refusals.append(error)
                trail.add(model, error)
                continue
            trail.add(model)
            return Admission(self._models, model, value, trail)
        raise refusals[0]

    async def _try(self, model: ServedModel, attempt: Attempt[_T]) -> _T:
        """Leaves the lease with whoever gets the result."""
        await self._models.keeper.acquire(model)
        try:
            return await attempt(model)
        except BaseException:
            self._models.keeper.release(model)
            raise


def _opened(
    admission: Admission[Submitted[_T]], encoder: Callable[[Admission[Submitted[_T]]], EventEncoder]
) -> Opened:
    admitted = admission.value
    try:
        return Opened(admitted.stream, encoder(admission), admission.close, admitted.ignored)
    except BaseException:
        admitted.stream.cancel()
        admission.close()
        raise


class Patience:
    """Ends so many seconds after the first model had to be waited for."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ended = asyncio.Event()

    def begin(self) -> None:
        """A model must be waited for."""
        asyncio.get_running_loop().call_later(self._seconds, self._ended.set)

    async def outlasts(self, task: asyncio.Task[_T]) -> bool:
        """Waits for whichever ends first; whether the task is done. Cancelled, it cancels that."""
        ending = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait((task, ending), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            ending.cancel()
        return task.done()
