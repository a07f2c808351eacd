"""The served models: which name means which, and who holds one in memory.

Loading runs in threads of its own, so that the server answers meanwhile. Everything else here
lives on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence

from engine.errors import EngineUnavailable, ModelLoadError
from server.config import ModelConfig
from server.errors import ModelNotFound, quote
from server.served_model import LoadEngine, LoadState, Parts, ServedModel
from server.threads import in_daemon_thread

__all__ = ["LoadState", "Models", "ServedModel"]

log = logging.getLogger("ingle.server")

RETRY_AFTER_FAILURE = 30.0
"""Seconds for which a load that failed is not tried again."""


class Models:
    """All models that one server serves, in the order of its configuration."""

    def __init__(self, configs: Sequence[ModelConfig], load_engine: LoadEngine) -> None:
        self.models = tuple(ServedModel(config) for config in configs)
        self.initial = self.models[:1]
        """Loaded when the server starts, the others when they are first asked for."""
        self.loaded = asyncio.Event()
        """Set when every initial model is ready, or one has failed."""
        self._load_engine = load_engine
        self._loads: dict[ServedModel, asyncio.Task[None]] = {}
        self._failed_at: dict[ServedModel, float] = {}
        self._closing = False
        self._names = {
            name: model
            for model in reversed(self.models)
            for name in (*model.config.aliases, model.name)
        }

    def get(self, name: str | None) -> ServedModel:
        """The model of a name, an alias or `provider/name`; the first one if None.

        Raises ModelNotFound.
        """
        if name is None:
            return self.models[0]
        candidate = name
        while candidate not in self._names:
            candidate = candidate.partition("/")[2]
            if not candidate:
                served = ", ".join(model.name for model in self.models)
                raise ModelNotFound(
                    f"the model {quote(name)} is not served here; there is: {served}",
                    loc=("body", "model"),
                )
        return self._names[candidate]

    def start(self) -> None:
        """Begins to load the initial models; call on the event loop."""
        for model in self.initial:
            model.begin()
        self._starting = asyncio.create_task(self._load_initial())

    async def _load_initial(self) -> None:
        for model in self.initial:
            await self._load_once(model)
            if model.failure is not None:
                break
        self.loaded.set()

    async def wait_loaded(self) -> None:
        """Returns when the initial models are ready; raises the first ModelLoadError."""
        await self.loaded.wait()
        for model in self.initial:
            if model.failure is not None:
                raise model.failure

    async def acquire(self, model: ServedModel) -> None:
        """Take a lease: load the model if need be, and keep it until `release`.

        However many ask, it is loaded once. Raises ModelLoadError, EngineUnavailable.
        """
        model.users += 1
        try:
            while not model.loaded:
                if self._closing:
                    raise EngineUnavailable("draining")
                self._refuse_failed(model)
                await self._load_once(model)
        except BaseException:
            self.release(model)
            raise

    def release(self, model: ServedModel) -> None:
        """Give a lease back."""
        model.users -= 1

    @property
    def loading(self) -> bool:
        """A thread is inside a loader."""
        return bool(self._loads)

    async def drain(self, timeout: float) -> None:
        """Refuses new requests and gives the running ones `timeout` seconds."""
        self._closing = True
        engines = [model.loaded_engine for model in self.models if model.state == "ready"]
        await asyncio.gather(*(engine.drain(timeout) for engine in engines))

    async def close(self) -> None:
        """Stops the engines and frees their memory."""
        engines = [model.loaded_engine for model in self.models if model.loaded]
        await asyncio.gather(*(asyncio.to_thread(engine.close) for engine in engines))

    def _refuse_failed(self, model: ServedModel) -> None:
        """What failed a moment ago would fail again, and may take minutes to."""
        failed_at = self._failed_at.get(model, -math.inf)
        if model.failure is not None and time.monotonic() < failed_at + RETRY_AFTER_FAILURE:
            raise model.failure.with_traceback(None)

    async def _load_once(self, model: ServedModel) -> None:
        """Joins the load that runs, or begins it; the result stands in the model."""
        if model not in self._loads:
            self._loads[model] = asyncio.create_task(self._load(model))
        # The load goes on when who asked for it leaves.
        await asyncio.shield(self._loads[model])

    async def _load(self, model: ServedModel) -> None:
        model.begin()
        try:
            parts: Parts = await in_daemon_thread(lambda: model.load(self._load_engine), "load")
            model.serve(parts)
        except ModelLoadError as error:
            self._fail(model, error)
        except Exception as error:
            log.exception("loading %s failed", model.name)
            self._fail(model, ModelLoadError(f"{model.name}: {error}"))
        finally:
            del self._loads[model]

    def _fail(self, model: ServedModel, failure: ModelLoadError) -> None:
        model.fail(failure)
        self._failed_at[model] = time.monotonic()
