"""Models come and go: room for a few at a time, leases, idle time, another configuration."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.errors import EngineUnavailable, InvalidModelFile, OutOfMemory, QueueFull
from engine.settings import ModelSettings
from server.config import ModelConfig
from server.models import Located, Models, ServedModel
from tests.server.fakes import FakeEngine

pytestmark = pytest.mark.anyio


def config(name: str, **fields: object) -> ModelConfig:
    return ModelConfig(
        name=name,
        settings=ModelSettings(path=Path(f"{name}.gguf"), parallel=2, max_queue=1),
        **fields,  # type: ignore[arg-type]
    )


class House:
    """Models of size 1 each, and every engine that was ever loaded, in order."""

    def __init__(self, *configs: ModelConfig, budget: int | None = None, need: int = 1) -> None:
        self.engines: list[tuple[str, FakeEngine]] = []
        self.error: Exception | None = None
        self.proceed = threading.Event()
        self.proceed.set()
        self.most_at_once = 0
        self.models = Models(
            configs,
            self._load,  # type: ignore[arg-type]
            locate=lambda config, report: Located(config, weights=need),
            budget=budget,
        )
        self.keeper = self.models.keeper

    def _load(self, config: ModelConfig, report: Callable[[str, float], None]) -> FakeEngine:
        assert self.proceed.wait(10)
        if self.error is not None:
            raise self.error
        engine = FakeEngine()
        self.engines.append((config.name, engine))
        self.most_at_once = max(self.most_at_once, len(self.alive()))
        return engine

    def __getitem__(self, name: str) -> ServedModel:
        return self.models.get(name)

    def alive(self) -> list[str]:
        return [name for name, engine in self.engines if not engine.closed]

    async def use(self, name: str) -> None:
        await self.keeper.acquire(self[name])
        self.keeper.release(self[name])

    def begin(self, name: str) -> asyncio.Task[None]:
        return asyncio.create_task(self.keeper.acquire(self[name]))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    async def end(self) -> None:
        self.proceed.set()
        await self.until(lambda: not self.keeper.loading)
        await self.models.close()
        assert self.alive() == []


@pytest.fixture
async def house() -> AsyncIterator[Callable[..., House]]:
    made: list[House] = []

    def make(*configs: ModelConfig, **kwargs: int) -> House:
        made.append(House(*configs, **kwargs))
        return made[-1]

    yield make
    for each in made:
        await each.end()


Make = Callable[..., House]


async def test_the_longest_unused_leaves(house: Make) -> None:
    it = house(config("a"), config("b"), config("c"), budget=2)
    for name in ("a", "b", "a", "c"):
        await it.use(name)
    await it.until(lambda: it["b"].state == "unloaded")
    assert it.alive() == ["a", "c"]
    assert it.most_at_once == 2


async def test_who_is_kept_for_ever_leaves_last(house: Make) -> None:
    forever = config("a", keep_alive=math.inf)
    it = house(forever, config("b"), config("c"), budget=2)
    for name in ("a", "b", "c"):
        await it.use(name)
    assert it.alive() == ["a", "c"]


async def test_who_is_in_use_stays_and_takes_nobody_new_while_another_waits(house: Make) -> None:
    it = house(config("a"), config("b"), budget=1)
    await it.keeper.acquire(it["a"])
    other = it.begin("b")
    await it.until(lambda: it["b"].step == "waiting for memory")
    late = it.begin("a")
    await asyncio.sleep(0)
    assert not late.done()
    assert it.alive() == ["a"]
    it.keeper.release(it["a"])
    await other
    assert it.alive() == ["b"]
    it.keeper.release(it["b"])
    await late
    assert it.alive() == ["a"]
    it.keeper.release(it["a"])
    assert it.most_at_once == 1


async def test_two_under_constant_load_take_turns(house: Make) -> None:
    it = house(config("a"), config("b"), budget=1)
    served: list[str] = []

    async def user(name: str) -> None:
        for _ in range(20):
            await it.keeper.acquire(it[name])
            await asyncio.sleep(0)
            served.append(name)
            it.keeper.release(it[name])

    async with asyncio.timeout(30):
        await asyncio.gather(*(user(name) for name in ("a", "b", "a")))
    assert served.count("a") == 40
    assert served.count("b") == 20
    assert it.most_at_once == 1


async def test_room_found_elsewhere_lets_the_chosen_one_stay(house: Make) -> None:
    it = house(config("a"), config("b"), config("c"), budget=2)
    await it.keeper.acquire(it["a"])
    await it.keeper.acquire(it["b"])
    other = it.begin("c")
    await it.until(lambda: it["b"].leaving)
    late = it.begin("b")
    it.keeper.release(it["a"])
    await other
    await late
    assert [name for name, _ in it.engines] == ["a", "b", "c"]
    for name in ("b", "b", "c"):
        it.keeper.release(it[name])


async def test_what_never_fits_is_refused_before_it_is_loaded(house: Make) -> None:
    it = house(config("a"), budget=1, need=2)
    with pytest.raises(OutOfMemory, match="memory_budget"):
        await it.use("a")
    assert it.engines == []
    assert it.keeper.residency.used == 0


async def test_failure_gives_the_room_to_the_next(house: Make) -> None:
    it = house(config("a"), config("b"), budget=1)
    it.error = InvalidModelFile("no")
    it.proceed.clear()
    first, second = it.begin("a"), it.begin("b")
    await it.until(lambda: it["a"].step == "loading")
    it.proceed.set()
    with pytest.raises(InvalidModelFile):
        await first
    with pytest.raises(InvalidModelFile):
        await second
    assert it.keeper.residency.used == 0


async def test_whoever_leaves_the_line_leaves_no_lease_behind(house: Make) -> None:
    it = house(config("a"), config("b"), budget=1)
    it.proceed.clear()
    tasks = [it.begin("a"), it.begin("a")]
    await it.until(lambda: it["a"].step == "loading")
    tasks[0].cancel()
    it.proceed.set()
    await tasks[1]
    assert it["a"].users == 1
    it.keeper.release(it["a"])
    await it.use("b")
    assert it.alive() == ["b"]


async def test_lease_that_is_granted_to_someone_who_just_left_is_given_back(house: Make) -> None:
    it = house(config("a"))
    task = it.begin("a")
    await asyncio.sleep(0)
    it.keeper._grant(it["a"])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert it["a"].users == 0


async def test_only_so_many_wait(house: Make) -> None:
    it = house(config("a"))
    it.proceed.clear()
    tasks = [it.begin("a") for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await it.keeper.acquire(it["a"])
    it.proceed.set()
    await asyncio.gather(*tasks)
    for _ in tasks:
        it.keeper.release(it["a"])


async def test_unused_for_so_long_is_unloaded(house: Make) -> None:
    it = house(config("a", keep_alive=0.05))
    await it.use("a")
    assert it.alive() == ["a"]
    await it.until(lambda: it["a"].state == "unloaded")
    assert it.alive() == []
    await it.use("a")
    assert it.alive() == ["a"]


async def test_lease_stops_the_clock(house: Make) -> None:
    it = house(config("a", keep_alive=0.05))
    await it.use("a")
    await it.keeper.acquire(it["a"])
    await asyncio.sleep(0.1)
    assert it.alive() == ["a"]
    it.keeper.release(it["a"])
    await it.until(lambda: it["a"].state == "unloaded")


async def test_request_may_say_how_long(house: Make) -> None:
    it = house(config("a"))
    await it.keeper.acquire(it["a"])
    it["a"].stay(0)
    it["a"].stay(None)
    it.keeper.release(it["a"])
    await it.until(lambda: it["a"].state == "unloaded")
    await it.use("a")
    assert it["a"].keep_alive == math.inf


async def test_defaults_of_keep_alive(house: Make) -> None:
    it = house(config("a"), config("b"), config("c", preload=True), config("d", keep_alive=7.0))
    assert [it[name].keep_alive for name in "abcd"] == [math.inf, 300.0, math.inf, 7.0]
    assert [model.name for model in it.models.initial] == ["a", "c"]


async def test_engine_that_failed_is_loaded_anew(house: Make) -> None:
    it = house(config("a"))
    await it.use("a")
    it.engines[0][1].state = "failed"
    await it.use("a")
    assert [engine.closed for _, engine in it.engines] == [True, False]


async def test_nothing_is_taken_at_the_end(house: Make) -> None:
    it = house(config("a"))
    it.proceed.clear()
    task = it.begin("a")
    await it.until(lambda: it["a"].step == "loading")
    assert it.keeper.loading
    await it.models.drain(1)
    with pytest.raises(EngineUnavailable, match="draining"):
        await task
    with pytest.raises(EngineUnavailable, match="draining"):
        await it.keeper.acquire(it["a"])
    it.proceed.set()


# Another configuration


async def test_reload_keeps_what_is_the_same(house: Make) -> None:
    it = house(config("a"), config("b"), config("c"))
    for name in "abc":
        await it.use(name)
    outcome = it.models.reload([config("a"), config("b", aliases=("x",)), config("d")])
    assert (outcome.added, outcome.removed) == (["d"], ["c"])
    assert (outcome.changed, outcome.unchanged) == (["b"], ["a"])
    await it.until(lambda: it.alive() == ["a"])
    await it.use("x")
    await it.use("d")
    assert [name for name, _ in it.engines] == ["a", "b", "c", "b", "d"]


async def test_who_uses_the_old_one_finishes_on_it(house: Make) -> None:
    it = house(config("a"))
    await it.keeper.acquire(old := it["a"])
    it.models.reload([replace(config("a"), keep_alive=9.0)])
    assert it["a"] is not old
    await it.use("a")
    assert it.alive() == ["a", "a"]
    assert old.loaded
    it.keeper.release(old)
    await it.until(lambda: it.alive() == ["a"])
    assert [engine.closed for _, engine in it.engines] == [True, False]


async def test_who_waits_for_the_old_one_gets_it(house: Make) -> None:
    it = house(config("a"), config("b"))
    it.proceed.clear()
    task = it.begin("b")
    await it.until(lambda: it["b"].step == "loading")
    old = it["b"]
    it.models.reload([config("a")])
    it.proceed.set()
    await task
    assert old.users == 1
    it.keeper.release(old)
    await it.until(lambda: "b" not in it.alive())


async def test_another_file_under_the_same_name_is_a_change(house: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"one")
    same = replace(config("a"), settings=ModelSettings(path=path))
    it = house(same)
    await it.use("a")
    assert it.models.reload([same]).unchanged == ["a"]
    path.write_bytes(b"another")
    assert it.models.reload([same]).changed == ["a"]


async def test_failure_is_forgiven_on_reload(house: Make) -> None:
    it = house(config("a"), config("b"))
    it.error = InvalidModelFile("no")
    with pytest.raises(InvalidModelFile):
        await it.use("b")
    it.error = None
    with pytest.raises(InvalidModelFile):
        await it.use("b")
    it.models.reload([config("a"), config("b")])
    await it.use("b")
