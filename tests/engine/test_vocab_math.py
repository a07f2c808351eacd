"""Each reduction against the plain way to write it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.vocab_math import Row, draw, largest, nucleus

rows = arrays.arrays(
    np.float32,
    st.integers(1, 900),
    # Few distinct values, so that ties are common.
    elements=st.integers(-6, 6).map(float) | st.floats(-30, 30, width=32),
)


@given(rows, st.integers(1, 40))
def test_largest_is_a_stable_descending_sort(row: Row, k: int) -> None:
    expected = np.argsort(-row, kind="stable")[:k]
    assert largest(row, k).tolist() == expected.tolist()


def test_largest_with_banned_tokens() -> None:
    row = np.full(5000, -np.inf, np.float32)
    row[[7, 4999, 300]] = [1, 3, 2]
    assert largest(row, 3).tolist() == [4999, 300, 7]
    assert largest(row, 5).tolist()[:3] == [4999, 300, 7]


@given(rows, st.floats(0.01, 0.999))
def test_nucleus_is_the_smallest_heaviest_set_that_reaches_p(row: Row, p: float) -> None:
    weights = np.exp(row - row.max())
    kept = nucleus(weights, p)
    order = np.argsort(-weights, kind="stable")
    assert kept.tolist() == order[: len(kept)].tolist()
    total = weights.sum(dtype=np.float64)
    reached = weights[kept].sum(dtype=np.float64)
    assert reached >= p * total * (1 - 1e-5)
    assert reached - weights[kept[-1]] <= p * total * (1 + 1e-5)


@settings(max_examples=300)
@given(rows, st.floats(0, 1, exclude_max=True))
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
