"""What the engine counts: checked against what was asked of it."""

from __future__ import annotations

from engine.counters import Counters, Histogram
from engine.request import Request, SamplingParams
from tests.engine.fakes import FakeRunner, Harness, make_core

GREEDY = SamplingParams(temperature=0)


def test_a_histogram_counts_by_upper_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value, times in ((0.5, 1), (1.0, 2), (1.5, 1), (9.0, 3)):
        histogram.observe(value, times)
    assert histogram.counts == [3, 1, 3]
    assert (histogram.total, histogram.sum) == (7, 31.0)


def test_gaps_are_counted_for_each_answer_that_grew() -> None:
    counters = Counters()
    counters.step(10.0, 0.1, n_decode=0, n_prompt=16)
    counters.step(10.2, 0.1, n_decode=2, n_prompt=0)
    counters.step(10.3, 0.1, n_decode=0, n_prompt=0)
    assert counters.token_gaps.total == 2
    assert counters.prompt_tokens == 16
    assert counters.steps.total == 2


def test_a_core_counts_every_token_once() -> None:
    harness = Harness(make_core(FakeRunner(slots=2)))
    prompt = [1 + i % 60 for i in range(50)]
    for number in range(3):
        request = Request(
            id=f"r{number}", prompt=[*prompt, number + 1], max_tokens=5, sampling=GREEDY
        )
        harness.add(request)
    harness.run()
    core = harness.core
    hits = core.cache_counters.hit_tokens
    assert core.counters.generated_tokens == 15
    assert core.cache_counters.queried_tokens == 3 * 51
    assert core.counters.prompt_tokens == 3 * 51 - sum(hits.values())
    assert sum(hits.values()) > 0
    assert core.counters.token_gaps.total == 3 * 4


def test_a_snapshot_shows_slots_and_cache() -> None:
    harness = Harness(make_core(FakeRunner(slots=2)))
    harness.add(Request(id="a", prompt=[1, 2, 3], max_tokens=9, sampling=GREEDY))
    harness.step()
    harness.step()
    busy = harness.core.snapshot(waiting=4, slots=2)
    assert (busy.running, busy.waiting) == (1, 4)
    (slot,) = [each for each in busy.slots if each.state != "idle"]
    assert (slot.request, slot.state, slot.prompt_tokens) == ("a", "decode", 3)
    assert slot.generated_tokens == 2
    assert 0 < busy.cache.usage < 1
    harness.run()
    after = harness.core.snapshot(waiting=0, slots=2)
    assert [each.state for each in after.slots] == ["idle", "idle"]
    assert sum(each.tokens for each in after.slots) == 11
    assert after.cache.usage == 0
