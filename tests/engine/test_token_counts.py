"""Counts of tokens as arrays."""

from __future__ import annotations

import random
from collections import Counter

from engine.token_counts import TokenCounts


def test_counts_are_those_of_a_counter_however_many_tokens_come() -> None:
    rng = random.Random(4)
    tokens = [rng.randrange(500) for _ in range(3000)]
    counts = TokenCounts()
    for token in tokens:
        counts.add(token)
    seen = dict(zip(counts.tokens.tolist(), counts.counts.tolist(), strict=True))
    assert seen == Counter(tokens)


def test_what_is_given_at_first_counts_once() -> None:
    counts = TokenCounts([7, 3, 7])
    counts.add(3)
    assert counts.tokens.tolist() == [7, 3]
    assert counts.counts.tolist() == [1, 2]
