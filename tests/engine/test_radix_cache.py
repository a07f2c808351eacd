"""The radix tree against a plain dictionary."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.radix_cache import RadixTree, common_prefix

sequences = st.lists(st.integers(0, 2), max_size=8).map(tuple)


@given(sequences, sequences)
def test_common_prefix(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    for left, right in ((a, b), (a * 40, b * 40)):
        same = [x == y for x, y in zip(left, right, strict=False)]
        expected = same.index(False) if False in same else len(same)
        assert common_prefix(list(left), list(right)) == expected


@given(st.lists(st.tuples(st.booleans(), sequences), max_size=60), sequences)
def test_a_tree_is_a_dictionary_with_prefixes(
    changes: list[tuple[bool, tuple[int, ...]]], query: tuple[int, ...]
) -> None:
    tree: RadixTree[tuple[int, ...]] = RadixTree()
    model: set[tuple[int, ...]] = set()
    for add, tokens in changes:
        if tokens in model:
            assert tree.remove(list(tokens)) == tokens
            model.remove(tokens)
        elif add:
            tree.insert(list(tokens), tokens)
            model.add(tokens)
        else:
            with pytest.raises(KeyError):
                tree.remove(list(tokens))
    length, value = tree.match_prefix(list(query))
    best = max((common_prefix(list(tokens), list(query)) for tokens in model), default=0)
    assert length == best
    assert (
        (value in model and common_prefix(list(value), list(query)) == best) if model else not value
    )
    prefixes = [tokens for tokens in model if query[: len(tokens)] == tokens and tokens]
    expected = [(len(tokens), tokens) for tokens in sorted(prefixes, key=len)]
    assert list(tree.prefixes_of(list(query))) == expected
    assert tree.longest(list(query)) == (expected[-1] if expected else (0, None))
