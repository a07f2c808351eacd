"""How many threads are taken beside others, on a scripted processor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.neighbours import (
    INTERVAL,
    LONGEST,
    PROOF,
    RECOVERY,
    TRIAL,
    ThreadGovernor,
    Usage,
    read_usage,
)
from engine.request import Request
from tests.engine.fakes import FakeRunner, Harness, make_core


class Processor:
    """Time and usage move by `pass_time`."""

    def __init__(self) -> None:
        self.clock, self.all, self.own = 0.0, 100.0, 5.0

    def pass_time(self, seconds: float, others: float = 0.0, own: float = 2.0) -> None:
        self.clock += seconds
        self.own += own * seconds
        self.all += (own + others) * seconds

    def governor(self, threads: int, cores: int) -> ThreadGovernor:
        return ThreadGovernor(threads, cores, lambda: Usage(self.all, self.own), lambda: self.clock)


@pytest.mark.parametrize(
    ("threads", "cores", "others", "expected"),
    [
        (2, 2, 0.2, 2),
        (2, 2, 0.5, 2),
        (2, 2, 0.8, 1),
        (2, 2, 2.0, 1),
        (8, 8, 2.7, 5),
        (4, 8, 1.0, 4),
        (4, 8, 5.0, 3),
        (1, 1, 1.0, 1),
    ],
)
def test_threads_give_way_to_others(threads: int, cores: int, others: float, expected: int) -> None:
    processor = Processor()
    governor = processor.governor(threads, cores)
    processor.pass_time(INTERVAL, others)
    assert governor.look() == (expected != threads)
    assert governor.threads == expected


def test_what_others_do_while_nothing_is_computed_takes_no_thread() -> None:
    processor = Processor()
    governor = processor.governor(2, 2)
    processor.pass_time(INTERVAL * 2, others=2.0, own=0.0)
    governor.rested(INTERVAL * 2)
    processor.pass_time(INTERVAL)
    assert not governor.look()
    assert governor.threads == 2
    processor.pass_time(INTERVAL / 2, others=2.0, own=0.0)
    governor.rested(INTERVAL / 10)
    processor.pass_time(INTERVAL / 2, others=2.0)
    assert governor.look()
    assert governor.threads == 1


def test_they_come_back_when_the_others_are_gone_and_not_before() -> None:
    processor = Processor()
    governor = processor.governor(2, 2)
    seen = []
    for others in (1.0, 0.5, 0.46, 0.1, 0.5, 0.7):
        processor.pass_time(INTERVAL, others)
        governor.look()
        seen.append(governor.threads)
    assert seen == [1, 1, 1, 2, 2, 1]


class SharedHost:
    """A virtual machine whose host gives it a core and a quarter, and withholds the rest."""

    def __init__(self) -> None:
        self.processor = Processor()
        self.governor = self.processor.governor(2, 2)

    def compute(self, looks: int, cores: float = 1.25) -> int:
        """How many of so many looks found two threads."""
        asked = 0
        for _ in range(looks):
            asked += self.governor.threads == 2
            own = min(float(self.governor.threads), cores)
            self.processor.pass_time(INTERVAL, self.governor.threads - own, own)
            self.governor.look()
        return asked


def test_a_host_that_withholds_time_is_asked_ever_more_seldom() -> None:
    host = SharedHost()
    assert host.compute(60) <= 10
    assert host.compute(200) <= 200 * INTERVAL / LONGEST
    looks = int((LONGEST + PROOF) / INTERVAL)
    assert host.compute(looks + 1, cores=2.0) >= looks / 2
    assert host.governor.threads == 2
    host.compute(1)
    assert host.governor.threads == 1
    host.compute(1, cores=2.0)
    assert host.governor.threads == 2, "what held long is trusted again at once"


def test_the_first_look_at_a_thread_that_came_back_is_an_early_one() -> None:
    host = SharedHost()
    host.compute(2)
    assert host.governor.threads == 2
    host.processor.pass_time(1.1 * TRIAL, others=0.75, own=1.25)
    assert host.governor.look()
    assert host.governor.threads == 1
    host.processor.pass_time(1.1 * TRIAL)
    assert not host.governor.look()


def test_after_a_rest_a_host_is_asked_at_once() -> None:
    host = SharedHost()
    host.compute(60)
    assert host.governor.threads == 1
    host.governor.rested(RECOVERY + 1)
    host.compute(1)
    assert host.governor.threads == 2


def test_nothing_changes_between_two_looks_and_a_long_step_is_one() -> None:
    processor = Processor()
    governor = processor.governor(2, 2)
    processor.pass_time(INTERVAL / 2, 2.0)
    assert not governor.look()
    processor.pass_time(INTERVAL * 10, 2.0)
    assert governor.look()
    assert governor.threads == 1
    processor.pass_time(INTERVAL * 10, 0.0)
    assert governor.look()
    assert governor.threads == 2


def test_where_the_system_does_not_tell_all_threads_stay() -> None:
    governor = ThreadGovernor(2, 2, lambda: None, lambda: 1.0)
    assert not governor.look()
    assert governor.threads == 2


def test_only_our_own_processors_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  900 900 900 0\ncpu0 100 7 50 9 9 9 9 30 9 9\ncpu1 300 7 50 0\ncpu10 400 7 0 0\n"
        "intr 1 2\n"
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 10}, raising=False)
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    usage = read_usage(stat)
    assert usage is not None
    assert usage.all == 5.8
    assert read_usage(tmp_path / "absent") is None


def test_usage_of_this_machine_grows() -> None:
    first = read_usage()
    if first is None:
        pytest.skip("the system does not tell what its processors do")
    sum(range(2_000_000))
    second = read_usage()
    assert second is not None
    assert second.own > first.own
    assert second.all >= first.all > 0


def test_the_step_hands_the_count_to_the_model() -> None:
    processor = Processor()
    runner = FakeRunner()
    harness = Harness(make_core(runner, governor=processor.governor(2, 2)))
    harness.add(Request(id="a", prompt=[1], max_tokens=9))
    harness.step()
    assert runner.threads == 0
    processor.pass_time(INTERVAL, 1.0)
    harness.step()
    assert runner.threads == 1
