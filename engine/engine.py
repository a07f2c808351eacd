"""The engine's front: an inbox, one thread, and a way back to the event loop.

Requests come in through the inbox and events go out through one `call_soon_threadsafe` a step.
No lock is held while the model computes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from engine.constraint import ConstraintCompiler
from engine.core import EngineCore, Outgoing
from engine.counters import CacheCounters, Counters
from engine.disk_cache import DiskCache
from engine.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineUnavailable,
    InvalidGrammar,
    QueueFull,
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

if TYPE_CHECKING:
    from engine.probe import ProbeResult

log = logging.getLogger("ingle.engine")

State = Literal["ready", "draining", "failed", "stopped"]

_FAILURES_BEFORE_GIVING_UP = 3


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


class EngineStats(Struct, frozen=True):
    """A glance at the load."""

    running: int
    waiting: int
    slots: int


class Engine:
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
        self.info = info
        self.tokenizer = tokenizer
        self.state: State = "ready"
        self.failure: str | None = None
        self.settings: ModelSettings | None = None
        self.probed: ProbeResult | None = None
        """What it was loaded with, and why; whoever loaded it says so."""
        self._constraints: ConstraintCompiler | None = None
        self._core = core
        self._max_in_flight = info.parallel + max_queue
        self._max_queue = max_queue
        self._release = release
        self._inbox: deque[RequestState | str] = deque()
        """New requests, and the ids of those to abort."""
        self._wake = threading.Event()
        self._streams: dict[str, Stream] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @classmethod
    def load(
        cls, settings: ModelSettings, on_progress: Callable[[float], None] | None = None
    ) -> Engine:
        """Load the model, blocking; raises ModelLoadError. `on_progress` gets 0.0 to 1.0."""
        model = Model(settings, on_progress)
        return cls.over(model, LlamaRunner(model))

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

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread; events arrive on `loop`."""
        self._loop = loop
        self._thread.start()

    def submit(self, request: Request) -> Stream:
        """Put `request` in line; on the loop.

        Raises EngineUnavailable, QueueFull, ContextLengthExceeded, InvalidToken, InvalidGrammar,
        InvalidLora or RequestError.
        """
        if self.state != "ready":
            raise EngineUnavailable(self.state, self.failure or "")
        if len(self._streams) >= self._max_in_flight:
            raise QueueFull(self._max_queue, retry_after=1)
        self._check(request)
        constraint, lora = self._constraint(request), self._lora_set(request)
        stream = Stream(lambda: self._cancel(request.id))
        self._streams[request.id] = stream
        self._idle.clear()
        self._post(RequestState(request, time.monotonic(), constraint, lora))
        return stream

    def _check(self, request: Request) -> None:
        """Everything that native code would not survive is refused here."""
        if request.id in self._streams:
            raise RequestError(f"a request with the id {request.id} is running")
        if not request.prompt:
            raise RequestError("the prompt has no tokens")
        if len(request.prompt) >= self.info.context:
            raise ContextLengthExceeded(len(request.prompt), self.info.context)
        for ids in filter(None, (request.prompt, request.sampling.logit_bias)):
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
        self._constraints = ConstraintCompiler(self.tokenizer, text_tokens)

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
        if stream := self._streams.get(request_id):
            stream.cancel()

    def _cancel(self, request_id: str) -> None:
        self._forget(request_id)
        self._post(request_id)

    def _forget(self, request_id: str) -> None:
        self._streams.pop(request_id, None)
        if not self._streams:
            self._idle.set()

    def stats(self) -> EngineStats:
        """Counts of this moment."""
        running = len(self._core.scheduler.running)
        return EngineStats(running, max(0, len(self._streams) - running), self.info.parallel)

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

    async def drain(self, timeout: float) -> None:
        """Refuse new requests and wait, at most `timeout` seconds, for the running ones."""
        if self.state == "ready":
            self.state = "draining"
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except TimeoutError:
            log.warning("%d requests did not end within %.0f s", len(self._streams), timeout)

    def close(self) -> None:
        """Stop after the current step, fail what is left and free the model; blocks until then."""
        if self.state != "failed":
            self.state = "stopped"
        self._wake.set()
        if self._thread.ident is None:
            self._release()  # loaded, but never started
        else:
            self._thread.join()
        stopped = RequestFailed(EngineUnavailable("stopped"))
        self._hand_over([(request_id, stopped) for request_id in list(self._streams)])

    # Everything below runs on the engine's thread, but for `_post` and `_deliver`.

    def _post(self, message: RequestState | str) -> None:
        self._inbox.append(message)
        self._wake.set()

    def _run(self) -> None:
        failures = 0
        while self.state in ("ready", "draining"):
            try:
                self._read_inbox()
                if not self._core.scheduler.has_work:
                    self._wake.wait()
                    self._wake.clear()
                    continue
                self._send(self._core.step())
                failures = 0
            # Whatever a step raises is this thread's to survive: requests fail, the engine goes on.
            except Exception as error:  # noqa: BLE001
                failures += 1
                self._recover(error, failures)
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

    def _recover(self, error: Exception, failures: int) -> None:
        log.exception("a step failed; its requests are lost")
        failure = StepFailed(str(error) or type(error).__name__)
        lost = list(self._core.states.values())
        if failures >= _FAILURES_BEFORE_GIVING_UP:
            self.failure, self.state = str(failure), "failed"
        try:
            self._core.fail_all()
        except EngineError as second:
            self.failure, self.state = str(second), "failed"
        self._send([(state, RequestFailed(failure)) for state in lost])

    def _send(self, outgoing: Outgoing) -> None:
        self._hand_over([(state.request.id, event) for state, event in outgoing])

    def _hand_over(self, events: list[tuple[str, Event]]) -> None:
        if events and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, events)

    def _deliver(self, events: list[tuple[str, Event]]) -> None:
        for request_id, event in events:
            stream = self._streams.get(request_id)
            if stream is None:
                continue
            stream.put(event)
            if stream.ended:
                self._forget(request_id)
