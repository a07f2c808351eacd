"""The engine of embedding and reranking models: an inbox, one thread, inputs of many in a pass."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.embedding import Embedder, EmbeddingRequest, Embeddings
from engine.embedding_queue import EmbeddingQueue, Job, Place
from engine.engine import EngineStats, State
from engine.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineUnavailable,
    QueueFull,
    RequestError,
    StepFailed,
)
from engine.llama.embedder import EmbeddingModel, LlamaEmbedder
from engine.llama.model import usable_cores
from engine.llama.tokenizer import Tokenizer
from engine.neighbours import ThreadGovernor
from engine.settings import ModelInfo, ModelSettings

if TYPE_CHECKING:
    from engine.probe import ProbeResult

log = logging.getLogger("ingle.engine")

Outcome = Embeddings | EngineError

_FAILURES_BEFORE_GIVING_UP = 3


class EmbeddingEngine:
    """Packs inputs over one model. `embed` belongs to one event loop."""

    def __init__(
        self,
        embedder: Embedder,
        info: ModelInfo,
        tokenizer: Tokenizer,
        *,
        max_queue: int,
        governor: ThreadGovernor | None = None,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        """`release` frees what is behind the embedder, on the engine's thread, at the end."""
        self.info = info
        self.tokenizer = tokenizer
        self.state: State = "ready"
        self.failure: str | None = None
        self.settings: ModelSettings | None = None
        self.probed: ProbeResult | None = None
        """What it was loaded with, and why; whoever loaded it says so."""
        self._embedder = embedder
        self._governor = governor
        self._release = release
        self._max_queue = max_queue
        self._max_in_flight = info.parallel + max_queue
        self._queue = EmbeddingQueue(embedder.pack_tokens, embedder.max_inputs)
        self._running = 0
        self._inbox: deque[Job | str] = deque()
        """New requests, and the ids of those to abort."""
        self._wake = threading.Event()
        self._waiting: dict[str, asyncio.Future[Embeddings]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="embedding", daemon=True)

    @classmethod
    def load(
        cls, settings: ModelSettings, on_progress: Callable[[float], None] | None = None
    ) -> EmbeddingEngine:
        """Load the model, blocking; raises ModelLoadError. `on_progress` gets 0.0 to 1.0."""
        model = EmbeddingModel(settings, on_progress)
        threads = model.settings.threads
        assert threads
        engine = cls(
            LlamaEmbedder(model),
            model.info,
            model.tokenizer,
            max_queue=settings.max_queue,
            governor=ThreadGovernor(threads, usable_cores()),
            release=model.close,
        )
        engine.settings = model.settings
        return engine

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread; results arrive on `loop`."""
        self._loop = loop
        self._thread.start()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """The rows of `request`; cancelling this aborts it.

        Raises EngineUnavailable, QueueFull, ContextLengthExceeded, InvalidToken, RequestError or
        StepFailed.
        """
        if self.state != "ready":
            raise EngineUnavailable(self.state, self.failure or "")
        if len(self._waiting) >= self._max_in_flight:
            raise QueueFull(self._max_queue, retry_after=1)
        self._check(request)
        future: asyncio.Future[Embeddings] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = future
        self._idle.clear()
        self._post(Job(request, time.monotonic()))
        try:
            return await future
        finally:
            self._forget(request.id)
            if future.cancelled():
                self._post(request.id)

    def _check(self, request: EmbeddingRequest) -> None:
        """Everything that native code would not survive is refused here."""
        if request.id in self._waiting:
            raise RequestError(f"a request with the id {request.id} is running")
        if not request.inputs or not all(request.inputs):
            raise RequestError("an input has no tokens")
        longest = max(map(len, request.inputs))
        if longest > self.info.context:
            raise ContextLengthExceeded(longest, self.info.context)
        for tokens in request.inputs:
            self.tokenizer.check(min(tokens))
            self.tokenizer.check(max(tokens))

    def stats(self) -> EngineStats:
        """Counts of this moment."""
        running = min(self._running, len(self._waiting))
        return EngineStats(running, len(self._waiting) - running, self.info.parallel)

    async def drain(self, timeout: float) -> None:
        """Refuse new requests and wait, at most `timeout` seconds, for the running ones."""
        if self.state == "ready":
            self.state = "draining"
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except TimeoutError:
            log.warning("%d requests did not end within %.0f s", len(self._waiting), timeout)

    def close(self) -> None:
        """Stop after the current pass, fail what is left and free the model; blocks until then."""
        if self.state != "failed":
            self.state = "stopped"
        self._wake.set()
        if self._thread.ident is None:
            self._release()  # loaded, but never started
        else:
            self._thread.join()
        stopped = EngineUnavailable("stopped")
        self._hand_over([(request_id, stopped) for request_id in self._waiting])

    def _forget(self, request_id: str) -> None:
        self._waiting.pop(request_id, None)
        if not self._waiting:
            self._idle.set()

    # Everything below runs on the engine's thread, but for `_post` and `_deliver`.

    def _post(self, message: Job | str) -> None:
        self._inbox.append(message)
        self._wake.set()

    def _run(self) -> None:
        failures = 0
        while self.state in ("ready", "draining"):
            self._read_inbox()
            pack = self._queue.next_pack()
            self._running = len({place.job.request.id for place in pack})
            if not pack:
                self._wake.wait()
                self._wake.clear()
                continue
            try:
                self._compute(pack)
                failures = 0
            # Whatever a pass raises is this thread's to survive: requests fail, the engine goes on.
            except Exception as error:  # noqa: BLE001
                failures += 1
                self._recover(pack, error, failures)
        self._fail_rest()
        self._release()

    def _read_inbox(self) -> None:
        while self._inbox:
            message = self._inbox.popleft()
            if isinstance(message, str):
                self._queue.remove(message)
            else:
                self._queue.add(message)

    def _compute(self, pack: list[Place]) -> None:
        if self._governor is not None and self._governor.look():
            self._embedder.set_threads(self._governor.threads)
        began = time.monotonic()
        for place in pack:
            place.job.started = place.job.started or began
        rows = self._embedder.embed([place.tokens for place in pack])
        ended = time.monotonic()
        for place, row in zip(pack, rows, strict=True):
            place.job.put(place.number, row)
        jobs = {place.job.request.id: place.job for place in pack}
        self._hand_over([(id, _result(job, ended)) for id, job in jobs.items() if job.done])

    def _recover(self, pack: list[Place], error: Exception, failures: int) -> None:
        log.exception("a pass failed; its requests are lost")
        failure = StepFailed(str(error) or type(error).__name__)
        if failures >= _FAILURES_BEFORE_GIVING_UP:
            self.failure, self.state = str(failure), "failed"
        lost = {place.job.request.id for place in pack}
        for request_id in lost:
            self._queue.remove(request_id)
        self._hand_over([(request_id, failure) for request_id in lost])

    def _fail_rest(self) -> None:
        """Nobody will compute it: answer what is in line and what came while the thread ended."""
        self._read_inbox()
        error = EngineUnavailable(self.state, self.failure or "")
        self._hand_over([(job.request.id, error) for job in self._queue.clear()])

    def _hand_over(self, outcomes: list[tuple[str, Outcome]]) -> None:
        if outcomes and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, outcomes)

    def _deliver(self, outcomes: list[tuple[str, Outcome]]) -> None:
        for request_id, outcome in outcomes:
            future = self._waiting.get(request_id)
            if future is None or future.done():
                continue
            if isinstance(outcome, Embeddings):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)


def _result(job: Job, ended: float) -> Embeddings:
    started = job.started or ended
    return Embeddings(job.rows, started - job.submitted, ended - started)
