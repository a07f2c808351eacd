"""Each reduction against the plain way to write it."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import vocab_math
from engine.vocab_math import (
    Head,
    Row,
    count_nucleus,
    descending,
    draw,
    draw_by_head,
    exponentials,
    largest,
    nucleus,
    pick,
    total,
    weigh,
)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """Normal logits of any spread, whole numbers at times, so that ties are common."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(1, 900) | st.integers(2049, 9000))
    row = rng.normal(0, draw(st.floats(0.1, 12)), size)
    return (row.round() if draw(st.booleans()) else row).astype(np.float32)


@given(rows(), st.integers(1, 40))
def test_largest_is_a_stable_descending_sort(row: Row, k: int) -> None:
    expected = np.argsort(-row, kind="stable")[:k]
    assert largest(row, k).tolist() == expected.tolist()


def test_largest_with_banned_tokens() -> None:
    row = np.full(5000, -np.inf, np.float32)
    row[[7, 4999, 300]] = [1, 3, 2]
    assert largest(row, 3).tolist() == [4999, 300, 7]
    assert largest(row, 5).tolist()[:3] == [4999, 300, 7]


@given(rows(), st.floats(0.01, 0.999))
def test_nucleus_is_the_smallest_heaviest_set_that_reaches_p(row: Row, p: float) -> None:
    weights = np.exp(row - row.max())
    kept = nucleus(weights, p * total(weights), float(weights.max()))
    order = np.argsort(-weights, kind="stable")
    assert kept.tolist() == order[: len(kept)].tolist()
    everything = weights.sum(dtype=np.float64)
    reached = weights[kept].sum(dtype=np.float64)
    assert reached >= p * everything * (1 - 1e-5)
    assert reached - weights[kept[-1]] <= p * everything * (1 + 1e-5)


@settings(max_examples=200)
@given(rows(), st.floats(0, 1, exclude_max=True))
def test_draw_is_the_inverse_of_the_running_sum(row: Row, uniform: float) -> None:
    weights = np.exp(row - row.max())
    running = weights.cumsum(dtype=np.float64)
    index = draw(weights, uniform)
    assert weights[index] > 0
    target = uniform * running[-1]
    error = 1e-5 * running[-1]
    assert running[index] >= target - error
    assert running[index] - weights[index] <= target + error


@pytest.mark.parametrize("n", [1, 255, 256, 257, 1024, 49152])
@pytest.mark.parametrize("uniform", [0.0, 0.5, float(np.nextafter(1, 0))])
def test_draw_never_leaves_the_support(n: int, uniform: float) -> None:
    weights = np.zeros(n, np.float32)
    weights[n // 2] = 1
    assert draw(weights, uniform) == n // 2


@given(rows(), st.floats(0, 20), st.integers(1, 40), st.sampled_from([64, 1 << 17]))
def test_a_head_has_all_that_come_within_its_reach(
    row: Row, reach: float, k: int, wide: int
) -> None:
    with patch.object(vocab_math, "WIDE", wide):
        head = Head(row, reach)
    assert head.best == row.argmax()
    assert head.bound <= head.highest - reach + 1e-5
    if head.tokens is not None:
        assert head.tokens.tolist() == np.flatnonzero(row >= np.float32(head.bound)).tolist()
        assert head.logits.tolist() == row[head.tokens].tolist()
    assert head.largest(row, k).tolist() == np.argsort(-row, kind="stable")[:k].tolist()


@pytest.mark.parametrize("bad", [-np.inf, np.nan])
@pytest.mark.parametrize("wide", [64, 1 << 17])
def test_a_head_of_nothing_says_so(bad: float, wide: int) -> None:
    row = np.full(3000, bad, np.float32)
    with patch.object(vocab_math, "WIDE", wide):
        head = Head(row, 8.0)
    assert not np.isfinite(head.highest)
    assert not np.isfinite(row[head.best])


@given(rows(), st.sampled_from([64, 1 << 17]))
def test_the_total_of_a_wide_row_is_as_exact(row: Row, wide: int) -> None:
    weights = np.exp(row - row.max())
    with patch.object(vocab_math, "WIDE", wide):
        assert total(weights) == pytest.approx(weights.sum(dtype=np.float64), rel=1e-6)


@given(rows(), st.floats(0, 1, exclude_max=True), st.sampled_from([0.3, 1.0]))
def test_few_weights_are_drawn_from_like_many(row: Row, uniform: float, temperature: float) -> None:
    """Lists and arrays of the same weights: the same token, the same nucleus, the same order."""
    few = row[: vocab_math.SHORT]
    plain = weigh(few, float(few.max()), temperature)
    arrays = np.array(plain)
    assert isinstance(plain, list)
    assert plain == pytest.approx(np.exp((few.astype(np.float64) - few.max()) / temperature))
    assert pick(plain, uniform) == pick(arrays, uniform)
    order = descending(few)
    assert list(order) == np.argsort(-few, kind="stable").tolist()
    goal = 0.9 * sum(plain)
    heaviest = arrays[order]
    assert count_nucleus(heaviest.tolist(), goal) == count_nucleus(heaviest, goal)
    assert count_nucleus(heaviest, 1.1 * sum(plain)) is None


@given(
    rows(),
    st.sampled_from([0.01, 0.7, 1.0, 3.0]),
    st.sampled_from([0.0, 1e4, -300.0]),
    st.booleans(),
)
def test_exponentials_never_leave_float32(
    row: Row, temperature: float, offset: float, fast_exp2: bool
) -> None:
    row += np.float32(offset)
    highest = float(row.max())
    exact = np.exp((row.astype(np.float64) - highest) / temperature)
    with patch.object(vocab_math, "FAST_EXP2", fast_exp2):
        weights = exponentials(row, highest, temperature, np.empty_like(row))
    np.testing.assert_allclose(weights / weights.max(), exact, rtol=1e-3, atol=1e-30)
    assert total(weights) / weights.max() == pytest.approx(exact.sum(), rel=1e-3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_tail_of_a_head_gets_its_share(temperature: float) -> None:
    """Most of the mass lies outside the head, at two heights, and some tokens are banned."""
    row = np.full(1600, -np.inf, np.float32)
    row[:10], row[100:700], row[800:1200] = 1.0, -2.0 * temperature, -3.0 * temperature
    head = Head(row, 1.5)
    assert head.tokens is not None
    assert len(head.tokens) == 10
    random = np.random.default_rng(8).random
    drawn = np.array([draw_by_head(row, head, 1.5, temperature, random) for _ in range(20_000)])
    weights = np.exp(row.astype(np.float64) / temperature)
    for part in (slice(0, 10), slice(100, 700), slice(800, 1200)):
        share = weights[part].sum() / weights.sum()
        seen = np.mean((drawn >= part.start) & (drawn < part.stop))
        assert seen == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / 20_000))
    assert np.isfinite(row[drawn]).all()
    assert len(set(drawn.tolist())) > 900
