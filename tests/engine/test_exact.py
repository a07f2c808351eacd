"""Deterministic steps: every token is computed in one shape, whatever the load."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.batch import Batch, Clear, Copy, Logits, Restore, Rows, Save, Span, Trim, nothing
from engine.engine import Engine
from engine.errors import ModelLoadError
from engine.exact import CHUNK, conflict, passes, whole_chunks
from engine.kv_cache import KVCache
from engine.llama.model import Model
from engine.output import OutputText
from engine.request import Request, SamplingParams, TokenOutput
from engine.sequence import RequestState, Sequence
from engine.settings import ModelSettings
from tests.engine.fakes import FakeRunner, Harness, continuation, make_core
from tests.stress_model import gemma

LONG = bool(os.environ.get("INGLE_LONG"))


def test_passes_are_cut_at_multiples_of_the_chunk() -> None:
    tokens = list(range(200))
    cut = list(passes([Span(1, 0, tokens, Rows.LAST), Span(2, 70, [9], Rows.LAST)]))
    assert [(each.slot, each.start, len(each.tokens)) for each in cut] == [
        (1, 0, 64),
        (1, 64, 64),
        (1, 128, 64),
        (1, 192, 8),
        (2, 70, 1),
    ]
    assert [each.n_rows for each in cut] == [0, 0, 0, 1, 1]
    assert [token for each in cut[:4] for token in each.tokens] == tokens
    assert [each.n_rows for each in passes([Span(0, 60, tokens[:8], Rows.ALL)])] == [4, 4]


def test_only_whole_chunks_of_a_prompt_are_for_others() -> None:
    prompt = [1 + i % 60 for i in range(200)]
    state = RequestState(Request(id="a", prompt=prompt, max_tokens=9, n=2), 0.0)
    first, second = (Sequence(state, i, OutputText(lambda _: b"", frozenset())) for i in (0, 1))
    first.tokens += [7] * 100
    for n_computed, length in ((300, 192), (130, 128), (63, 0)):
        first.n_computed = second.n_computed = n_computed
        assert whole_chunks(first).tokens == prompt[:length]
        assert whole_chunks(second).tokens == []


def test_settings_that_cannot_be_deterministic_are_refused(smollm2: Path) -> None:
    exact = ModelSettings(path=smollm2, deterministic=True)
    assert conflict(exact) is None
    assert conflict(replace(exact, deterministic=False, kv_unified=True)) is None
    assert "kv_unified" in (conflict(replace(exact, kv_unified=True)) or "")
    assert "64" in (conflict(replace(exact, ubatch_size=32)) or "")
    with pytest.raises(ModelLoadError, match="kv_unified"):
        Model(replace(exact, kv_unified=True))


class ShapeRunner(FakeRunner):
    """Knows of every token it holds in which pass it was computed: (start, length)."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self.shapes: dict[int, list[tuple[int, int]]] = {slot: [] for slot in range(slots)}
        self.saved_shapes: dict[int, list[tuple[int, int]]] = {}
        self.seen: dict[bytes, list[tuple[int, int]]] = {}
        """What was in a slot when logits were asked → its shapes."""
        self.n_differing = 0

    def run(self, batch: Batch, on_compute: Callable[[], None] = nothing) -> Logits:
        rows = super().run(batch, on_compute)
        for op in batch.ops:
            match op:
                case Clear(slot):
                    self.shapes[slot] = []
                case Trim(slot, length):
                    del self.shapes[slot][length:]
                case Save(slot, handle):
                    self.saved_shapes[handle] = list(self.shapes[slot])
                case Restore(slot, handle):
                    self.shapes[slot] = list(self.saved_shapes[handle])
                case Copy(source, slot):
                    self.shapes[slot] = list(self.shapes[source])
        for each in passes(batch.spans):
            self.shapes[each.slot] += [(each.start, len(each.tokens))] * len(each.tokens)
            if each.n_rows:
                history = bytes(self.memory[each.slot])
                first = self.seen.setdefault(history, list(self.shapes[each.slot]))
                self.n_differing += first != self.shapes[each.slot]
        return rows


def crowd(
    core_settings: dict[str, object], *, deterministic: bool, can_trim: bool = True
) -> ShapeRunner:
    """Many requests that share prefixes, some aborted, on few slots; texts are checked."""
    runner = ShapeRunner(4)
    runner.can_trim = can_trim
    cache = KVCache(
        4, can_trim=can_trim, align=CHUNK if deterministic else 16, budget=900, bytes_per_token=1
    )
    core = make_core(
        runner, context=600, kv_cache=cache, deterministic=deterministic, **core_settings
    )
    harness, rng = Harness(core), random.Random(5)
    stems = [[rng.randrange(1, 64) for _ in range(n)] for n in (90, 150, 260)]
    pool = [rng.choice(stems)[: rng.randrange(261)] + [1] * rng.randrange(1, 70) for _ in range(25)]
    pool[:3] = [stem[: len(stem) // 64 * 64] for stem in stems]
    prompts: dict[str, list[int]] = {}
    for i in range(120):
        prompt = prompts[f"r{i}"] = rng.choice(pool)
        n = rng.choice([1, 1, 3])
        sampling = SamplingParams(temperature=1e-5)
        harness.add(
            Request(
                id=f"r{i}",
                prompt=prompt,
                max_tokens=9,
                sampling=sampling,
                n=n,
                checkpoints=(64, 140),
            )
        )
        if rng.random() < 0.1:
            harness.core.abort(f"r{i}")
        for _ in range(rng.randrange(6)):
            if core.scheduler.has_work:
                harness.step()
    harness.run()
    for name, answer in harness.answers.items():
        for text in answer.texts.values():
            assert continuation(prompts[name], 9).startswith(text)
    assert sum(answer.end is not None for answer in harness.answers.values()) > 80
    return runner


@pytest.mark.parametrize(("batch_size", "can_trim"), [(64, True), (70, True), (256, False)])
def test_the_same_history_was_always_computed_in_the_same_shapes(
    batch_size: int, can_trim: bool
) -> None:
    sizes: dict[str, object] = {"batch_size": batch_size, "ubatch_size": 64}
    runner = crowd(sizes, deterministic=True, can_trim=can_trim)
    assert len(runner.seen) > 100
    assert runner.n_differing == 0
    copied = [
        op
        for batch in runner.batches
        for op in batch.ops
        if isinstance(op, Copy if can_trim else Restore)
    ]
    assert copied, "prefixes were reused"


def test_without_it_shapes_depend_on_the_load() -> None:
    assert crowd({"batch_size": 256, "ubatch_size": 64}, deterministic=False).n_differing > 0


Fingerprint = list[tuple[int, int, str, tuple[tuple[int, float], ...]]]
"""Of each event: choice, tokens, text, and every log probability bit by bit."""


async def fingerprint(engine: Engine, request: Request) -> Fingerprint:
    events = [event async for event in engine.generate(request)]
    return [
        (
            event.index,
            event.n_tokens,
            event.text,
            tuple((each.token, each.logprob) for each in event.logprobs),
        )
        for event in sorted(
            (event for event in events if isinstance(event, TokenOutput)),
            key=lambda event: event.index,
        )
    ]


def requests_for(engine: Engine, count: int, length: int) -> list[Request]:
    """Prompts of all lengths, some of which begin alike; sampling of all kinds, all seeded."""
    rng = random.Random(11)
    text = "The harbour was quiet, and nobody had seen the boat come in. " * 40
    common = engine.tokenizer.encode(text)
    ways = [
        SamplingParams(temperature=1.0, seed=1),
        SamplingParams(temperature=0.7, top_p=0.9, seed=2),
        SamplingParams(temperature=1.5, top_k=50, min_p=0.02, seed=3, presence_penalty=0.5),
    ]
    requests = []
    for index in range(count):
        own = engine.tokenizer.encode(f"Chapter {index} begins with the word")
        prompt = common[: rng.choice([0, 10, 64, 70, 130])] + own
        n = 2 if index % 5 == 0 else 1
        requests.append(
            Request(
                id=f"{index}",
                prompt=prompt,
                max_tokens=rng.randrange(2, length),
                sampling=ways[index % 3],
                logprobs=2,
                n=n,
                ignore_eos=True,
            )
        )
    return requests


async def compare(settings: ModelSettings, count: int, length: int) -> None:
    """All at once on an empty engine; then one by one, with what the first round left in the cache;
    in the long form also one by one on an empty engine."""
    busy = Engine.load(settings)
    busy.start(asyncio.get_running_loop())
    try:
        requests = requests_for(busy, count, length)
        together = await asyncio.gather(*(fingerprint(busy, each) for each in requests))
        for request, expected in zip(requests, together, strict=True):
            assert await fingerprint(busy, replace(request, id="again")) == expected
    finally:
        await asyncio.to_thread(busy.close)
    if not LONG:
        return
    quiet = Engine.load(replace(settings, prefix_cache_mib=0))
    quiet.start(asyncio.get_running_loop())
    try:
        for request, expected in reversed(list(zip(requests, together, strict=True))):
            assert await fingerprint(quiet, request) == expected
    finally:
        await asyncio.to_thread(quiet.close)


@pytest.mark.parametrize("model", ["smollm2", "gemma"] if LONG else ["smollm2"])
@pytest.mark.parametrize("flash_attention", [False, True] if LONG else [False])
def test_the_same_seed_gives_the_same_bytes_alone_and_among_others(
    model: str, flash_attention: bool, smollm2: Path
) -> None:
    settings = ModelSettings(
        path=smollm2 if model == "smollm2" else gemma(),
        context=512,
        parallel=16 if LONG else 4,
        threads=1,
        flash_attention=flash_attention,
        deterministic=True,
    )
    asyncio.run(compare(settings, count=100 if LONG else 10, length=24 if LONG else 4))


def test_the_fingerprint_tells(smollm2: Path) -> None:
    settings = ModelSettings(path=smollm2, context=256, parallel=1, threads=1)
    models = [Model(replace(settings, deterministic=exact)) for exact in (False, True)]
    prints = [model.info.fingerprint for model in models]
    for model in models:
        model.close()
    assert prints[0] != prints[1]
