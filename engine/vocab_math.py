"""Reductions over a row of the vocabulary, each one pass of vector instructions.

Rows have shape (n_vocab,), float32, and are never changed. What NumPy has by itself (partition,
cumsum, sum over an axis, float64 temporaries) is 2 to 20 times slower at 262,144 tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]
Tokens = NDArray[np.intp]

_STRIDES = 64
_BLOCK = 256
_SMALL = 2048
_TINY = 1e-37
_EXP_RANGE = (-20.0, 60.0)
"""Largest exponents for which float32 sums of exponentials need no shift: 2^24 of them stay
finite, and what underflows is 60 nats below the largest."""


def above(row: Row, bound: float) -> Tokens:
    """Ids of the values that reach `bound`, ascending."""
    return (row >= np.float32(bound)).nonzero()[0]


def largest(row: Row, k: int) -> Tokens:
    """Ids of the k largest values, largest first, of equal ones the lowest id first."""
    candidates = above(row, _lower_bound(row, k)) if 4 * k < len(row) else None
    return first(row, k, candidates)


def first(row: Row, k: int, candidates: Tokens | None) -> Tokens:
    """The `k` largest of the ascending ids `candidates` (None: all), in the order of `largest`."""
    values = row if candidates is None else row[candidates]
    if candidates is not None and len(values) > 4 * k:
        candidates = candidates[values >= np.partition(values, len(values) - k)[len(values) - k]]
        values = row[candidates]
    order = np.argsort(-values, kind="stable")[:k]
    return order if candidates is None else candidates[order]


def _lower_bound(row: Row, k: int) -> float:
    """A value that at least k elements reach: the k-th largest of the maxima of disjoint groups."""
    width = len(row) // _STRIDES
    maxima = row[: width * _STRIDES].reshape(_STRIDES, width).max(axis=0)
    maxima = np.concatenate([maxima, row[width * _STRIDES :]])
    if len(maxima) <= k:
        return float(row.min())
    return float(np.partition(maxima, len(maxima) - k)[len(maxima) - k])


def exponentials(row: Row, highest: float, temperature: float, out: Row) -> Row:
    """exp(row / temperature) up to a common factor, in `out`; `highest` is the largest of `row`."""
    # Below this float32 the scaled logits could overflow; the result is greedy long before.
    scale = 1.0 / max(temperature, 1e-6)
    source = row
    if not _EXP_RANGE[0] < highest * scale < _EXP_RANGE[1]:
        source = np.subtract(row, np.float32(highest), out=out)
    if scale != 1.0:
        source = np.multiply(source, np.float32(scale), out=out)
    return np.exp(source, out=out)


def _block_sums(weights: Row) -> NDArray[np.float64]:
    """Sums of consecutive blocks, the last one shorter."""
    whole = len(weights) // _BLOCK * _BLOCK
    # einsum: no second thread as BLAS would take, and twice as fast as sum(axis=1).
    sums = np.einsum("ij->i", weights[:whole].reshape(-1, _BLOCK))
    return np.append(sums, weights[whole:].sum()).astype(np.float64)


def total(weights: Row) -> float:
    """The sum of `weights` with an error of a few units of float32's last place."""
    if len(weights) <= _SMALL:
        return float(weights.sum(dtype=np.float64))
    return float(_block_sums(weights).sum())


def draw(weights: Row, uniform: float) -> int:
    """The index where the running sum of `weights` passes `uniform` (0 to 1) of the total.

    Sums blocks first and walks one block only; float64 where error would add up.
    """
    if len(weights) <= _SMALL:
        return _walk(weights, uniform)
    running = _block_sums(weights).cumsum()
    target = uniform * running[-1]
    block = int(running.searchsorted(target, "right"))
    if block >= len(running):
        return int(weights.nonzero()[0][-1])
    before = running[block - 1] if block else 0.0
    start = block * _BLOCK
    within = weights[start : start + _BLOCK]
    return start + _walk(within, (target - before) / (running[block] - before))


def _walk(weights: Row, uniform: float) -> int:
    running = weights.cumsum(dtype=np.float64)
    index = int(running.searchsorted(uniform * running[-1], "right"))
    # A rounding may reach the end: stay on the last weight above 0.
    return index if index < len(weights) else int(weights.nonzero()[0][-1])


class Head:
    """The likely tokens of a row: all that come within `reach` of the largest logit."""

    def __init__(self, row: Row, reach: float) -> None:
        """One pass for the largest and one for the rest; `highest` is NaN or -inf where the row
        has no token to choose."""
        self.best = int(row.argmax())
        """The lowest id among equals."""
        self.highest = float(row[self.best])
        # Far from zero float32 is coarse: the bound has to lie below the largest in any case.
        reach = max(reach, 1.0, 1e-6 * abs(self.highest))
        bound = np.float32(self.highest - reach)
        self.bound = float(bound)
        reached = row >= bound
        # Picking ids out of a dense mask costs more than a pass of exponentials.
        sparse = 16 * np.count_nonzero(reached) < len(row)
        self.tokens: Tokens | None = reached.nonzero()[0] if sparse else None
        """Ascending; None where they are too many to be of use."""

    def largest(self, row: Row, k: int) -> Tokens:
        """As the function of this name, for the row that this is the head of."""
        if self.tokens is None or len(self.tokens) < k:
            return largest(row, k)
        return first(row, k, self.tokens)


def draw_by_head(row: Row, head: Head, temperature: float, random: Callable[[], float]) -> int:
    """A token of softmax(row / temperature) that looks at the tail only where it must.

    Exact rejection: the tail's weights are replaced by their bound, which needs no exponentials;
    a token drawn from there is accepted with the ratio of its weight to the bound. `random` gives
    numbers from 0 to 1; a head of reach `temperature` × ln(n_vocab) needs it 2 times on average
    at most.
    """
    tokens = head.tokens
    assert tokens is not None
    weights = np.exp((row[tokens].astype(np.float64) - head.highest) / temperature)
    running = weights.cumsum()
    in_head = float(running[-1])
    ceiling = math.exp((head.bound - head.highest) / temperature)
    while True:
        target = random() * (in_head + len(row) * ceiling)
        if target < in_head:
            return int(tokens[running.searchsorted(target, "right")])
        token = min(int((target - in_head) / ceiling), len(row) - 1)
        logit = float(row[token])
        # The head has had its share; NaN and -inf are never accepted.
        accepted = random() * ceiling < math.exp(min(0.0, logit - head.highest) / temperature)
        if logit < head.bound and accepted:
            return token


def nucleus(weights: Row, p: float) -> Tokens:
    """Ids of the fewest heaviest weights that reach the share p of the total, heaviest first."""
    goal = p * total(weights)
    bound = float(weights.max())
    while True:
        bound *= 1e-2
        candidates = above(weights, bound)
        heavy = weights[candidates]
        if bound < _TINY or float(heavy.sum(dtype=np.float64)) >= goal:
            break
    order = np.argsort(-heavy, kind="stable")
    running = heavy[order].cumsum(dtype=np.float64)
    count = int(running.searchsorted(goal, "left")) + 1
    return candidates[order[:count]]
