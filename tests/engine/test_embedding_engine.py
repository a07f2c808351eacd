"""The embedding engine over a fake embedder: packing, order, refusals, aborts, failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest
from msgspec.structs import replace

from engine.embedding import EmbeddingRequest, Rows
from engine.embedding_engine import EmbeddingEngine
from engine.embedding_queue import EmbeddingQueue, Job
from engine.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidToken,
    QueueFull,
    RequestError,
    StepFailed,
)
from tests.server.fakes import INFO

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Vocabulary:
    def check(self, token: int) -> None:
        if not 0 <= token < 1000:
            raise InvalidToken(f"{token}")


class FakeEmbedder:
    """The row of an input is (its first token, its length); `gate` holds passes up."""

    width, max_tokens, pack_tokens, max_inputs = 2, 16, 12, 4

    def __init__(self) -> None:
        self.passes: list[list[list[int]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.failures = 0

    def embed(self, inputs: list[list[int]]) -> Rows:
        self.passes.append(inputs)
        self.begun.set()
        assert self.gate.wait(10)
        if self.failures:
            self.failures -= 1
            raise StepFailed("out of luck")
        return np.array([[tokens[0], len(tokens)] for tokens in inputs], np.float32)

    def set_threads(self, threads: int) -> None:
        raise AssertionError("there is no governor")


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
async def engine(embedder: FakeEmbedder) -> AsyncIterator[EmbeddingEngine]:
    info = replace(INFO, context=16, parallel=1, task="embed")
    engine = EmbeddingEngine(embedder, info, Vocabulary(), max_queue=2)  # type: ignore[arg-type]
    engine.start(asyncio.get_running_loop())
    yield engine
    embedder.gate.set()
    await asyncio.to_thread(engine.close)


def request(id: str, *inputs: list[int]) -> EmbeddingRequest:
    return EmbeddingRequest(id=id, inputs=inputs)


async def held(engine: EmbeddingEngine, embedder: FakeEmbedder) -> asyncio.Task[object]:
    """A request whose pass is under way until the gate opens."""
    embedder.gate.clear()
    task = asyncio.create_task(engine.embed(request("first", [1])))
    await asyncio.to_thread(embedder.begun.wait, 10)
    return task


async def test_rows_come_in_the_order_of_the_inputs(engine: EmbeddingEngine) -> None:
    inputs = [[number] * (1 + number % 7) for number in range(20)]
    result = await engine.embed(request("a", *inputs))
    assert result.rows.tolist() == [[tokens[0], len(tokens)] for tokens in inputs]
    assert result.queued >= 0 and result.computed > 0


async def test_many_requests_share_a_pass(engine: EmbeddingEngine, embedder: FakeEmbedder) -> None:
    first = await held(engine, embedder)
    many = asyncio.create_task(engine.embed(request("many", *[[n] for n in range(10, 18)])))
    one = asyncio.create_task(engine.embed(request("one", [50, 51])))
    await asyncio.sleep(0)
    embedder.gate.set()
    await asyncio.gather(first, many, one)
    assert embedder.passes[1] == [[10], [50, 51], [11], [12]]
    assert (await one).rows.tolist() == [[50, 2]]


async def test_refusals(engine: EmbeddingEngine) -> None:
    for refused, error in (
        (request("a"), RequestError),
        (request("a", [1], []), RequestError),
        (request("a", [1] * 17), ContextLengthExceeded),
        (request("a", [1], [1000]), InvalidToken),
        (request("a", [-1]), InvalidToken),
    ):
        with pytest.raises(error):
            await engine.embed(refused)
    assert engine.stats().running == engine.stats().waiting == 0


async def test_the_queue_has_a_bound(engine: EmbeddingEngine, embedder: FakeEmbedder) -> None:
    first = await held(engine, embedder)
    tasks = [asyncio.create_task(engine.embed(request(str(n), [n]))) for n in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await engine.embed(request("one too many", [1]))
    assert (engine.stats().running, engine.stats().waiting) == (1, 2)
    embedder.gate.set()
    await asyncio.gather(first, *tasks)


async def test_what_is_aborted_is_not_computed(
    engine: EmbeddingEngine, embedder: FakeEmbedder
) -> None:
    first = await held(engine, embedder)
    gone = asyncio.create_task(engine.embed(request("gone", *[[66]] * 50)))
    stays = asyncio.create_task(engine.embed(request("stays", [7])))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    embedder.gate.set()
    assert (await stays).rows.tolist() == [[7, 1]]
    await first
    assert gone.cancelled()
    assert [66] not in [tokens for inputs in embedder.passes for tokens in inputs]


async def test_a_failed_pass_fails_its_requests_only(
    engine: EmbeddingEngine, embedder: FakeEmbedder
) -> None:
    embedder.failures = 1
    with pytest.raises(StepFailed, match="out of luck"):
        await engine.embed(request("a", [1]))
    assert (await engine.embed(request("b", [2]))).rows.tolist() == [[2, 1]]
    embedder.failures = 3
    for _ in range(3):
        with pytest.raises(StepFailed):
            await engine.embed(request("c", [1]))
    with pytest.raises(EngineUnavailable, match="failed"):
        await engine.embed(request("d", [1]))


async def test_draining_finishes_and_refuses(
    engine: EmbeddingEngine, embedder: FakeEmbedder
) -> None:
    first = await held(engine, embedder)
    draining = asyncio.create_task(engine.drain(10))
    await asyncio.sleep(0)
    with pytest.raises(EngineUnavailable, match="draining"):
        await engine.embed(request("late", [1]))
    embedder.gate.set()
    await draining
    assert (await first) is not None


async def test_closing_answers_whoever_waits(
    engine: EmbeddingEngine, embedder: FakeEmbedder
) -> None:
    first = await held(engine, embedder)
    waiting = asyncio.create_task(engine.embed(request("waiting", [2])))
    await asyncio.sleep(0)
    engine.state = "stopped"
    embedder.gate.set()
    await asyncio.to_thread(engine.close)
    await first
    with pytest.raises(EngineUnavailable):
        await waiting


def lengths(queue: EmbeddingQueue) -> list[tuple[str, int]]:
    return [(place.job.request.id, place.number) for place in queue.next_pack()]


def test_what_does_not_fit_is_first_in_the_next_pass() -> None:
    queue = EmbeddingQueue(pack_tokens=10, max_inputs=8)
    queue.add(Job(request("short", *[[1]] * 30), 0))
    queue.add(Job(request("long", [1] * 15, [1] * 9), 0))
    assert lengths(queue) == [("short", number) for number in range(8)]
    assert lengths(queue) == [("long", 0)]
    assert lengths(queue)[:2] == [("short", 8), ("long", 1)]
    queue.remove("short")
    assert len(queue) == 0 and queue.next_pack() == []
