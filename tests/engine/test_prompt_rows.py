"""A prompt that comes again is not computed at all."""

from __future__ import annotations

import numpy as np
import pytest

from engine.prompt_rows import PromptRows
from engine.request import LoraScale, Request, RequestDone, SamplingParams
from tests.engine.fakes import FakeRunner, Harness, continuation, make_core

GREEDY = SamplingParams(temperature=1e-5)
"""Choices that draw are computed each."""
PROMPT = list(range(1, 50))


def request(name: str, prompt: list[int], **fields: object) -> Request:
    options: dict[str, object] = {"sampling": GREEDY, "max_tokens": 4} | fields
    return Request(id=name, prompt=prompt, **options)  # type: ignore[arg-type]


def ask(harness: Harness, name: str, prompt: list[int], **fields: object) -> RequestDone:
    answer = harness.add(request(name, prompt, **fields))
    harness.run()
    assert set(answer.texts.values()) == {continuation(prompt, len(answer.texts[0]))}
    assert isinstance(answer.end, RequestDone)
    return answer.end


@pytest.mark.parametrize("n", [1, 3])
def test_the_same_prompt_again_computes_only_what_it_generates(n: int) -> None:
    runner = FakeRunner()
    harness = Harness(make_core(runner))
    assert ask(harness, "a", PROMPT).usage.cached_tokens == 0
    runner.batches.clear()
    assert ask(harness, "b", PROMPT, n=n).usage.cached_tokens == len(PROMPT)
    assert harness.core.cache_counters.queried_tokens == 2 * len(PROMPT)
    assert harness.core.cache_counters.hit_tokens["slot"] == len(PROMPT)
    assert sum(batch.n_tokens for batch in runner.batches) == 3 * n


def test_one_token_of_a_known_prompt_takes_no_pass_through_the_model() -> None:
    runner = FakeRunner()
    harness = Harness(make_core(runner))
    ask(harness, "a", PROMPT, max_tokens=1)
    runner.batches.clear()
    ask(harness, "b", PROMPT, max_tokens=1)
    assert sum(batch.n_tokens for batch in runner.batches) == 0


def test_several_at_once_take_none_either() -> None:
    runner = FakeRunner(slots=8)
    harness = Harness(make_core(runner))
    prompts = [[number, *PROMPT] for number in range(50, 54)]
    for number, prompt in enumerate(prompts):
        ask(harness, f"first {number}", prompt, max_tokens=1)
    for number, prompt in enumerate(prompts):
        harness.add(request(f"together {number}", prompt, max_tokens=1))
    harness.run()
    runner.batches.clear()
    for number, prompt in enumerate(prompts):
        harness.add(request(f"again {number}", prompt, max_tokens=1))
    harness.run()
    assert sum(batch.n_tokens for batch in runner.batches) == 0


def test_it_comes_back_from_host_memory_too() -> None:
    runner = FakeRunner(slots=1)
    harness = Harness(make_core(runner))
    ask(harness, "a", PROMPT)
    ask(harness, "b", [60] * 40)
    assert ask(harness, "c", PROMPT).usage.cached_tokens == len(PROMPT)
    assert harness.core.cache_counters.hit_tokens["memory"] == len(PROMPT)


def test_a_longer_or_shorter_prompt_is_computed_to_its_end() -> None:
    harness = Harness(make_core(FakeRunner()))
    ask(harness, "a", PROMPT)
    assert ask(harness, "b", PROMPT[:-1]).usage.cached_tokens < len(PROMPT) - 1
    assert ask(harness, "c", [*PROMPT, 1]).usage.cached_tokens <= len(PROMPT)


def test_memory_that_cannot_be_trimmed_has_gone_on() -> None:
    runner = FakeRunner()
    runner.can_trim = False
    harness = Harness(make_core(runner))
    ask(harness, "a", PROMPT)
    assert ask(harness, "b", PROMPT).usage.cached_tokens < len(PROMPT)


def test_rows_are_copies_by_prompt_and_adapters_within_a_budget() -> None:
    rows = PromptRows(budget=2 * 4 * 8)
    row = np.arange(8, dtype=np.float32)
    rows.put([1, 2], (), row)
    row[:] = 0
    kept = rows.get([1, 2], ())
    assert kept is not None
    assert kept[7] == 7
    assert rows.get([1, 2], (LoraScale("x", 1.0),)) is None
    rows.put([3], (), row)
    rows.get([1, 2], ())
    rows.put([4], (), row)
    assert rows.get([3], ()) is None
    assert rows.get([1, 2], ()) is not None
    assert rows.size == 2 * 4 * 8
