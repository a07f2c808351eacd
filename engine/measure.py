"""Which settings are fastest for this file on this machine: runs in the probe's process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from engine.errors import OutOfMemory
from engine.settings import ModelSettings

OnStep = Callable[[str, float], None]

BUDGET = 2.5
"""Seconds of measuring; a model too slow for it is measured less."""
REFERENCE_DEPTH = 1024
"""Tokens before the turn that is scored; shallower measurements are extrapolated to it."""
SHORT_PREFILL = 32
"""A user's next message."""
TURN_DECODE = 64
TURN_PREFILL = 128
"""The turn that is scored: one short prefill, these tokens decoded and these of a new prompt."""
SHALLOW = 64
DEEP_ENOUGH = 256
"""Below this attention costs too little to be told from noise."""
DECODE_REPEATS = 4
DEFAULT_UBATCH = 512
UBATCH_CHOICES = (256, 1024)
NOTICEABLE = 0.95
"""A setting other than the default has to be this much faster."""


class Timings(Struct, frozen=True):
    """Seconds, at the depth reached and close to an empty context."""

    depth: int
    prefill_token: float
    short: float
    short_shallow: float
    decode: float
    decode_shallow: float

    @property
    def turn(self) -> float:
        """Seconds of the reference turn."""
        short = self.at_reference(self.short_shallow, self.short)
        decode = self.at_reference(self.decode_shallow, self.decode)
        return short + TURN_DECODE * decode + TURN_PREFILL * self.prefill_token

    def at_reference(self, shallow: float, deep: float) -> float:
        """Attention grows linearly with depth, everything else stays."""
        if self.depth <= SHALLOW:
            return deep
        slope = max(deep - shallow, 0.0) / (self.depth - SHALLOW)
        return shallow + slope * (REFERENCE_DEPTH - SHALLOW)


class Choice(Struct, frozen=True):
    """The fastest settings and what they were chosen from."""

    flash_attention: bool
    threads: int
    ubatch_size: int
    timings: dict[str, Timings]


class Bench(Protocol):
    """What is measured; `engine.llama.bench.Bench` but in tests."""

    max_depth: int
    has_gpu: bool

    @property
    def depth(self) -> int: ...
    def configure(self, *, flash_attention: bool, threads: int, ubatch_size: int) -> None: ...
    def set_threads(self, threads: int) -> None: ...
    def run(self, n_tokens: int) -> float: ...
    def rewind(self, depth: int) -> bool: ...


def measure(
    bench: Bench,
    settings: ModelSettings,
    thread_choices: tuple[int, ...],
    on_step: OnStep,
    clock: Callable[[], float] = time.monotonic,
    budget: float = BUDGET,
) -> Choice:
    """Try what `settings` leaves open, the most important first, until the budget is spent.

    Without a budget the model is only run once, and the defaults are chosen.
    """
    end = clock() + budget
    threads = settings.threads or thread_choices[0]
    ubatch = settings.ubatch_size or min(DEFAULT_UBATCH, settings.batch_size)
    flash, timings = fastest_attention(bench, settings, threads, ubatch, on_step, end, clock)
    depth = max(timing.depth for timing in timings.values())
    if settings.threads is None and len(thread_choices) > 1 and clock() < end:
        on_step("measuring threads", 0.5)
        bench.configure(flash_attention=flash, threads=threads, ubatch_size=ubatch)
        threads = fastest_threads(bench, thread_choices, depth)
    if settings.ubatch_size is None:
        on_step("measuring batch sizes", 0.8)
        ubatch = fastest_ubatch(bench, flash, threads, settings.batch_size, end, clock)
    return Choice(flash, threads, ubatch, timings)


def fastest_attention(
    bench: Bench,
    settings: ModelSettings,
    threads: int,
    ubatch: int,
    on_step: OnStep,
    end: float,
    clock: Callable[[], float],
) -> tuple[bool, dict[str, Timings]]:
    """Flash attention or not; on a GPU it is the default, on a CPU its short passes are slow."""
    default = bench.has_gpu if settings.flash_attention is None else settings.flash_attention
    options = (default, not default) if settings.flash_attention is None else (default,)
    timings: dict[bool, Timings] = {}
    depth = 0
    for number, flash in enumerate(options):
        on_step("measuring flash attention", number / len(options))
        try:
            bench.configure(flash_attention=flash, threads=threads, ubatch_size=ubatch)
        except OutOfMemory:
            # Some models and devices only run one way; the other one decides.
            continue
        speed = warm_up(bench)
        depth = depth or choose_depth(speed, (end - clock()) / (len(options) - number), bench)
        timings[flash] = take_timings(bench, depth)
        if depth < DEEP_ENOUGH:
            break
    if not timings:
        raise OutOfMemory(f"no context can be created for {settings.path}")
    best = min(timings, key=lambda flash: timings[flash].turn)
    return best, {"on" if flash else "off": timing for flash, timing in timings.items()}


def warm_up(bench: Bench) -> float:
    """Tokens per second of a first pass, which also meets the paths that crash on bad builds."""
    first = bench.run(SHALLOW)
    if first < BUDGET / 10 and bench.rewind(0):
        first = min(first, bench.run(SHALLOW))
    return SHALLOW / first


def choose_depth(speed: float, seconds: float, bench: Bench) -> int:
    """How deep a prompt the time allows, in whole passes of SHALLOW tokens."""
    # The rest of the time goes to the passes at that depth, which are slower per token.
    affordable = int(speed * seconds * 0.6) // SHALLOW * SHALLOW
    return max(SHALLOW, min(affordable, bench.max_depth))


def take_timings(bench: Bench, depth: int) -> Timings:
    """Starts after `warm_up`, with SHALLOW tokens in the context."""
    short_shallow, decode_shallow = passes(bench)
    rest = depth - bench.depth
    elapsed = bench.run(rest) if rest > 0 else 0.0
    short, decode = passes(bench) if rest > 0 else (short_shallow, decode_shallow)
    token = elapsed / rest if rest > 0 else short / SHORT_PREFILL
    return Timings(depth, token, short, short_shallow, decode, decode_shallow)


def passes(bench: Bench) -> tuple[float, float]:
    """Seconds of a short prefill and of one decoded token at the present depth."""
    depth = bench.depth
    short = bench.run(SHORT_PREFILL)
    bench.rewind(depth)
    decode = min(bench.run(1) for _ in range(DECODE_REPEATS))
    bench.rewind(depth)
    return short, decode


def fastest_threads(bench: Bench, choices: tuple[int, ...], depth: int) -> int:
    """Prefill and decode of the reference turn, on one context."""
    seconds: dict[int, float] = {}
    warm_up(bench)
    if depth > bench.depth:
        bench.run(depth - bench.depth)
    for threads in choices:
        bench.set_threads(threads)
        short, decode = passes(bench)
        seconds[threads] = short * TURN_PREFILL / SHORT_PREFILL + decode * TURN_DECODE
    best = min(choices, key=seconds.__getitem__)
    return best if seconds[best] < NOTICEABLE * seconds[choices[0]] else choices[0]


def fastest_ubatch(
    bench: Bench,
    flash: bool,
    threads: int,
    batch_size: int,
    end: float,
    clock: Callable[[], float],
) -> int:
    """By one long prompt under each size, while the time lasts; the default keeps close calls."""
    default = min(DEFAULT_UBATCH, batch_size)
    prompt = min(REFERENCE_DEPTH, bench.max_depth)
    seconds: dict[int, float] = {}
    for size in (default, *UBATCH_CHOICES):
        expected = seconds.get(default, 0.0)
        if size > batch_size or size > prompt or clock() + expected >= end:
            continue
        bench.configure(flash_attention=flash, threads=threads, ubatch_size=size)
        if clock() + prompt / warm_up(bench) >= end:
            break
        seconds[size] = bench.run(prompt - bench.depth)
    if default not in seconds:
        return default
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < NOTICEABLE * seconds[default] else default
