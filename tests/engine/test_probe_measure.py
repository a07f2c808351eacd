"""The choice of settings, on a model whose speed is a formula and whose clock is its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import OutOfMemory
from engine.measure import BUDGET, DEEP_ENOUGH, Timings, measure
from engine.settings import ModelSettings


class FormulaBench:
    """A pass takes a fixed time, a time a token, and a time a token and depth."""

    def __init__(
        self,
        *,
        token: float = 0.001,
        attention: dict[bool, float] | None = None,
        thread_speed: dict[int, float] | None = None,
        pass_overhead: float = 0.0,
        impossible: tuple[bool, ...] = (),
        can_rewind: bool = True,
    ) -> None:
        self.max_depth = 1024
        self.has_gpu = False
        self.depth = 0
        self.now = 0.0
        self.configured: list[tuple[bool, int, int]] = []
        self._token = token
        self._attention = attention or {True: 1e-6, False: 1e-6}
        self._thread_speed = thread_speed or {}
        self._pass_overhead = pass_overhead
        self._impossible = impossible
        self._can_rewind = can_rewind

    def clock(self) -> float:
        return self.now

    def configure(self, *, flash_attention: bool, threads: int, ubatch_size: int) -> None:
        if flash_attention in self._impossible:
            raise OutOfMemory("one way only")
        self.configured.append((flash_attention, threads, ubatch_size))
        self.flash, self.threads, self.ubatch = flash_attention, threads, ubatch_size
        self.depth = 0

    def set_threads(self, threads: int) -> None:
        self.threads = threads

    def run(self, n_tokens: int) -> float:
        assert 0 < n_tokens <= 2048 - self.depth
        seconds = self._pass_overhead * -(-n_tokens // self.ubatch)
        depths = range(self.depth, self.depth + n_tokens)
        seconds += sum(self._token + self._attention[self.flash] * depth for depth in depths)
        seconds /= self._thread_speed.get(self.threads, 1.0)
        self.depth += n_tokens
        self.now += seconds
        return seconds

    def rewind(self, depth: int) -> bool:
        if self._can_rewind:
            self.depth = depth
        return self._can_rewind


def choose(bench: FormulaBench, threads: tuple[int, ...] = (4,), **fields: object):
    settings = ModelSettings(path=Path("m.gguf"), **fields)
    return measure(bench, settings, threads, lambda step, fraction: None, bench.clock)


@pytest.mark.parametrize(
    ("on", "off", "expected"), [(1e-7, 3e-6, True), (3e-6, 1e-7, False), (1e-6, 1e-6, False)]
)
def test_attention_that_is_faster_at_depth_wins(on, off, expected):
    choice = choose(FormulaBench(attention={True: on, False: off}))
    assert choice.flash_attention is expected
    assert set(choice.timings) == {"on", "off"}


def test_the_turn_is_extrapolated_to_the_reference_depth():
    timings = Timings(
        depth=320,
        prefill_token=0.0,
        short=0.02,
        short_shallow=0.02,
        decode=0.02,
        decode_shallow=0.01,
    )
    assert timings.turn == pytest.approx(0.02 + 64 * (0.01 + 0.01 * (1024 - 64) / (320 - 64)))


def test_a_slow_model_keeps_the_default_and_the_budget():
    bench = FormulaBench(token=0.05, attention={True: 0.0, False: 1e-4})
    choice = choose(bench, threads=(4, 8))
    assert (choice.flash_attention, choice.threads, choice.ubatch_size) == (False, 4, 512)
    assert choice.timings["off"].depth < DEEP_ENOUGH
    assert {flash for flash, _, _ in bench.configured} == {False}
    # One warm-up pass, a short prefill and a few decoded tokens are the least there is.
    assert bench.now < 0.05 * 110


def test_a_fast_model_is_measured_within_the_budget():
    bench = FormulaBench(token=0.0005)
    choose(bench, threads=(4, 8))
    assert bench.now < 1.5 * BUDGET


def test_without_a_budget_the_defaults_are_run_once():
    bench = FormulaBench(token=0.0001, attention={True: 0, False: 1e-5})
    settings = ModelSettings(path=Path("m.gguf"))
    choice = measure(bench, settings, (4, 8), lambda step, fraction: None, bench.clock, 0.0)
    assert (choice.flash_attention, choice.threads, choice.ubatch_size) == (False, 4, 512)
    assert bench.configured == [(False, 4, 512)]
    assert bench.now > 0


def test_a_gpu_starts_with_flash_attention():
    bench = FormulaBench(token=0.05)
    bench.has_gpu = True
    assert choose(bench).flash_attention is True


@pytest.mark.parametrize(("speed", "expected"), [(1.5, 8), (1.01, 4), (0.5, 4)])
def test_more_threads_have_to_be_noticeably_faster(speed, expected):
    bench = FormulaBench(token=0.0002, thread_speed={4: 1.0, 8: speed})
    assert choose(bench, threads=(4, 8)).threads == expected


@pytest.mark.parametrize(("overhead", "expected"), [(0.0, 512), (0.02, 1024)])
def test_larger_passes_win_where_a_pass_costs(overhead, expected):
    bench = FormulaBench(token=0.0001, attention={True: 0, False: 0}, pass_overhead=overhead)
    assert choose(bench).ubatch_size == expected


def test_what_was_chosen_is_not_measured():
    bench = FormulaBench()
    choice = choose(bench, threads=(4, 8), flash_attention=True)
    assert choice.flash_attention is True
    assert {flash for flash, _, _ in bench.configured} == {True}
    bench = FormulaBench()
    choice = choose(bench, (4, 8), flash_attention=True, ubatch_size=128)
    assert choice.ubatch_size == 128
    assert {ubatch for _, _, ubatch in bench.configured} == {128}


def test_passes_never_exceed_the_batch_size():
    bench = FormulaBench(token=0.0001)
    choice = choose(bench, batch_size=256)
    assert choice.ubatch_size == 256
    assert max(ubatch for _, _, ubatch in bench.configured) == 256


def test_a_context_that_only_runs_one_way():
    assert choose(FormulaBench(impossible=(False,))).flash_attention is True
    with pytest.raises(OutOfMemory, match=r"no context can be created for m\.gguf"):
        choose(FormulaBench(impossible=(True, False)))


def test_memory_that_cannot_be_rewound_is_measured_all_the_same():
    attention = {True: 1e-7, False: 3e-6}
    bench = FormulaBench(token=0.0002, attention=attention, can_rewind=False)
    assert choose(bench, threads=(4, 8)).flash_attention is True


def test_steps_are_reported_in_order():
    bench, seen = FormulaBench(token=0.0002), []
    settings = ModelSettings(path=Path("m.gguf"))

    def on_step(step: str, fraction: float) -> None:
        seen.append((fraction, step))

    measure(bench, settings, (4, 8), on_step, bench.clock)
    assert seen == sorted(seen)
    assert seen[0][1] == "measuring flash attention"


@pytest.fixture(autouse=True)
def no_real_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A measurement that looked at the real clock would depend on this machine."""
    monkeypatch.setattr("time.perf_counter", lambda: pytest.fail("the real clock was read"))
    yield
