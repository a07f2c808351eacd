"""The served models: which name means which."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import ModelLoadError
from server.config import ModelConfig, initial_models
from server.errors import ModelNotFound, quote
from server.keeper import Keeper, Locate
from server.located import Located
from server.served_model import LoadEngine, LoadState, ServedModel, chat_format

__all__ = ["LoadState", "Located", "Models", "Reloaded", "ServedModel"]

LATEST = ":latest"
"""The tag of a name without one, at Ollama."""
ON_DEMAND_KEEP_ALIVE = 300.0
"""Seconds without a request that a model stays which was not loaded at the start."""


Survey = Callable[[ModelConfig], Located | None]
"""What is known of a model without loading or fetching anything; blocks for milliseconds."""


class Reloaded(Struct, frozen=True):
    """What became of the models, by name."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: list[str]


class Models:
    """All models that one server serves, in the order of its configuration."""

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        load_engine: LoadEngine,
        *,
        locate: Locate = lambda config, _report: Located(config),
        survey: Survey = lambda _config: None,
        budget: int | None = None,
    ) -> None:
        """`budget`: bytes that weights and KV caches may take together; None is no limit."""
        self._survey = survey
        self.loaded = asyncio.Event()
        """Set when every initial model is ready, or one has failed."""
        self.keeper = Keeper(locate, load_engine, budget)
        self._serve([ServedModel(config) for config in configs])

    def _serve(self, models: Sequence[ServedModel]) -> None:
        self.models = tuple(models)
        initial = initial_models([model.config for model in models])
        self.initial = tuple(model for model in models if model.config in initial)
        """Loaded when the server starts, the others when they are first asked for."""
        for model in models:
            default = math.inf if model in self.initial else ON_DEMAND_KEEP_ALIVE
            chosen = model.config.keep_alive
            model.usual_keep_alive = default if chosen is None else chosen
            model.keep_alive = model.usual_keep_alive
        self._names = {
            name: model
            for model in reversed(self.models)
            for name in (*model.config.aliases, model.name)
        }

    def get(self, name: str | None) -> ServedModel:
        """The model of a name, an alias or `provider/name`, which may end in `:latest` as all names
        of Ollama's do; the first one if None.

        Raises ModelNotFound.
        """
        if name is None:
            return self.models[0]
        for candidate in (name, name.removesuffix(LATEST)):
            while candidate:
                if candidate in self._names:
                    return self._names[candidate]
                candidate = candidate.partition("/")[2]
        served = ", ".join(model.name for model in self.models)
        raise ModelNotFound(
            f"the model {quote(name)} is not served here; there is: {served}",
            loc=("body", "model"),
        )

    def start(self) -> None:
        """Begins to load the initial models, in order; call on the event loop."""
        for model in self.initial:
            model.begin()
        self._starting = asyncio.create_task(self._load_initial())

    async def _load_initial(self) -> None:
        for model in self.initial:
            # A load under way is stopped by its keeper alone.
            await asyncio.shield(self.keeper.load(model))
            if model.failure is not None:
                break
        self.loaded.set()

    async def wait_loaded(self) -> None:
        """Returns when the initial models are ready; raises the first ModelLoadError."""
        await self.loaded.wait()
        for model in self.initial:
            if model.failure is not None:
                raise model.failure

    async def look_at(self, model: ServedModel) -> None:
        """Fill `located` of a model that was never loaded, as far as its file is here."""
        if model.located is None:
            model.located = await asyncio.to_thread(self._look, model.config)

    def _look(self, config: ModelConfig) -> Located | None:
        located = self._survey(config)
        if located is None or located.header is None or located.header.task != "generate":
            return located
        template = located.header.metadata.get("tokenizer.chat_template")
        try:
            format = chat_format(config, str(template or ""))
        except ModelLoadError:
            return located
        return replace(located, thinks=bool(format.learned.thought.learned))

    def reload(self, configs: Sequence[ModelConfig]) -> Reloaded:
        """Serve these instead. Whose configuration is the same stays as it is; who uses another
        one, or waits for it, still gets the old one."""
        before = {model.name: model for model in self.models}
        models = [
            before[config.name]
            if config.name in before and before[config.name].is_still(config)
            else ServedModel(config)
            for config in configs
        ]
        self._serve(models)
        for model in set(before.values()) - set(models):
            self.keeper.retire(model)
        for model in models:
            self.keeper.forgive(model)
        for model in self.initial:
            if not model.loaded:
                self.keeper.load(model)
        return _compare(before, models)

    async def drain(self, timeout: float) -> None:
        """Refuses new requests and gives the running ones `timeout` seconds."""
        await self.keeper.drain(timeout)

    async def close(self) -> None:
        """Stops the engines and frees their memory."""
        await self.keeper.close()


def _compare(before: dict[str, ServedModel], models: Sequence[ServedModel]) -> Reloaded:
    result = Reloaded([], [], sorted(before.keys() - {model.name for model in models}), [])
    for model in models:
        if model.name not in before:
            result.added.append(model.name)
        elif before[model.name] is model:
            result.unchanged.append(model.name)
        else:
            result.changed.append(model.name)
    return result
