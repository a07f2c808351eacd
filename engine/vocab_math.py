"""Reductions over a row of the vocabulary, each one pass of vector instructions.

Rows have shape (n_vocab,), float32, and are never changed. What NumPy has by itself (partition,
cumsum, sum over an axis, float64 temporaries) is 2 to 20 times slower at 262,144 tokens.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]
Tokens = NDArray[np.intp]
Weights = list[float] | NDArray[np.float64]
"""Of a few tokens, a list where they are at most `SHORT`."""

SHORT = 128
"""Elements up to which plain Python is faster: right after a step of the model the caches hold
neither data nor code, and each kind of call to NumPy costs 10 to 30 us instead of 1."""
FEW = 512
"""Elements of which Python finds the likeliest sooner than NumPy."""
LIKELY = 8.0
"""Nats below the likeliest token within which the top ones nearly always are."""
_FOLDS = 16
WIDE = 1 << 17
"""Tokens from which a mask over the vocabulary is slower than the maxima of its columns."""
_FARTHEST = 40.0
"""Nats to which the search for the k likeliest tokens goes."""
_STRIDES = 64
_BLOCK = 256
_SMALL = 2048
_TINY = 1e-37
_EXP_RANGE = (-20.0, 60.0)
"""Largest exponents for which float32 sums of exponentials need no shift: 2^24 of them stay
finite, and what underflows is 60 nats below the largest."""

_LOG2_E = math.log2(math.e)


def _has_fast_exp2() -> bool:
    """Whether NumPy has vector code for exp2 here (AVX-512 on Linux): it takes a third of exp's
    time, and elsewhere several times as much."""
    found = np.lib.introspect.opt_func_info(func_name="^exp2$", signature="float32")
    targets = [each["current"] for each in found.get("exp2", {}).values()]
    return any("AVX512" in target or "X86_V4" in target for target in targets)


FAST_EXP2 = _has_fast_exp2()


def above(row: Row, bound: float) -> Tokens:
    """Ids of the values that reach `bound`, ascending."""
    return (row >= np.float32(bound)).nonzero()[0]


def largest(row: Row, k: int) -> Tokens:
    """Ids of the k largest values, largest first, of equal ones the lowest id first."""
    candidates = above(row, _lower_bound(row, k)) if 4 * k < len(row) else None
    return first(row, k, candidates)


def first(row: Row, k: int, candidates: Tokens | None) -> Tokens:
    """The `k` largest of the ascending ids `candidates` (None: all), in the order of `largest`."""
    values = row if candidates is None else row.take(candidates)
    if candidates is not None and len(values) > max(1024, 4 * k):
        candidates = candidates[values >= np.partition(values, len(values) - k)[len(values) - k]]
        values = row.take(candidates)
    order = descending(values)[:k]
    return np.asarray(order) if candidates is None else candidates.take(order)


def descending(values: Row) -> Tokens | list[int]:
    """Places of the values, largest first, of equal ones the first first."""
    if len(values) <= SHORT:
        plain = values.tolist()
        return sorted(range(len(plain)), key=plain.__getitem__, reverse=True)
    return np.argsort(-values, kind="stable")


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
    if FAST_EXP2:
        scaled = np.multiply(source, np.float32(scale * _LOG2_E), out=out)
        return np.exp2(scaled, out=out)
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
    if len(weights) < WIDE:
        return float(np.add.reduce(weights))
    width = len(weights) // _FOLDS
    whole = width * _FOLDS
    columns = np.add.reduce(weights[:whole].reshape(_FOLDS, width), 0)
    return float(np.add.reduce(columns)) + float(np.add.reduce(weights[whole:]))


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


def _fold_maxima(row: Row) -> Row:
    """The largest of each column of `row` in `_FOLDS` lines; what is left over goes to the last."""
    width = len(row) // _FOLDS
    whole = width * _FOLDS
    maxima: Row = np.maximum.reduce(row[:whole].reshape(_FOLDS, width), 0)
    if whole < len(row):
        maxima[-1] = np.maximum(maxima[-1], row[whole:].max())
    return maxima


def _unfolded(length: int, columns: Tokens) -> Tokens:
    """Ids of the members of `columns` in a row of this length, ascending."""
    width = length // _FOLDS
    ids = (np.arange(0, width * _FOLDS, width)[:, None] + columns).ravel()
    if length % _FOLDS and len(columns) and columns[-1] == width - 1:
        ids = np.concatenate([ids, np.arange(width * _FOLDS, length)])
    return ids


class Head:
    """The likely tokens of a row: all that come within `reach` of the largest logit."""

    def __init__(self, row: Row, reach: float) -> None:
        """Two passes; one over rows so long that writing a mask of them costs more than looking
        closer at some. `highest` is NaN or -inf where the row has no token to choose."""
        self._maxima = _fold_maxima(row) if len(row) >= WIDE else None
        at = row if self._maxima is None else self._maxima
        best = int(at.argmax())
        self.highest: float = at.item(best)
        bound = self._bound(reach)
        self.bound = float(bound)
        tokens = self._reaching(row, bound)
        self.logits = row.take(tokens)
        """Of `tokens`."""
        # Picking among so many costs more than a pass of exponentials.
        self.tokens = tokens if 16 * len(tokens) < len(row) else None
        """Ascending; None where they are too many to be of use."""
        if self._maxima is not None and len(tokens):
            best = tokens.item(self.logits.argmax())
        self.best = best
        """The lowest id among equals."""

    @cached_property
    def values(self) -> list[float] | None:
        """`logits`, where plain Python is to look at them; not all samplers do."""
        return self.logits.tolist() if len(self.logits) <= FEW else None

    def _bound(self, reach: float) -> np.float32:
        # Far from zero float32 is coarse: the bound has to lie below the largest in any case.
        return np.float32(self.highest - max(reach, 1.0, 1e-6 * abs(self.highest)))

    def within(self, reach: float) -> tuple[float, Tokens, Row | list[float]]:
        """The bound of a head of this reach, at most its own, with its tokens and their logits."""
        assert self.tokens is not None
        bound, values = float(self._bound(reach)), self.values
        if bound <= self.bound:
            return self.bound, self.tokens, self.logits if values is None else values
        if values is None:
            nearer = (self.logits >= np.float32(bound)).nonzero()[0]
            return bound, self.tokens.take(nearer), self.logits.take(nearer)
        places = [place for place, value in enumerate(values) if value >= bound]
        return bound, self.tokens.take(places), [values[place] for place in places]

    def _reaching(self, row: Row, bound: np.float32) -> Tokens:
        if self._maxima is not None:
            columns = (self._maxima >= bound).nonzero()[0]
            if 16 * len(columns) < len(self._maxima):
                among = _unfolded(len(row), columns)
                return among[(row.take(among) >= bound).nonzero()[0]]
        return (row >= bound).nonzero()[0]

    def ranked(self, row: Row, k: int) -> list[tuple[int, float]]:
        """The ids of `largest` with their logits."""
        tokens, values = self.tokens, self.values
        if tokens is None or values is None or len(values) < k:
            ids = self.largest(row, k)
            return list(zip(ids.tolist(), row.take(ids).tolist(), strict=True))
        # Half of the way down there are nearly always enough.
        cut = (self.highest + self.bound) / 2
        near = [place for place, value in enumerate(values) if value >= cut]
        order = sorted(
            near if len(near) >= k else range(len(values)), key=values.__getitem__, reverse=True
        )
        return [(tokens.item(place), values[place]) for place in order[:k]]

    def largest(self, row: Row, k: int) -> Tokens:
        """As the function of this name, for the row that this is the head of."""
        tokens, reach = self.tokens, self.highest - self.bound
        while tokens is not None and len(tokens) < k and reach < _FARTHEST:
            reach *= 1.5
            tokens = self._reaching(row, np.float32(self.highest - reach))
        if tokens is None or len(tokens) < k:
            return largest(row, k)
        if tokens is self.tokens and len(tokens) > SHORT:
            nearer = (self.logits >= np.float32(self.highest - 0.5 * reach)).nonzero()[0]
            tokens = tokens if len(nearer) < k else tokens.take(nearer)
        return first(row, k, tokens)


def draw_by_head(
    row: Row, head: Head, reach: float, temperature: float, random: Callable[[], float]
) -> int:
    """A token of softmax(row / temperature) that looks at the tail only where it must.

    Exact rejection: the tail's weights are replaced by their bound, which needs no exponentials;
    a token drawn from there is accepted with the ratio of its weight to the bound. `random` gives
    numbers from 0 to 1: with a `reach`, the head's at most, of `temperature` × ln(n_vocab / x) it
    is asked 1 + 2 x times on average at most.
    """
    bound, tokens, logits = head.within(reach)
    running = running_sums(weigh(logits, head.highest, temperature))
    in_head = float(running[-1])
    ceiling = math.exp((bound - head.highest) / temperature)
    while True:
        target = random() * (in_head + len(row) * ceiling)
        if target < in_head:
            return tokens.item(bisect_right(running, target))
        token = min(int((target - in_head) / ceiling), len(row) - 1)
        logit = float(row[token])
        # The head has had its share; NaN and -inf are never accepted.
        accepted = random() * ceiling < math.exp(min(0.0, logit - head.highest) / temperature)
        if logit < bound and accepted:
            return token


def weigh(logits: Row | list[float], highest: float, temperature: float) -> Weights:
    """exp((logits - highest) / temperature)."""
    if not isinstance(logits, list):
        if len(logits) > SHORT:
            return np.exp((logits.astype(np.float64) - highest) / temperature)
        logits = logits.tolist()
    exp = math.exp
    return [exp((logit - highest) / temperature) for logit in logits]


def running_sums(weights: Weights) -> Weights:
    """Each with all before it."""
    return list(accumulate(weights)) if isinstance(weights, list) else weights.cumsum()


def pick(weights: Weights, uniform: float) -> int:
    """As `draw`, of a few."""
    running = running_sums(weights)
    index = bisect_right(running, uniform * running[-1])
    # A rounding may reach the end: stay on the last weight above 0.
    return index if index < len(weights) else max(at for at, each in enumerate(weights) if each)


def count_nucleus(weights: Weights, goal: float) -> int | None:
    """How many of the descending `weights` it takes to reach `goal`; None: all are not enough."""
    count = bisect_left(running_sums(weights), goal) + 1
    return count if count <= len(weights) else None


def nucleus(weights: Row, goal: float, highest: float) -> Tokens:
    """Ids of the fewest heaviest weights whose sum reaches `goal`, heaviest first; `highest` is
    the largest weight."""
    bound = highest
    while True:
        bound *= 1e-2
        candidates = above(weights, bound)
        heavy = weights.take(candidates)
        order = descending(heavy)
        count = count_nucleus(heavy.take(order).astype(np.float64), goal)
        if count is not None or bound < _TINY:
            return candidates.take(order[:count])
