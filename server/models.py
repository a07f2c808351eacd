"""The served models: which name means which, and whether it is loaded.

Loading runs in a thread of its own, so that the server answers (503) meanwhile.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from msgspec.structs import asdict

from engine.errors import EngineUnavailable, ModelLoadError
from server.answers import AnswerFormat, marker_tokens
from server.chat.errors import TemplateError
from server.chat.format import ChatFormat
from server.config import FormatOverride, ModelConfig
from server.constraints import Constraints, OutputGrammar, Wanted
from server.errors import ModelNotFound, WrongTask, quote

if TYPE_CHECKING:
    from engine.embedding_engine import EmbeddingEngine
    from engine.engine import Engine
    from engine.settings import ModelInfo

    AnyEngine = Engine | EmbeddingEngine

log = logging.getLogger("ingle.server")

LoadProgress = Callable[[str, float], None]
"""Takes the name of the step that runs, and how much of it is done (0–1)."""
LoadEngine = Callable[[ModelConfig, LoadProgress], "AnyEngine"]
"""Blocks until the model is loaded; raises ModelLoadError."""


class LoadState(enum.StrEnum):
    """Where a model is in its life."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class ServedModel:
    """One model: its configuration and, once it is loaded, its engine and chat format."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.created = int(time.time())
        self.load_state = LoadState.LOADING
        self.step = "waiting"
        self.progress = 0.0
        self.failure: ModelLoadError | None = None
        self._engine: AnyEngine | None = None
        self._format: ChatFormat | None = None
        self._answers: AnswerFormat | None = None
        self._constraints = Constraints()

    @property
    def name(self) -> str:
        """The name that answers carry."""
        return self.config.name

    @property
    def state(self) -> str:
        """loading or failed, else what the engine says: ready, draining, failed, stopped."""
        return self.load_state if self._engine is None else self._engine.state

    @property
    def loaded(self) -> bool:
        """Whether there is an engine to ask."""
        return self._engine is not None

    @property
    def failure_reason(self) -> str:
        """Why the state is failed."""
        if self._engine is not None:
            return self._engine.failure or "unknown"
        return str(self.failure)

    @property
    def loaded_engine(self) -> AnyEngine:
        """Whatever the model is for; raises EngineUnavailable."""
        if self._engine is None:
            raise self._unavailable()
        return self._engine

    @property
    def info(self) -> ModelInfo:
        """What the file says; raises EngineUnavailable."""
        return self.loaded_engine.info

    @property
    def engine(self) -> Engine:
        """Generates text. Raises EngineUnavailable, and WrongTask for other models."""
        engine = self.loaded_engine
        if engine.info.task != "generate":
            raise WrongTask(self.name, engine.info.task)
        return cast("Engine", engine)

    @property
    def embedder(self) -> EmbeddingEngine:
        """Embeds or scores. Raises EngineUnavailable, and WrongTask for models that write text."""
        engine = self.loaded_engine
        if engine.info.task == "generate":
            raise WrongTask(self.name, "generate")
        return cast("EmbeddingEngine", engine)

    @property
    def format(self) -> ChatFormat:
        """How the model is spoken to; raises EngineUnavailable and WrongTask."""
        if self._format is None:
            raise WrongTask(self.name, self.info.task)
        return self._format

    @property
    def answers(self) -> AnswerFormat:
        """How it answers; raises EngineUnavailable and WrongTask."""
        if self._answers is None:
            raise WrongTask(self.name, self.info.task)
        return self._answers

    def load(self, load_engine: LoadEngine) -> tuple[AnyEngine, ChatFormat | None]:
        """Blocks; the parts that `serve` takes. Raises ModelLoadError."""
        loaded = load_engine(self.config, self._report)
        info = loaded.info
        if info.task != "generate":
            return loaded, None
        engine = cast("Engine", loaded)
        source = self.config.chat_template or info.chat_template
        try:
            format = ChatFormat.from_template(
                source, bos_token=info.bos_token, eos_token=info.eos_token
            )
        except TemplateError as error:
            raise ModelLoadError(f"{self.name}: {error}") from error
        override = self.config.format
        if override != FormatOverride():
            format = format.overridden(**asdict(override))
        log.info("%s: %s", self.name, format.describe())
        engine.enable_constraints(marker_tokens(format, engine.tokenizer))
        return engine, format

    def serve(self, engine: AnyEngine, format: ChatFormat | None) -> None:
        """Starts to answer; call on the event loop."""
        engine.start(asyncio.get_running_loop())
        self._engine, self._format = engine, format
        self._answers = AnswerFormat(format, engine.tokenizer) if format is not None else None
        self.load_state = LoadState.READY

    def constrain(self, wanted: Wanted) -> OutputGrammar | None:
        """The grammar of an answer, compiled for this vocabulary too; blocks for milliseconds.

        Raises InvalidRequest, InvalidGrammar, EngineUnavailable.
        """
        output = self._constraints.compile(wanted)
        if output is not None:
            self.engine.compile_grammar(output.grammar)
        return output

    def fail(self, failure: ModelLoadError) -> None:
        """Answers every request with this from now on."""
        self.load_state, self.failure = LoadState.FAILED, failure

    def _unavailable(self) -> EngineUnavailable:
        return EngineUnavailable(self.state, "" if self.failure is None else str(self.failure))

    def _report(self, step: str, fraction: float) -> None:
        self.step, self.progress = step, fraction


class Models:
    """All models that one server serves, in the order of its configuration."""

    def __init__(self, configs: Sequence[ModelConfig], load_engine: LoadEngine) -> None:
        self.models = tuple(ServedModel(config) for config in configs)
        self.loaded = asyncio.Event()
        """Set when every model is ready, or one has failed."""
        self.failure: ModelLoadError | None = None
        self._load_engine = load_engine
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
        """Begins to load in the background; call on the event loop."""
        loop = asyncio.get_running_loop()
        # A daemon: a process that is told to end does not wait for a file of many gigabytes.
        threading.Thread(target=self._load_all, args=(loop,), name="load", daemon=True).start()

    async def wait_loaded(self) -> None:
        """Returns when every model is ready; raises the first ModelLoadError."""
        await self.loaded.wait()
        if self.failure is not None:
            raise self.failure

    async def drain(self, timeout: float) -> None:
        """Refuses new requests and gives the running ones `timeout` seconds."""
        engines = [model.loaded_engine for model in self.models if model.state == "ready"]
        await asyncio.gather(*(engine.drain(timeout) for engine in engines))

    def close(self) -> None:
        """Stops the engines and frees their memory."""
        for model in self.models:
            if model.loaded:
                model.loaded_engine.close()

    def _load_all(self, loop: asyncio.AbstractEventLoop) -> None:
        for model in self.models:
            finish = self._load_one(model)
            if loop.is_closed():
                return
            loop.call_soon_threadsafe(self._finish, finish)

    def _load_one(self, model: ServedModel) -> Callable[[], None]:
        """Loads, and returns what is then to be done on the event loop."""
        try:
            parts = model.load(self._load_engine)
        except ModelLoadError as error:
            return partial(self._fail, model, error)
        except Exception as error:
            log.exception("loading %s failed", model.name)
            return partial(self._fail, model, ModelLoadError(f"{model.name}: {error}"))
        return partial(model.serve, *parts)

    def _fail(self, model: ServedModel, failure: ModelLoadError) -> None:
        model.fail(failure)
        self.failure = self.failure or failure

    def _finish(self, finish: Callable[[], None]) -> None:
        finish()
        if self.failure or all(m.load_state is not LoadState.LOADING for m in self.models):
            self.loaded.set()
