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
    LIKELY,
    Head,
    Row,
    Tokens,
    Weights,
    count_nucleus,
    descending,
    draw,
    draw_by_head,
    exponentials,
    nucleus,
    pick,
    total,
    weigh,
)

LOWEST_PENALTY = 1e-6
"""Dividing by less would leave float32."""
LOWEST_TEMPERATURE = 1e-6
TAIL = 8
"""How many times as likely as the likeliest token the bound of a head's tail may be: a smaller
head has fewer tokens to weigh, a larger one fewer draws that come to nothing."""
UNIFORMS = 64
NUCLEUS_REACH = math.log(1000)
"""Times the temperature: what weighs less than a thousandth of the likeliest rarely matters."""
WIDEST_REACH = 14.0
"""Nats below the likeliest token past which a head holds too much of a vocabulary."""


class Sampler:
    """The state of one choice: its random stream and the tokens its penalties count."""

    def __init__(self, params: SamplingParams, prompt: Iterable[int], stream: int) -> None:
        """`stream` is the index of the choice: each of n choices has its own random numbers."""
        self._params = params
        entropy = None if params.seed is None else [params.seed & (2**64 - 1), stream]
        self._generator = np.random.Generator(np.random.PCG64(entropy))
        self._uniforms: list[float] = []
        self._biased = np.fromiter(params.logit_bias, np.intp, len(params.logit_bias))
        self._bias = np.fromiter(params.logit_bias.values(), np.float32, len(params.logit_bias))
        counts_output = bool(params.presence_penalty or params.frequency_penalty)
        self._counts = TokenCounts() if counts_output else None
        self._repeated = TokenCounts(prompt) if params.repetition_penalty != 1.0 else None

    @property
    def adjusts(self) -> bool:
        """Whether `adjust` may change a row."""
        return bool(len(self._biased)) or self._counts is not None or self._repeated is not None

    def _random(self) -> float:
        """From 0 to 1. Many are made at a time; they are the same as one by one."""
        if not self._uniforms:
            self._uniforms = self._generator.random(UNIFORMS)[::-1].tolist()
        return self._uniforms.pop()

    def reach(self, n_vocab: int) -> float:
        """How far below the largest logit a `Head` should go for `sample`."""
        params = self._params
        if params.top_k:
            return LIKELY
        if params.top_p < 1.0:
            return NUCLEUS_REACH * params.temperature
        if params.min_p > 0.0:
            # A little more than needed: the exact cut is made on the weights.
            return -math.log(min(params.min_p, 1.0)) * params.temperature + 1e-3
        return params.temperature * math.log(n_vocab / TAIL)

    def adjust(self, row: Row) -> None:
        """Apply bias and penalties to the logits in `row`, in place."""
        params = self._params
        if len(self._biased):
            row[self._biased] += self._bias
        if self._repeated is not None:
            seen = self._repeated.tokens
            logits = row.take(seen)
            penalty = np.float32(max(params.repetition_penalty, LOWEST_PENALTY))
            # Divides what is positive and multiplies what is negative.
            further = np.minimum if penalty >= 1 else np.maximum
            row[seen] = further(logits / penalty, logits * penalty)
        if self._counts is not None:
            penalties: Row | np.float32 = np.float32(params.presence_penalty)
            if params.frequency_penalty:
                penalties = params.frequency_penalty * self._counts.counts + penalties
            tokens = self._counts.tokens
            row[tokens] = row.take(tokens) - penalties

    def sample(self, row: Row, scratch: Row, head: Head | None = None) -> int:
        """A token id drawn from `row` after `adjust`; `scratch`, as long, is overwritten: `row`
        itself, where nobody needs it any more, is easier on the caches.

        `head` may be given if one of at least `reach` is known: what is drawn is the same.
        NoTokenPossible if every logit is -inf (or one is NaN).
        """
        params = self._params
        greedy = params.greedy
        reach = 0.0 if greedy else self.reach(len(row))
        if reach >= WIDEST_REACH:
            head = None
        elif not greedy and (head is None or head.tokens is None):
            head = Head(row, reach)
        best = int(row.argmax()) if head is None else head.best
        highest = row.item(best)
        if not math.isfinite(highest):
            raise NoTokenPossible("every token is banned at this position")
        if greedy:
            return best
        temperature = max(params.temperature, LOWEST_TEMPERATURE)
        if 0 < params.top_k < len(row):
            return self._draw_top_k(row, head or Head(row, LIKELY), temperature)
        if params.top_p < 1.0:
            return self._draw_nucleus(row, scratch, best, temperature, head)
        if head is None or head.tokens is None:
            weights = exponentials(row, highest, temperature, scratch)
            if params.min_p > 0.0:
                weights[weights < weights.item(best) * np.float32(params.min_p)] = 0
            return draw(weights, self._random())
        if params.min_p > 0.0:
            return self._draw_among(head.tokens, weigh(head.logits, highest, temperature))
        return draw_by_head(row, head, reach, temperature, self._random)

    def _draw_top_k(self, row: Row, head: Head, temperature: float) -> int:
        """Among the top_k likeliest, cut by top_p."""
        tokens = head.largest(row, self._params.top_k)
        weights = weigh(row.take(tokens), head.highest, temperature)
        if self._params.top_p < 1.0:
            count = count_nucleus(weights, self._params.top_p * float(sum(weights)))
            tokens, weights = tokens[:count], weights[:count]
        return self._draw_among(tokens, weights)

    def _draw_nucleus(
        self, row: Row, scratch: Row, best: int, temperature: float, head: Head | None
    ) -> int:
        """Of the whole vocabulary, cut by top_p."""
        highest = row.item(best)
        weights = exponentials(row, highest, temperature, scratch)
        goal = self._params.top_p * total(weights)
        if head is not None and head.tokens is not None:
            order = descending(head.logits)
            likely = weigh(head.logits.take(order), highest, temperature)
            count = count_nucleus(likely, goal / weights.item(best))
            if count is not None:
                return self._draw_among(head.tokens.take(order[:count]), likely[:count])
        tokens = nucleus(weights, goal, weights.item(best))
        return self._draw_among(tokens, weights.take(tokens).astype(np.float64))

    def _draw_among(self, tokens: Tokens, weights: Weights) -> int:
        """Cut `weights`, of `tokens`, by min_p; then draw."""
        if self._params.min_p > 0.0:
            cut = max(weights) * min(self._params.min_p, 1.0)
            kept = [at for at, weight in enumerate(weights) if weight >= cut]
            tokens, weights = tokens.take(kept), [weights[at] for at in kept]
        return tokens.item(pick(weights, self._random()))

    def accept(self, token: int) -> None:
        """Count `token` as generated."""
        if self._counts is not None:
            self._counts.add(token)
        if self._repeated is not None:
            self._repeated.add(token)
