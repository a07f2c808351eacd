"""Draws the next token from a row of logits, in NumPy, without copying the row.

Order: logit_bias and penalties, grammar mask, temperature, top_k, top_p, min_p.
Changes are made in place: the row belongs to the step and is overwritten by the next one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from engine.errors import NoTokenPossible
from engine.request import SamplingParams
from engine.vocab_math import Row, draw, largest, nucleus

LOWEST_PENALTY = 1e-6
"""Dividing by less would leave float32."""


class Sampler:
    """The state of one choice: its random stream and the tokens its penalties count."""

    def __init__(self, params: SamplingParams, prompt: Iterable[int], stream: int) -> None:
        """`stream` is the index of the choice: each of n choices has its own random numbers."""
        self._params = params
        entropy = None if params.seed is None else [params.seed & (2**64 - 1), stream]
        self._random = np.random.Generator(np.random.PCG64(entropy))
        self._biased = np.fromiter(params.logit_bias, np.intp, len(params.logit_bias))
        self._bias = np.fromiter(params.logit_bias.values(), np.float32, len(params.logit_bias))
        self._counts: dict[int, int] = {}
        self._counts_output = bool(params.presence_penalty or params.frequency_penalty)
        self._repeats = params.repetition_penalty != 1.0
        self._repeated: dict[int, None] = dict.fromkeys(prompt) if self._repeats else {}

    def adjust(self, row: Row) -> None:
        """Apply bias and penalties to the logits in `row`, in place."""
        params = self._params
        if len(self._biased):
            row[self._biased] += self._bias
        if self._repeated:
            seen = np.fromiter(self._repeated, np.intp, len(self._repeated))
            logits = row[seen]
            penalty = np.float32(max(params.repetition_penalty, LOWEST_PENALTY))
            row[seen] = np.where(logits > 0, logits / penalty, logits * penalty)
        if self._counts:
            tokens = np.fromiter(self._counts, np.intp, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
            row[tokens] -= params.frequency_penalty * counts + params.presence_penalty

    def sample(self, row: Row) -> int:
        """A token id drawn from `row` after `adjust`, which it overwrites.

        NoTokenPossible if every logit is -inf (or one is NaN).
        """
        params = self._params
        best = int(row.argmax())
        highest = float(row[best])
        if not math.isfinite(highest):
            raise NoTokenPossible("every token is banned at this position")
        if params.temperature == 0 or params.top_k == 1:
            return best
        tokens = None
        if 0 < params.top_k < len(row):
            tokens = largest(row, params.top_k)
            row = row[tokens]
        # Below this float32 the scaled logits could overflow; the result is greedy long before.
        temperature = max(params.temperature, 1e-6)
        row -= np.float32(highest)
        row *= np.float32(1.0 / temperature)
        weights = np.exp(row, out=row)
        if params.top_p < 1.0:
            kept = nucleus(weights, params.top_p)
            tokens = kept if tokens is None else tokens[kept]
            weights = weights[kept]
        if params.min_p > 0.0:
            # The likeliest token is never cut, so the largest weight is still exp(0) = 1.
            kept = np.flatnonzero(weights >= np.float32(params.min_p))
            tokens = kept if tokens is None else tokens[kept]
            weights = weights[kept]
        index = draw(weights, self._random.random())
        return index if tokens is None else int(tokens[index])

    def accept(self, token: int) -> None:
        """Count `token` as generated."""
        if self._counts_output:
            self._counts[token] = self._counts.get(token, 0) + 1
        if self._repeats:
            self._repeated[token] = None
