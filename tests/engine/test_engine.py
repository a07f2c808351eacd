"""The engine on the real model: its thread, its stream and its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.batch import Batch, Clear, Rows, Span
from engine.engine import Engine
from engine.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidModelFile,
    InvalidToken,
    ModelFileNotFound,
    ModelLoadError,
    QueueFull,
    StepFailed,
)
from engine.llama.model import Model
from engine.llama.runner import LlamaRunner
from engine.request import (
    Event,
    Request,
    RequestDone,
    RequestFailed,
    SamplingParams,
    TokenLogprob,
    TokenOutput,
)
from engine.settings import ModelSettings

GREEDY = SamplingParams(temperature=0)
FORKED = SamplingParams(temperature=1e-5)
"""Choices that draw are computed each."""


def settings(path: Path, **fields: Any) -> ModelSettings:
    defaults = {"context": 512, "parallel": 4, "threads": 1, "flash_attention": False}
    return ModelSettings(path=path, **(defaults | fields))


def with_engine(path: Path, scenario: Callable[[Engine], Awaitable[None]], **fields: Any) -> None:
    """Run `scenario` on a loop of its own with a started engine."""

    async def main() -> None:
        engine = Engine.load(settings(path, **fields))
        engine.start(asyncio.get_running_loop())
        try:
            await scenario(engine)
        finally:
            await asyncio.to_thread(engine.close)

    asyncio.run(main())


def test_a_load_that_fails_at_the_end_gives_the_weights_back(
    smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Model] = []
    close = Model.close

    def noted(model: Model) -> None:
        closed.append(model)
        close(model)

    monkeypatch.setattr(Model, "close", noted)
    (tmp_path / "file").touch()
    with pytest.raises(ModelLoadError, match="prefix_cache_dir"):
        Engine.load(settings(smollm2, prefix_cache_dir=tmp_path / "file"))
    assert len(closed) == 1

    def vanished(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Model, "_fingerprint", vanished)
    with pytest.raises(FileNotFoundError):
        Engine.load(settings(smollm2))
    assert len(closed) == 2


def prompt_of(engine: Engine, question: str) -> list[int]:
    return engine.tokenizer.encode(
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )


def request(name: str, prompt: list[int], **fields: Any) -> Request:
    return Request(id=name, prompt=prompt, **({"max_tokens": 8, "sampling": GREEDY} | fields))


async def collect(engine: Engine, wanted: Request) -> tuple[dict[int, str], list[Event]]:
    """Text by choice, and all events."""
    texts: dict[int, str] = dict.fromkeys(range(wanted.n), "")
    events = [event async for event in engine.generate(wanted)]
    for event in events:
        if isinstance(event, TokenOutput):
            texts[event.index] += event.text
    return texts, events


def test_greedy_answers_are_those_of_a_bare_loop(smollm2: Path, runner: LlamaRunner) -> None:
    async def scenario(engine: Engine) -> None:
        prompt = prompt_of(engine, "What is the capital of France?")
        texts, events = await collect(engine, request("a", prompt, max_tokens=12, logprobs=3))
        tokens: list[int] = []
        row = runner.run(Batch([Clear(0)], [Span(0, 0, prompt, Rows.LAST)]))[0]
        logprobs: list[float] = []
        for position in range(12):
            tokens.append(int(row.argmax()))
            exact = row.astype(np.float64)
            logprobs.append(exact.max() - np.log(np.exp(exact).sum()))
            if tokens[-1] in engine.tokenizer.end_of_generation:
                break
            row = runner.run(Batch([], [Span(0, len(prompt) + position, [tokens[-1]], Rows.LAST)]))[
                0
            ]
        visible = [token for token in tokens if token not in engine.tokenizer.end_of_generation]
        assert texts[0] == engine.tokenizer.decode(visible)
        assert "Paris" in texts[0]
        got: list[TokenLogprob] = []
        for event in events:
            if isinstance(event, TokenOutput):
                got += event.logprobs
        assert [each.token for each in got] == visible
        expected = logprobs[: len(visible)]
        assert [each.logprob for each in got] == pytest.approx(expected, abs=1e-4)
        assert all(len(each.top) == 3 and each.top[0].token == each.token for each in got)

    with_engine(smollm2, scenario)


def test_seeds_repeat_and_choices_of_one_request_differ(smollm2: Path) -> None:
    async def scenario(engine: Engine) -> None:
        prompt = prompt_of(engine, "Invent a name for a boat.")
        sampling = SamplingParams(temperature=1.3, seed=42)
        # One after the other: the shape of a batch may change the last bits of the logits.
        first = await collect(engine, request("a", prompt, sampling=sampling, n=3))
        second = await collect(engine, request("b", prompt, sampling=sampling, n=3))
        assert first[0] == second[0]
        assert len(set(first[0].values())) == 3
        done = first[1][-1]
        assert isinstance(done, RequestDone)
        assert done.usage.prompt_tokens == len(prompt)

    with_engine(smollm2, scenario)


def test_more_clients_than_slots_each_get_their_own_answer(smollm2: Path) -> None:
    async def scenario(engine: Engine) -> None:
        words = ["apple", "river", "seven", "cloud", "stone", "tiger", "piano", "lemon"]

        async def repeat(word: str) -> str:
            prompt = prompt_of(engine, f'Repeat this word and nothing else: "{word}"')
            return (await collect(engine, request(word, prompt, max_tokens=6)))[0][0].lower()

        answers = await asyncio.gather(*map(repeat, words))
        for word, answer in zip(words, answers, strict=True):
            assert not [other for other in words if other != word and other in answer]

    with_engine(smollm2, scenario, parallel=3)


def test_the_unified_layout_gives_the_same_answers(smollm2: Path) -> None:
    async def scenario(engine: Engine) -> None:
        prompt = prompt_of(engine, "What is the capital of France?")
        first, _ = await collect(engine, request("a", prompt, n=2, sampling=FORKED))
        second, events = await collect(engine, request("b", prompt))
        assert first == {0: second[0], 1: second[0]}
        assert "Paris" in second[0]
        done = events[-1]
        assert isinstance(done, RequestDone)
        crowd = (collect(engine, request(f"{i}", prompt)) for i in range(5))
        assert all("Paris" in texts[0] for texts, _ in await asyncio.gather(*crowd))

    with_engine(smollm2, scenario, kv_unified=True)


def test_a_cancelled_request_frees_its_slot_for_the_next(smollm2: Path) -> None:
    async def scenario(engine: Engine) -> None:
        prompt = prompt_of(engine, "What is the capital of France?")
        expected, _ = await collect(engine, request("alone", prompt))
        long = engine.tokenizer.encode("The secret word is xylophone. " * 60)
        for name in ("in-prefill", "decoding"):
            stream = engine.submit(request(name, long[:480], max_tokens=30))
            if name == "decoding":
                await anext(stream)
            stream.cancel()
            assert [event async for event in stream] == []
            after, _ = await collect(engine, request(f"after {name}", prompt))
            assert after == expected
        assert engine.stats().running == engine.stats().waiting == 0

    with_engine(smollm2, scenario, parallel=1)


def test_what_cannot_run_is_refused_before_it_reaches_the_thread(smollm2: Path) -> None:
    async def scenario(engine: Engine) -> None:
        with pytest.raises(ContextLengthExceeded, match="512") as too_long:
            engine.submit(request("a", [5] * 512))
        assert too_long.value.prompt_tokens == 512
        for tokens in ([engine.info.n_vocab], [-1]):
            with pytest.raises(InvalidToken):
                engine.submit(request("a", tokens))
            bias = SamplingParams(logit_bias={tokens[0]: 1.0})
            with pytest.raises(InvalidToken):
                engine.submit(request("a", [5], sampling=bias))
            with pytest.raises(InvalidToken):
                engine.submit(request("a", [5], prediction=(5, *tokens)))
        streams = [engine.submit(request(f"{i}", [5, 6], max_tokens=400)) for i in range(3)]
        with pytest.raises(QueueFull) as full:
            engine.submit(request("one more", [5]))
        assert full.value.limit == 2
        streams[2].cancel()
        await collect(engine, request("room again", [5], max_tokens=1, priority=0))
        for stream in streams:
            stream.cancel()
        await engine.drain(5)
        with pytest.raises(EngineUnavailable, match="draining"):
            engine.submit(request("late", [5]))

    with_engine(smollm2, scenario, parallel=1, max_queue=2)


def test_a_failed_step_loses_its_requests_and_nothing_else(
    smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine) -> None:
        prompt = prompt_of(engine, "What is the capital of France?")
        expected, _ = await collect(engine, request("before", prompt))
        run = LlamaRunner.run

        def broken(self: LlamaRunner, batch: Batch, on_compute: object) -> object:
            raise RuntimeError("a cosmic ray")

        monkeypatch.setattr(LlamaRunner, "run", broken)
        _, events = await collect(engine, request("lost", prompt))
        assert isinstance(events[-1], RequestFailed)
        assert isinstance(events[-1].error, StepFailed)
        assert "cosmic ray" in str(events[-1].error)
        assert engine.state == "ready"
        monkeypatch.setattr(LlamaRunner, "run", run)
        assert (await collect(engine, request("after", prompt)))[0] == expected
        monkeypatch.setattr(LlamaRunner, "run", broken)
        for attempt in range(3):
            await collect(engine, request(f"{attempt}", prompt))
        assert engine.state == "failed"
        assert engine.failure == "a cosmic ray"
        with pytest.raises(EngineUnavailable, match="cosmic ray"):
            engine.submit(request("too late", prompt))

    with_engine(smollm2, scenario)


def test_an_engine_that_cannot_go_on_says_so(
    smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(engine: Engine) -> None:
        def broken(*_: object, **__: object) -> None:
            raise ValueError("a cosmic ray")

        monkeypatch.setattr(LlamaRunner, "run", broken)
        monkeypatch.setattr(LlamaRunner, "reset", broken)
        _, events = await collect(engine, request("lost", prompt_of(engine, "Hi")))
        assert isinstance(events[-1], RequestFailed)
        assert (engine.state, engine.failure) == ("failed", "a cosmic ray")

    with_engine(smollm2, scenario)


def test_closing_ends_what_runs(smollm2: Path) -> None:
    async def scenario(engine: Engine) -> None:
        stream = engine.submit(request("a", [5, 6], max_tokens=400))
        await anext(stream)
        await asyncio.to_thread(engine.close)
        last = [event async for event in stream][-1]
        assert isinstance(last, RequestFailed)
        assert isinstance(last.error, EngineUnavailable)

    with_engine(smollm2, scenario)


def test_files_that_are_no_model(smollm2: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileNotFound):
        Model(settings(tmp_path / "missing.gguf"))
    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"GGUX" + bytes(100))
    with pytest.raises(InvalidModelFile, match="magic"):
        Model(settings(garbage))
    with pytest.raises(InvalidModelFile, match="LoRA"):
        from engine.settings import LoraAdapter

        Model(settings(smollm2, lora=(LoraAdapter(garbage),)))


def test_events_go_out_when_the_next_step_computes(smollm2: Path) -> None:
    """The loop is woken when its thread can have the interpreter lock, once a step: between the
    last of Python's work on the batch and the model's."""
    order: list[str] = []

    class Runner(LlamaRunner):
        def _fill(self, spans: list[Span]) -> int:
            order.append("fill")
            return super()._fill(spans)

        def _compute(self, rows: int) -> int:
            order.append("compute")
            return super()._compute(rows)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        model = Model(settings(smollm2))
        engine = Engine.over(model, Runner(model))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                loop, "call_soon_threadsafe", lambda *args: (order.append("wake"), wake(*args))
            )
            engine.start(loop)
            prompt = prompt_of(engine, "What is the capital of France?")
            await collect(engine, request("a", prompt, max_tokens=4, ignore_eos=True))
        await asyncio.to_thread(engine.close)

    asyncio.run(main())
    assert order == ["fill", "compute", *["fill", "wake", "compute"] * 3, "wake"]
