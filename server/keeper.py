"""Loads models for those who ask, keeps them while they are used, and lets them go.

Loading and unloading run in threads of their own; everything else here lives on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any

from engine.errors import EngineUnavailable, ModelLoadError, QueueFull
from engine.llama.heap import return_freed_memory
from server.config import ModelConfig
from server.located import Located
from server.residency import Residency
from server.served_model import LoadEngine, LoadProgress, LoadState, Parts, ServedModel
from server.threads import in_daemon_thread

log = logging.getLogger("ingle.server")

RETRY_AFTER_FAILURE = 30.0
"""Seconds for which a load that failed is not tried again."""


Locate = Callable[[ModelConfig, LoadProgress], Located]
"""Blocks until the file is here, which may take a download; raises ModelLoadError."""


class Keeper:
    """The only one who changes the state of a `ServedModel`, but for how long it stays."""

    def __init__(self, locate: Locate, load_engine: LoadEngine, budget: int | None) -> None:
        self.residency = Residency(budget, self._unload, self._grant)
        self._locate = locate
        self._load_engine = load_engine
        self._tasks: dict[ServedModel, asyncio.Task[None]] = {}
        """Loads and unloads under way."""
        self._expiries: dict[ServedModel, asyncio.TimerHandle] = {}
        self._failed_at: dict[ServedModel, float] = {}
        self._closing = False

    async def acquire(self, model: ServedModel) -> None:
        """Take a lease: load the model if need be, and keep it until `release`.

        However many ask, it is loaded once. Raises ModelLoadError, EngineUnavailable, QueueFull.
        """
        if self._closing:
            raise EngineUnavailable("draining")
        if model.idle and model.state == "failed":
            self._unload(model)
        if model.available:
            self._take(model)
        else:
            await self._wait(model)

    async def _wait(self, model: ServedModel) -> None:
        self._refuse(model)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        model.waiting.append(place)
        if model not in self._tasks and not model.loaded:
            self.load(model)
        try:
            await place
        except asyncio.CancelledError:
            if place in model.waiting:
                model.waiting.remove(place)
            elif not place.cancelled() and place.exception() is None:
                self.release(model)
            raise

    def _refuse(self, model: ServedModel) -> None:
        """What failed a moment ago would fail again, and may take minutes to."""
        failed_at = self._failed_at.get(model, -math.inf)
        if model.failure is not None and time.monotonic() < failed_at + RETRY_AFTER_FAILURE:
            raise model.failure.with_traceback(None)
        settings = model.config.settings
        if len(model.waiting) >= settings.parallel + settings.max_queue:
            raise QueueFull(settings.max_queue, retry_after=2)

    def release(self, model: ServedModel) -> None:
        """Give a lease back."""
        model.users -= 1
        model.last_used = time.monotonic()
        if model.idle:
            self.residency.settle()
        self._expire_later(model)

    def _take(self, model: ServedModel) -> None:
        model.users += 1
        if expiry := self._expiries.pop(model, None):
            expiry.cancel()

    def _grant(self, model: ServedModel) -> None:
        """A lease for everyone who waits."""
        while model.waiting:
            place = model.waiting.popleft()
            if not place.done():
                self._take(model)
                place.set_result(None)

    def _expire_later(self, model: ServedModel) -> None:
        if model.idle and model.keep_alive < math.inf:
            loop = asyncio.get_running_loop()
            self._expiries[model] = loop.call_later(model.keep_alive, self._expire, model)

    def _expire(self, model: ServedModel) -> None:
        self._expiries.pop(model, None)
        if model.idle:
            self._unload(model)

    # Coming and going

    def load(self, model: ServedModel) -> asyncio.Task[None]:
        """Begins to, or joins what is under way; its outcome stands in the model."""
        if model not in self._tasks:
            model.begin()
            self._begin(model, self._load(model))
        return self._tasks[model]

    def _begin(self, model: ServedModel, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[model] = asyncio.create_task(work)

    async def _load(self, model: ServedModel) -> None:
        try:
            located = await in_daemon_thread(
                lambda: self._locate(model.config, model.report), "locate"
            )
            model.report("waiting for memory", 0.0)
            await self.residency.make_room(model, located.need)
            model.report("loading", 0.0)
            parts = await in_daemon_thread(lambda: model.load(self._load_engine, located), "load")
            model.serve(parts)
        except ModelLoadError as error:
            self._fail(model, error)
        except Exception as error:
            log.exception("loading %s failed", model.name)
            self._fail(model, ModelLoadError(f"{model.name}: {error}"))
        else:
            del self._tasks[model]
            self._grant(model)
            self.residency.settle()
            self._expire_later(model)

    def _fail(self, model: ServedModel, failure: ModelLoadError) -> None:
        del self._tasks[model]
        model.fail(failure)
        self._failed_at[model] = time.monotonic()
        self._turn_away(model, failure)
        self.residency.release(model)

    def _turn_away(self, model: ServedModel, error: Exception) -> None:
        while model.waiting:
            place = model.waiting.popleft()
            if not place.done():
                place.set_exception(error)

    def _unload(self, model: ServedModel) -> None:
        if expiry := self._expiries.pop(model, None):
            expiry.cancel()
        model.keep_alive = model.usual_keep_alive
        self._begin(model, self._give_back(model, model.take_apart()))

    async def _give_back(self, model: ServedModel, parts: Parts) -> None:
        try:
            await asyncio.to_thread(parts.engine.close)
        except Exception:
            log.exception("unloading %s failed", model.name)
        del parts
        await asyncio.to_thread(return_freed_memory)
        log.info("%s: unloaded", model.name)
        del self._tasks[model]
        model.unloaded()
        self.residency.release(model)
        if model.waiting:
            self.load(model)

    # The set of models changes

    def retire(self, model: ServedModel) -> None:
        """Nobody will ask for it again: who uses it or waits for it still gets it."""
        if model.available:
            self._grant(model)
        model.retired = True
        self.residency.settle()

    def forgive(self, model: ServedModel) -> None:
        """A failure of before is no reason to refuse it any more."""
        self._failed_at.pop(model, None)

    # The end

    @property
    def loading(self) -> bool:
        """A thread may be inside a loader."""
        return any(model.load_state is LoadState.LOADING for model in self._tasks)

    async def drain(self, timeout: float) -> None:
        """Refuses new requests and gives the running ones `timeout` seconds."""
        self._closing = True
        for model in list(self._tasks):
            self._turn_away(model, EngineUnavailable("draining"))
        engines = [m.loaded_engine for m in self.residency.residents if m.state == "ready"]
        await asyncio.gather(*(engine.drain(timeout) for engine in engines))

    async def close(self) -> None:
        """Unloads everything; threads that are inside a loader are left to themselves."""
        self._closing = True
        for model, task in list(self._tasks.items()):
            if model.load_state is LoadState.LOADING:
                task.cancel()
        for model in self.residency.residents:
            if model.loaded:
                self._unload(model)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
