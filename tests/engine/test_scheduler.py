"""How many tokens of whom make up a step: nobody stalls, and prompts are cut where bits allow."""

from __future__ import annotations

import pytest

from engine.batch import CopyReport
from engine.request import Request
from engine.scheduler import MIN_ROWS, MOST_BRANCHING
from tests.engine.fakes import FakeRunner, Harness, continuation, make_core, request


def test_a_long_prompt_never_stops_a_running_stream() -> None:
    runner = FakeRunner()
    harness = Harness(make_core(runner))
    stream = harness.add(request("stream", [1], 60))
    harness.step()
    harness.add(request("long", [2] * 200, 1))
    lengths = []
    while harness.answers["long"].end is None:
        before = len(stream.texts[0])
        harness.step()
        lengths.append(len(stream.texts[0]) - before)
    assert len(lengths) > 3
    assert set(lengths) == {1}


def test_a_step_of_single_tokens_is_what_the_general_way_makes_of_it() -> None:
    core = make_core(FakeRunner(slots=4))
    harness = Harness(core)
    for name in "abcd":
        harness.add(request(name, [ord(name) - 90, 2, 3], 30))
    for _ in range(6):
        harness.step()
    scheduler = core.scheduler
    lora, active = scheduler._whose_turn()
    plain = scheduler._plain_step(lora, active[::-1])
    mixed = scheduler._mixed_step(lora, active[::-1])
    assert plain is not None
    assert (plain.batch, plain.sequences) == (mixed.batch, mixed.sequences)
    assert (plain.n_decode, plain.n_prompt) == (mixed.n_decode, mixed.n_prompt) == (4, 0)
    harness.add(request("e", [7, 8], 30))
    core.abort("a")
    list(scheduler.admit())
    assert scheduler._plain_step(*scheduler._whose_turn()) is None, "a prompt is to be computed"


def test_a_lone_prompt_takes_whole_passes() -> None:
    runner = FakeRunner()
    harness = Harness(make_core(runner, ubatch_size=32))
    harness.add(request("a", [1] * 74, 1))
    harness.run()
    assert [batch.n_tokens for batch in runner.batches] == [32, 32, 10]


@pytest.mark.parametrize("length", range(65, 90))
def test_no_prompt_ends_in_a_piece_of_few_rows(length: int) -> None:
    runner = FakeRunner()
    harness = Harness(make_core(runner, ubatch_size=32))
    harness.add(request("a", [1] * length, 1))
    harness.run()
    sizes = [batch.n_tokens for batch in runner.batches]
    assert sum(sizes) == length
    assert min(sizes) >= MIN_ROWS


def test_a_slow_model_looks_at_its_inbox_every_second() -> None:
    core = make_core(FakeRunner(), ubatch_size=128, batch_size=128)
    core.scheduler.costs.observe(4.0, 0, 400)
    harness = Harness(core)
    harness.add(request("a", [1] * 170, 1))
    harness.step()
    assert core.scheduler.running[0].n_computed == 96
    core.scheduler.costs.observe(400.0, 0, 400)
    harness.step()
    assert core.scheduler.running[0].n_computed == 96 + 64


def test_an_unknown_machine_is_asked_for_little_while_anyone_decodes() -> None:
    runner = FakeRunner()
    harness = Harness(make_core(runner))
    harness.add(request("stream", [1], 60))
    harness.step()
    harness.add(request("long", [2] * 200, 1))
    harness.step()
    assert runner.batches[-1].n_tokens == 1 + 16


def test_choices_start_a_few_at_a_time_where_copies_are_slow() -> None:
    """Each takes longer than `max_stall`, so beside a running stream one starts per step."""
    runner = FakeRunner(slots=8)
    harness = Harness(make_core(runner))
    harness.add(request("stream", [1], 60, user="other"))
    harness.step()
    report = CopyReport(n_bytes=1, seconds=1.0)
    harness.core._kv.learn(report)
    many = harness.add(request("many", [5, 6, 7], 40, n=6))
    harness.step()
    started = []
    while len(many.texts) < 6:
        before = len(many.texts)
        harness.step()
        started.append(len(many.texts) - before)
    assert set(started) == {1}
    harness.run()
    assert many.texts == dict.fromkeys(range(6), continuation([5, 6, 7], 40))


def test_prompts_are_served_in_order_of_arrival_not_of_slots() -> None:
    runner = FakeRunner(slots=2)
    harness = Harness(make_core(runner, ubatch_size=8))
    harness.add(request("short", [1], 1))
    harness.add(request("early", [2] * 40, 1))
    harness.step()
    harness.add(request("late", [3] * 40, 1))
    while harness.answers["early"].end is None:
        harness.step()
        assert len(runner.memory[0]) <= 8, (
            "the late one in slot 0 waits for the early one in slot 1"
        )


def test_few_requests_at_a_time_keep_their_prompts_for_further_choices() -> None:
    runner = FakeRunner(slots=3)
    harness = Harness(make_core(runner))
    for i in range(20):
        harness.add(request(f"{i}", [i + 1] * 5, 2, n=5, user=f"{i}"))
    while harness.core.scheduler.has_work:
        harness.step()
        assert len(runner.saved) <= MOST_BRANCHING
    for i in range(20):
        assert harness.answers[f"{i}"].texts == dict.fromkeys(
            range(5), continuation([i + 1] * 5, 2)
        )


@pytest.mark.parametrize("length", [17, 33, 49, 65, 97])
def test_no_prompt_ends_in_a_step_of_one_token(length: int) -> None:
    """A single row takes other kernels: the same prompt would get other bits now and then."""
    runner = FakeRunner()
    harness = Harness(make_core(runner, ubatch_size=16 if length == 17 else 32))
    harness.add(Request(id="a", prompt=[1] * length, max_tokens=1))
    harness.run()
    sizes = [len(span.tokens) for batch in runner.batches for span in batch.spans]
    assert sum(sizes) == length
    assert min(sizes) > 1
