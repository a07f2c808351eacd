"""Draws the next token from a row of logits, in NumPy, without copying the row.

Order: logit_bias and penalties, grammar mask, temperature, top_k, top_p, min_p. `adjust` changes
the row in place: it belongs to the step and is overwritten by the next one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from engine.errors import NoTokenPossible
from engine.request import SamplingParams
from engine.token_counts import TokenCounts
from engine.vocab_math import (
    Head,
    Row,
    Tokens,
    above,
    draw,
    draw_by_head,
    exponentials,
    largest,
    nucleus,
)

LOWEST_PENALTY = 1e-6
"""Dividing by less would leave float32."""
WIDEST_REACH = 14.0
"""Nats below the likeliest token past which a head holds too much of a vocabulary."""


class Sampler:
    """The state of one choice: its random stream and the tokens its penalties count."""

    def __init__(self, params: SamplingParams, prompt: Iterable[int], stream: int) -> None:
        """`stream` is the index of the choice: each of n choices has its own random numbers."""
        self._params = params
        entropy = None if params.seed is None else [params.seed & (2**64 - 1), stream]
        self._random = np.random.Generator(np.random.PCG64(entropy))
        self._biased = np.fromiter(params.logit_bias, np.intp, len(params.logit_bias))
        self._bias = np.fromiter(params.logit_bias.values(), np.float32, len(params.logit_bias))
        counts_output = bool(params.presence_penalty or params.frequency_penalty)
        self._counts = TokenCounts() if counts_output else None
        self._repeated = TokenCounts(prompt) if params.repetition_penalty != 1.0 else None

    @property
    def adjusts(self) -> bool:
        """Whether `adjust` may change a row."""
        return bool(len(self._biased)) or self._counts is not None or self._repeated is not None

    def reach(self, n_vocab: int) -> float:
        """How far below the largest logit a `Head` should go for `sample`."""
        plain = self._params.top_k == 0 and self._params.top_p == 1.0
        return self._params.temperature * math.log(n_vocab) if plain else 0.0

    def adjust(self, row: Row) -> None:
        """Apply bias and penalties to the logits in `row`, in place."""
        params = self._params
        if len(self._biased):
            row[self._biased] += self._bias
        if self._repeated is not None:
            seen = self._repeated.tokens
            logits = row[seen]
            penalty = np.float32(max(params.repetition_penalty, LOWEST_PENALTY))
            row[seen] = np.where(logits > 0, logits / penalty, logits * penalty)
        if self._counts is not None:
            penalties = params.frequency_penalty * self._counts.counts + params.presence_penalty
            row[self._counts.tokens] -= penalties

    def sample(self, row: Row, scratch: Row, head: Head | None = None) -> int:
        """A token id drawn from `row` after `adjust`; `scratch`, as long, is overwritten: `row`
        itself, where nobody needs it any more, is easier on the caches.

        `head` may be given if the row's is known. NoTokenPossible if every logit is -inf (or one
        is NaN).
        """
        params = self._params
        best = int(row.argmax()) if head is None else head.best
        highest = float(row[best])
        if not math.isfinite(highest):
            raise NoTokenPossible("every token is banned at this position")
        if params.temperature == 0 or params.top_k == 1:
            return best
        if params.top_k == 0 and params.top_p == 1.0:
            return self._draw_plain(row, scratch, highest, head)
        if 0 < params.top_k < len(row):
            tokens = head.largest(row, params.top_k) if head else largest(row, params.top_k)
            return self._draw_among(tokens, row, highest)
        weights = exponentials(row, highest, params.temperature, scratch)
        return self._draw_nucleus(weights, None)

    def _draw_plain(self, row: Row, scratch: Row, highest: float, head: Head | None) -> int:
        """Temperature and min_p only: the tail matters little or not at all."""
        params = self._params
        temperature = max(params.temperature, 1e-6)
        if params.min_p > 0.0:
            # A little more than needed: the exact cut is made on the weights.
            reach = -math.log(min(params.min_p, 1.0)) * temperature + 1e-3
            return self._draw_among(above(row, highest - reach), row, highest)
        if head is None and self.reach(len(row)) < WIDEST_REACH:
            head = Head(row, self.reach(len(row)))
        if head is not None and head.tokens is not None:
            return draw_by_head(row, head, temperature, self._random.random)
        return draw(exponentials(row, highest, temperature, scratch), self._random.random())

    def _draw_among(self, tokens: Tokens, row: Row, highest: float) -> int:
        logits = row[tokens]
        weights = exponentials(logits, highest, self._params.temperature, logits)
        return self._draw_nucleus(weights, tokens)

    def _draw_nucleus(self, weights: Row, tokens: Tokens | None) -> int:
        """Cut `weights`, of `tokens` (None: of all), by top_p and min_p; then draw."""
        params = self._params
        if params.top_p < 1.0:
            kept = nucleus(weights, params.top_p)
            tokens = kept if tokens is None else tokens[kept]
            weights = weights[kept]
        if params.min_p > 0.0:
            # The likeliest token is never cut.
            kept = np.flatnonzero(weights >= weights.max() * np.float32(params.min_p))
            tokens = kept if tokens is None else tokens[kept]
            weights = weights[kept]
        index = draw(weights, self._random.random())
        return index if tokens is None else int(tokens[index])

    def accept(self, token: int) -> None:
        """Count `token` as generated."""
        if self._counts is not None:
            self._counts.add(token)
        if self._repeated is not None:
            self._repeated.add(token)
