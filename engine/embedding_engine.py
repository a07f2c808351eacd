"""The engine of embedding and reranking models: an inbox, one thread, inputs of many in a pass."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from engine.embedding import Embedder, EmbeddingRequest, Embeddings
from engine.embedding_queue import EmbeddingQueue, Job, Place
from engine.engine_thread import FAILURES_BEFORE_GIVING_UP, EngineStats, EngineThread
from engine.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineUnavailable,
    RequestError,
    StepFailed,
)
from engine.llama.embedder import EmbeddingModel, LlamaEmbedder
from engine.llama.model import usable_cores
from engine.llama.tokenizer import Tokenizer
from engine.neighbours import ThreadGovernor
from engine.settings import ModelInfo, ModelSettings

log = logging.getLogger("ingle.engine")

Outcome = Embeddings | EngineError


class EmbeddingEngine(EngineThread[Job, asyncio.Future[Embeddings], Outcome]):
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
        super().__init__("embedding", info, max_queue=max_queue, release=release)
        self.tokenizer = tokenizer
        self._embedder = embedder
        self._governor = governor
        self._queue = EmbeddingQueue(embedder.pack_tokens, embedder.max_inputs)
        self._running = 0

    @classmethod
    def load(
        cls, settings: ModelSettings, on_progress: Callable[[float], None] | None = None
    ) -> EmbeddingEngine:
        """Load the model, blocking; raises ModelLoadError. `on_progress` gets 0.0 to 1.0."""
        model = EmbeddingModel(settings, on_progress)
        threads, exact = model.settings.threads, model.settings.deterministic
        assert threads
        engine = cls(
            LlamaEmbedder(model),
            model.info,
            model.tokenizer,
            max_queue=settings.max_queue,
            # With flash attention the number of threads moves the last bits.
            governor=None if exact else ThreadGovernor(threads, usable_cores()),
            release=model.close,
        )
        engine.settings = model.settings
        return engine

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """The rows of `request`; cancelling this aborts it.

        Raises EngineUnavailable, QueueFull, ContextLengthExceeded, InvalidToken, RequestError or
        StepFailed.
        """
        self._check_open()
        self._check(request)
        future: asyncio.Future[Embeddings] = asyncio.get_running_loop().create_future()
        self._enter(request.id, future, Job(request, time.monotonic()))
        try:
            return await future
        finally:
            self._forget(request.id)
            if future.cancelled():
                self._post(request.id)

    def _check(self, request: EmbeddingRequest) -> None:
        """Everything that native code would not survive is refused here."""
        if request.id in self._waiters:
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
        running = min(self._running, len(self._waiters))
        return EngineStats(running, len(self._waiters) - running, self.info.parallel)

    # Everything below runs on the engine's thread, but for `_deliver`.

    def _run(self) -> None:
        failures = 0
        while self.state in ("ready", "draining"):
            self._read_inbox()
            pack = self._queue.next_pack()
            self._running = len({place.job.request.id for place in pack})
            try:
                if not pack:
                    self._rest()
                    continue
                self._compute(pack)
                failures = 0
            # Whatever a pass raises is this thread's to survive: requests fail, the engine goes on.
            except Exception as error:  # noqa: BLE001
                failures += 1
                self._recover(pack, error, failures)
        self._fail_rest()
        self._release()

    def _rest(self) -> None:
        seconds = self._wait()
        if self._governor is not None:
            self._governor.rested(seconds)

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
        if failures >= FAILURES_BEFORE_GIVING_UP:
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

    def _failed(self, error: EngineError) -> Outcome:
        return error

    def _deliver(self, outcomes: list[tuple[str, Outcome]]) -> None:
        for request_id, outcome in outcomes:
            future = self._waiters.get(request_id)
            if future is None or future.done():
                continue
            if isinstance(outcome, Embeddings):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)


def _result(job: Job, ended: float) -> Embeddings:
    started = job.started or ended
    return Embeddings(job.rows, started - job.submitted, ended - started)
