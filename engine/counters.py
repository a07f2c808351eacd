"""Counts of what an engine has done: written by its thread once a step, read by anybody.

Integers only grow, so that a reader who catches a step in the middle is off by that step at most.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

STEP_BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.5, 1.0, 2.0, 5.0)
TOKEN_BOUNDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
LEVELS = ("slot", "running", "memory", "disk")
"""Where the prefix of a prompt was: in an idle slot, in one at work, copied in host memory, or in
a file."""


class Histogram:
    """How many values fell under each upper bound, Prometheus' way but not yet cumulated."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """The last one is of what exceeds all bounds."""
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """`times` equal values at once."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    @property
    def total(self) -> int:
        """All values."""
        return sum(self.counts)


class Counters:
    """Since the engine was loaded."""

    def __init__(self) -> None:
        self.steps = Histogram(STEP_BOUNDS)
        """Seconds of a step inside llama.cpp."""
        self.token_gaps = Histogram(TOKEN_BOUNDS)
        """Seconds between the ends of two steps, once for each answer that grew in the second."""
        self.prompt_tokens = 0
        """Computed; what was found in the cache is not among them."""
        self.generated_tokens = 0
        self.draft_tokens = 0
        """Predicted tokens that were computed ahead."""
        self.accepted_tokens = 0
        """Of these, the ones that came true."""
        self._ended = 0.0

    def step(self, ended: float, seconds: float, n_decode: int, n_prompt: int) -> None:
        """A step that took `seconds` has ended: `n_decode` answers, `n_prompt` prompt tokens."""
        if not n_decode and not n_prompt:
            return  # It only moved memory.
        self.steps.observe(seconds)
        if n_decode and self._ended:
            self.token_gaps.observe(ended - self._ended, n_decode)
        self.prompt_tokens += n_prompt
        self._ended = ended

    def drafted(self, n_tokens: int, n_accepted: int) -> None:
        """So many predicted tokens were computed ahead for one answer."""
        self.draft_tokens += n_tokens
        self.accepted_tokens += n_accepted


class CacheCounters:
    """What prompts found of themselves."""

    def __init__(self) -> None:
        self.queried_tokens = 0
        """Of all prompts that were given a slot."""
        self.hit_tokens = dict.fromkeys(LEVELS, 0)
        """By where they were found."""

    def found(self, prompt_tokens: int, level: str, hit_tokens: int) -> None:
        """A prompt was given a slot that has its first `hit_tokens`, by way of `level`."""
        self.queried_tokens += prompt_tokens
        self.hit_tokens[level] += hit_tokens
