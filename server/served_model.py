"""One served model: its configuration and, while it is loaded, what it is made of."""

from __future__ import annotations

import asyncio
import enum
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from msgspec.structs import asdict, replace

from engine.errors import EngineUnavailable, ModelLoadError
from server.answers import AnswerFormat, marker_tokens
from server.chat.errors import TemplateError
from server.chat.format import ChatFormat
from server.config import FormatOverride, ModelConfig
from server.constraints import Constraints, OutputGrammar, Wanted
from server.errors import WrongTask
from server.located import Located
from server.prompt_text import PromptText

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
    """Where a model is in its life; the engine of a ready one may be draining, failed, stopped."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    FAILED = "failed"


Stamp = tuple[int, int]
"""Size and time of a file: another one under the same name has others."""


def _stamp(path: Path) -> Stamp | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def chat_format(
    config: ModelConfig, template: str | None, bos_token: str = "", eos_token: str = ""
) -> ChatFormat:
    """How a model is spoken to, by its own template unless told otherwise.

    Raises ModelLoadError.
    """
    source = config.chat_template or template
    try:
        format = ChatFormat.from_template(source, bos_token=bos_token, eos_token=eos_token)
    except TemplateError as error:
        raise ModelLoadError(f"{config.name}: {error}") from error
    override = config.format
    return format if override == FormatOverride() else format.overridden(**asdict(override))


class Parts:
    """Everything that is dropped together when a model is unloaded."""

    def __init__(self, engine: AnyEngine, format: ChatFormat | None) -> None:
        """`format` is None for models that do not write text."""
        self.engine = engine
        self.format = format
        self.answers = AnswerFormat(format, engine.tokenizer) if format is not None else None
        self.constraints = Constraints()
        self.prompt_text = prompt_text(engine, format) if format is not None else None


def prompt_text(engine: AnyEngine, format: ChatFormat) -> PromptText:
    """How the prompts of a model with this format are encoded."""
    learned = format.learned
    return PromptText(engine.tokenizer, engine.info.context, (learned.header, *learned.ends))


class ServedModel:
    """Of the event loop; a request may use the parts for as long as it holds a lease."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.created = int(time.time())
        self.load_state = LoadState.UNLOADED
        self.step = "waiting"
        self.progress = 0.0
        self.failure: ModelLoadError | None = None
        self.keep_alive = math.inf
        """Seconds without a request after which the model is unloaded; inf: never."""
        self.usual_keep_alive = math.inf
        """The same where no request has said how long since the model was loaded."""
        self.users = 0
        """Leases."""
        self.waiting: deque[asyncio.Future[None]] = deque()
        """Who gets a lease once the model is loaded."""
        self.last_used = -math.inf
        """On the monotonic clock, the end of the last lease."""
        self.leaving = False
        """Makes room for another: takes no new leases, and is unloaded when the last one ends."""
        self.retired = False
        """No name means it any more: unloaded when the last lease ends."""
        self.located: Located | None = None
        """What its file says, once somebody has looked."""
        self._parts: Parts | None = None
        self._path = config.settings.path
        self._file: Stamp | None = None

    @property
    def idle(self) -> bool:
        """Nobody would miss it."""
        return self.loaded and not self.users

    @property
    def available(self) -> bool:
        """A lease is to be had at once."""
        return self.loaded and not self.leaving and not self.retired

    @property
    def unloading(self) -> bool:
        """Its memory is on its way back."""
        return self.load_state is LoadState.UNLOADING

    @property
    def name(self) -> str:
        """The name that answers carry."""
        return self.config.name

    @property
    def path(self) -> Path:
        """Its file; one on the hub is there once the model was loaded."""
        return self._path

    @property
    def state(self) -> str:
        """The load state; of a ready one what the engine says: ready, draining, failed, stopped."""
        return self.load_state if self._parts is None else self._parts.engine.state

    @property
    def loaded(self) -> bool:
        """Whether there is an engine to ask."""
        return self._parts is not None

    @property
    def failure_reason(self) -> str:
        """Why the state is failed."""
        if self._parts is not None:
            return self._parts.engine.failure or "unknown"
        return str(self.failure)

    @property
    def parts(self) -> Parts:
        """Raises EngineUnavailable."""
        if self._parts is None:
            reason = "" if self.failure is None else str(self.failure)
            raise EngineUnavailable(self.state, reason)
        return self._parts

    @property
    def loaded_engine(self) -> AnyEngine:
        """Whatever the model is for; raises EngineUnavailable."""
        return self.parts.engine

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
        if self.parts.format is None:
            raise WrongTask(self.name, self.info.task)
        return self.parts.format

    @property
    def answers(self) -> AnswerFormat:
        """How it answers; raises EngineUnavailable and WrongTask."""
        if self.parts.answers is None:
            raise WrongTask(self.name, self.info.task)
        return self.parts.answers

    @property
    def prompt_text(self) -> PromptText:
        """How its prompts are encoded; raises EngineUnavailable and WrongTask."""
        if self.parts.prompt_text is None:
            raise WrongTask(self.name, self.info.task)
        return self.parts.prompt_text

    def stay(self, seconds: float | None) -> None:
        """Be kept so long after the last request, until it is unloaded; None: as long as before."""
        if seconds is not None:
            self.keep_alive = seconds

    def constrain(self, wanted: Wanted) -> OutputGrammar | None:
        """The grammar of an answer, compiled for this vocabulary too; blocks for milliseconds.

        Raises InvalidRequest, InvalidGrammar, EngineUnavailable.
        """
        output = self.parts.constraints.compile(wanted)
        if output is not None:
            self.engine.compile_grammar(output.grammar)
        return output

    def is_still(self, config: ModelConfig) -> bool:
        """Whether `config` would be served by loading nothing anew."""
        return config == self.config and (not self.loaded or self._file == _stamp(self._path))

    # The life of the model, for its `Keeper` alone.

    def load(self, load_engine: LoadEngine, located: Located) -> Parts:
        """Blocks; what `serve` takes. Raises ModelLoadError."""
        config, self.located = located.config, located
        self._path = config.settings.path
        self._file = _stamp(self._path)
        loaded = load_engine(config, self.report)
        if loaded.info.task != "generate":
            return Parts(loaded, None)
        engine = cast("Engine", loaded)
        try:
            return self._parts_of(engine, located)
        except BaseException:
            engine.close()  # Nothing else gives the weights back.
            raise

    def _parts_of(self, engine: Engine, located: Located) -> Parts:
        info = engine.info
        format = chat_format(self.config, info.chat_template, info.bos_token, info.eos_token)
        self.located = replace(located, thinks=bool(format.learned.thought.learned))
        log.info("%s: %s", self.name, format.describe())
        engine.enable_constraints(marker_tokens(format, engine.tokenizer))
        return Parts(engine, format)

    def begin(self) -> None:
        """The model is about to be loaded."""
        self.load_state, self.failure = LoadState.LOADING, None
        self.report("waiting", 0.0)

    def serve(self, parts: Parts) -> None:
        """Starts to answer; call on the event loop."""
        parts.engine.start(asyncio.get_running_loop())
        self._parts = parts
        self.load_state = LoadState.READY

    def fail(self, failure: ModelLoadError) -> None:
        """Loading did not work."""
        self.load_state, self.failure = LoadState.FAILED, failure

    def take_apart(self) -> Parts:
        """Begin to unload: the caller closes the engine, and drops the parts."""
        parts, self._parts = self.parts, None
        self.load_state, self.leaving = LoadState.UNLOADING, False
        return parts

    def unloaded(self) -> None:
        """The memory is back."""
        self.load_state = LoadState.UNLOADED

    def report(self, step: str, fraction: float) -> None:
        """How far loading is; from any thread."""
        self.step, self.progress = step, fraction
