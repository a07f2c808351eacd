"""The engine's front: an inbox, one thread, and a way back to the event loop.

Requests come in through the inbox and events go out through one `call_soon_threadsafe` a step.
No lock is held while the model computes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable

from engine.constraint import ConstraintCompiler
from engine.core import EngineCore, Outgoing
from engine.counters import CacheCounters, Counters
from engine.disk_cache import DiskCache
from engine.engine_thread import FAILURES_BEFORE_GIVING_UP, EngineStats, EngineThread
from engine.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineUnavailable,
    InvalidGrammar,
    RequestError,
    StepFailed,
)
from engine.exact import CHUNK
from engine.kv_cache import KVCache
from engine.llama.model import Model, usable_cores
from engine.llama.runner import LlamaRunner
from engine.llama.tokenizer import Tokenizer
from engine.lora import LoraSet, lora_set
from engine.neighbours import ThreadGovernor
from engine.request import Event, Grammar, Request, RequestFailed
from engine.scheduler import MIN_ROWS
from engine.sequence import Constraint, RequestState
from engine.settings import ModelInfo, ModelSettings
from engine.snapshot import Snapshot
from engine.stream import Stream

log = logging.getLogger("ingle.engine")

_ROW_GROUP = 4
"""Rows that the kernels of repacked weights compute together."""
_FLASH_TILE = 64
"""Rows from which flash attention on the CPU takes its tiled path."""


def _kv_cache(settings: ModelSettings, info: ModelInfo) -> KVCache:
    """A cache whose prompts get the bits they would get without it.

    Fewer rows than 8, with flash attention than 64, and rows beyond a multiple of 4 take other
    kernels; measured on SmolLM2 and Gemma 3, that moves logits by up to 1.7.
    """
    exact = settings.deterministic
    min_computed = MIN_ROWS if settings.flash_attention is False else _FLASH_TILE
    return KVCache(
        settings.parallel,
        can_trim=info.can_trim,
        window=info.window,
        align=CHUNK if exact else _ROW_GROUP,
        min_computed=1 if exact else min_computed,
        retain=not settings.kv_unified,
        # A copy that keeps a window only comes back to other cells, summed in another order.
        budget=0 if exact and info.window else settings.prefix_cache_mib << 20,
        bytes_per_token=info.kv_bytes // (info.context * info.parallel),
        disk=_disk_cache(settings, info),
    )


def _disk_cache(settings: ModelSettings, info: ModelInfo) -> DiskCache | None:
    if settings.prefix_cache_dir is None:
        return None
    return DiskCache(
        settings.prefix_cache_dir,
        fingerprint=info.fingerprint,
        budget=settings.prefix_cache_disk_mib << 20,
        most_tokens=info.context,
    )


class Engine(EngineThread[RequestState, Stream, Event]):
    """Continuous batching over one model. `submit` and `Stream` belong to one event loop."""

    def __init__(
        self,
        core: EngineCore,
        info: ModelInfo,
        tokenizer: Tokenizer,
        *,
        max_queue: int,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """`release` frees what is behind the core, on the engine's thread, after the last step."""
        super().__init__("engine", info, max_queue=max_queue, release=release)
        self.tokenizer = tokenizer
        self._constraints: ConstraintCompiler | None = None
        self._core = core
        self._outgoing: Outgoing = []
        """Of the last step, not handed over yet."""

    @classmethod
    def load(
        cls, settings: ModelSettings, on_progress: Callable[[float], None] | None = None
    ) -> Engine:
        """Load the model, blocking; raises ModelLoadError. `on_progress` gets 0.0 to 1.0."""
        model = Model(settings, on_progress)
        try:
            return cls.over(model, LlamaRunner(model))
        except BaseException:
            model.close()  # Nothing else gives the weights back.
            raise

    @classmethod
    def over(cls, model: Model, runner: LlamaRunner) -> Engine:
        """An engine that owns `model` and drives it through `runner`."""
        settings = model.settings
        assert settings.context and settings.ubatch_size and settings.threads
        exact = settings.deterministic
        core = EngineCore(
            runner,
            model.tokenizer,
            context=settings.context,
            kv_cache=_kv_cache(settings, model.info),
            batch_size=min(settings.batch_size, settings.context * settings.parallel),
            ubatch_size=settings.ubatch_size,
            max_stall=settings.max_stall,
            governor=None if exact else ThreadGovernor(settings.threads, usable_cores()),
            deterministic=exact,
        )
        engine = cls(
            core,
            model.info,
            model.tokenizer,
            max_queue=settings.max_queue,
            release=model.close,
        )
        engine.settings = settings
        return engine

    def submit(self, request: Request) -> Stream:
        """Put `request` in line; on the loop.

        Raises EngineUnavailable, QueueFull, ContextLengthExceeded, InvalidToken, InvalidGrammar,
        InvalidLora or RequestError.
        """
        self._check_open()
        self._check(request)
        constraint, lora = self._constraint(request), self._lora_set(request)
        stream = Stream(lambda: self._cancel(request.id))
        state = RequestState(request, time.monotonic(), constraint, lora)
        self._enter(request.id, stream, state)
        return stream

    def _check(self, request: Request) -> None:
        """Everything that native code would not survive is refused here."""
        if request.id in self._waiters:
            raise RequestError(f"a request with the id {request.id} is running")
        if not request.prompt:
            raise RequestError("the prompt has no tokens")
        if len(request.prompt) >= self.info.context:
            raise ContextLengthExceeded(len(request.prompt), self.info.context)
        for ids in filter(None, (request.prompt, request.sampling.logit_bias, request.prediction)):
            self.tokenizer.check(min(ids))
            self.tokenizer.check(max(ids))
        if request.n < 1 or request.max_tokens < 0:
            raise RequestError("n must be at least 1 and max_tokens at least 0")

    def _lora_set(self, request: Request) -> LoraSet:
        wanted = self.info.lora if request.lora is None else request.lora
        return lora_set(wanted, (each.name for each in self.info.lora)) if wanted else ()

    def _constraint(self, request: Request) -> Constraint | None:
        if request.grammar is None:
            return None
        return self.compile_grammar(request.grammar)

    def enable_constraints(self, text_tokens: frozenset[int] = frozenset()) -> None:
        """Prepare for grammars, in a thread of its own. The control tokens in `text_tokens` count
        as the text that they are spelled like: a format's markers, which grammars write out."""
        self._constraints = ConstraintCompiler(self.tokenizer, text_tokens, self.vocabulary_file)

    def close(self) -> None:
        super().close()
        if self._constraints is not None:
            self._constraints.close()

    def compile_grammar(self, grammar: Grammar) -> Constraint:
        """A matcher at the start of `grammar`, remembered by its text; from any thread.

        A new grammar takes some milliseconds: call this before `submit`, off the loop. Raises
        InvalidGrammar.
        """
        if self._constraints is None:
            raise InvalidGrammar("this engine has no matcher for grammars")
        return self._constraints.compile(grammar)

    async def generate(self, request: Request) -> AsyncIterator[Event]:
        """The events of `request`; leaving the iterator early aborts it."""
        stream = self.submit(request)
        try:
            async for event in stream:
                yield event
        finally:
            stream.cancel()

    def abort(self, request_id: str) -> None:
        """Cancel the stream of a request, if there still is one; on the loop."""
        if stream := self._waiters.get(request_id):
            stream.cancel()

    def _cancel(self, request_id: str) -> None:
        self._forget(request_id)
        self._post(request_id)

    def stats(self) -> EngineStats:
        """Counts of this moment."""
        running = len(self._core.scheduler.running)
        return EngineStats(running, max(0, len(self._waiters) - running), self.info.parallel)

    def snapshot(self) -> Snapshot:
        """What the engine is doing."""
        return self._core.snapshot(self.stats().waiting, self.info.parallel)

    @property
    def counters(self) -> Counters:
        """What it has done since it was loaded."""
        return self._core.counters

    @property
    def cache_counters(self) -> CacheCounters:
        """What prompts found of themselves."""
        return self._core.cache_counters

    # Everything below runs on the engine's thread, but for `_deliver`.

    def _run(self) -> None:
        failures = 0
        while self.state in ("ready", "draining"):
            try:
                self._read_inbox()
                if not self._core.scheduler.has_work:
                    self._flush()
                    self._core.rested(self._wait())
                    continue
                self._outgoing = self._core.step(self._flush)
                failures = 0
            # Whatever a step raises is this thread's to survive: requests fail, the engine goes on.
            except Exception as error:  # noqa: BLE001
                failures += 1
                self._recover(error, failures)
        self._flush()
        self._fail_inbox()
        if self.state != "failed":
            self._close_core()
        self._release()

    def _close_core(self) -> None:
        try:
            self._core.close()
        # The model is to be freed, whatever became of the cache.
        except Exception:
            log.exception("the prefix cache could not be written")

    def _fail_inbox(self) -> None:
        """Nobody will read it again: answer what was submitted while the thread ended."""
        error = EngineUnavailable(self.state, self.failure or "")
        left = [message for message in self._inbox if isinstance(message, RequestState)]
        self._send([(state, RequestFailed(error)) for state in left])

    def _read_inbox(self) -> None:
        while self._inbox:
            message = self._inbox.popleft()
            if isinstance(message, str):
                self._core.abort(message)
            else:
                self._core.add(message)

    def _flush(self) -> None:
        """Called when the next step's batch is full: the loop's thread, once awake, needs the
        interpreter lock, which this one gives up just then and would not before."""
        outgoing, self._outgoing = self._outgoing, []
        self._send(outgoing)

    def _recover(self, error: Exception, failures: int) -> None:
        self._flush()
        log.exception("a step failed; its requests are lost")
        failure = StepFailed(str(error) or type(error).__name__)
        lost = list(self._core.states.values())
        if failures >= FAILURES_BEFORE_GIVING_UP:
            self.failure, self.state = str(failure), "failed"
        try:
            self._core.fail_all()
        # Or nobody would be told, and the next request would wait for a thread that is gone.
        except Exception as second:
            log.exception("nor can the engine go on")
            self.failure, self.state = str(second) or type(second).__name__, "failed"
        self._send([(state, RequestFailed(failure)) for state in lost])

    def _send(self, outgoing: Outgoing) -> None:
        self._hand_over([(state.request.id, event) for state, event in outgoing])

    def _failed(self, error: EngineError) -> Event:
        return RequestFailed(error)

    def _deliver(self, events: list[tuple[str, Event]]) -> None:
        for request_id, event in events:
            stream = self._waiters.get(request_id)
            if stream is None:
                continue
            stream.put(event)
            if stream.ended:
                self._forget(request_id)
