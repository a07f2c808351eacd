"""A thought with a budget, against the plain reading of the whole text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.request import ThoughtBudget
from engine.thought import ThoughtLimit

pieces = st.lists(st.text(alphabet=" <t/>x", max_size=4), max_size=25)


def closes_after(texts: list[str], budget: ThoughtBudget) -> int | None:
    """After how many tokens the first closing token is due, by definition."""
    for spent in range(len(texts) + 1):
        text = "".join(texts[:spent])
        lead = text.lstrip()
        if budget.marker in text or not budget.open.startswith(lead[: len(budget.open)]):
            return None
        if lead.startswith(budget.open) and spent >= budget.tokens:
            return spent
    return None


@given(pieces, st.integers(0, 8), st.sampled_from(["", "<t>", "t"]), st.sampled_from(["</t>", "/"]))
def test_it_closes_when_the_whole_text_says_so(
    texts: list[str], tokens: int, opening: str, marker: str
) -> None:
    budget = ThoughtBudget(tokens, [7, 8], marker, opening)
    limit = ThoughtLimit(budget)
    expected = closes_after(texts, budget)
    for spent, text in enumerate([*texts, ""]):
        due = limit.next()
        assert (due is not None) == (spent == expected)
        if due is not None:
            assert (due, limit.next()) == (7, 8)
            return
        limit.push(text)


@pytest.mark.parametrize("marker", ["</think>", "x"])
def test_a_long_thought_is_not_read_again_for_each_token(marker: str) -> None:
    limit = ThoughtLimit(ThoughtBudget(10**9, [1], marker, "<think>"))
    limit.push(" \n<think>")
    for _ in range(2000):
        limit.push("so ")
    assert len(limit._tail) < len(marker)
    assert limit._open
    limit.push("..." + marker)
    assert not limit._open
