"""Random constraints on numbers against their definition."""

import random
from fractions import Fraction

import pytest

from grammars import nodes
from grammars.gbnf import print_gbnf
from grammars.numbers import NumberConstraint, is_empty, spell, to_automaton, to_node
from tests.grammars.support import DONE, GbnfMatcher

NO_NUMBERS = ("-0", "00", "01", "1.", ".5", "-", "1e5", "-0.0", "+1", "")
EDGES = (0, 10, -10, 99, 100, 999, 1000, -99, -100)


@pytest.mark.parametrize("seed", range(5))
def test_whole_numbers_between_bounds(seed):
    rng = random.Random(seed)

    def bound():
        whole = rng.choice([None, rng.randrange(-20, 20), rng.randrange(-1500, 1500),
                            rng.randrange(-(10**6), 10**6)])  # fmt: skip
        return None if whole is None else whole + rng.choice([Fraction(0), Fraction(1, 2)])

    for _ in range(60):
        low, high = bound(), bound()
        if low is None and high is None:
            continue
        c = NumberConstraint(low, high, low is not None and rng.random() < 0.3,
                             high is not None and rng.random() < 0.3, Fraction(1))  # fmt: skip
        node = to_node(c)
        if nodes.is_never(node):
            assert is_empty(c) and to_automaton(c).is_empty()
            continue
        matcher = GbnfMatcher(print_gbnf(node))
        near = (int(x) + d for x in (low or 0, high or 0, *EDGES) for d in (-2, -1, 0, 1, 2))
        for x in {*near, *(rng.randrange(-(10**6), 10**6) for _ in range(10))}:
            assert (matcher.judge(str(x)) == DONE) == c.accepts(Fraction(x)), (c, x)
        assert all(matcher.judge(text) != DONE for text in (*NO_NUMBERS, "1.0"))


@pytest.mark.parametrize("seed", range(5))
def test_decimals(seed):
    rng = random.Random(seed)

    def number():
        return Fraction(rng.choice([0, rng.randrange(-30, 30), rng.randrange(-3000, 3000)]),
                        rng.choice([1, 1, 10, 100]))  # fmt: skip

    for _ in range(40):
        low, high = rng.choice([None, number()]), rng.choice([None, number()])
        c = NumberConstraint(
            low, high, rng.random() < 0.3, rng.random() < 0.3,
            rng.choice([None, Fraction(1), Fraction(1, 100), Fraction(3), Fraction(5, 2)]),
            frozenset(rng.choice([[], [Fraction(2)]])), frozenset(rng.choice([[], [number()]])),
        )  # fmt: skip
        a = to_automaton(c)
        whole = c.step is not None and c.step.denominator == 1
        for x in (number(), number(), low or 0, high or 0, Fraction(low or 0) + Fraction(1, 10)):
            text = spell(Fraction(x))
            assert a.matches(text) == c.accepts(Fraction(x)), (c, text)
            longer = text + ("0" if "." in text else ".0")
            assert a.matches(longer) == (c.accepts(Fraction(x)) and not whole), (c, longer)
        assert not any(a.matches(text) for text in NO_NUMBERS)


@pytest.mark.parametrize("seed", range(3))
def test_decimals_between_whole_bounds(seed):
    """Their nodes are made without the automaton, which judges them here."""
    rng = random.Random(seed)
    for _ in range(60):
        low, high = (rng.choice([None, rng.randrange(-12, 13), rng.randrange(-400, 400)])
                     for _ in "ab")  # fmt: skip
        if low is None and high is None:
            continue  # any number, in any spelling
        c = NumberConstraint(*(None if b is None else Fraction(b) for b in (low, high)),
                             rng.random() < 0.5, rng.random() < 0.5)  # fmt: skip
        a, node = to_automaton(c), to_node(c)
        if nodes.is_never(node):
            assert a.is_empty(), c
            continue
        matcher = GbnfMatcher(print_gbnf(node))
        near = {x + d for x in (low or 0, high or 0, 0, 10, 99) for d in (-1, 0, 1)}
        texts = [f"{x}{rest}" for x in near for rest in ("", ".0", ".00", ".01", ".50", ".99")]
        for text in (*texts, "-0.5", "-0.00", *NO_NUMBERS):
            assert (matcher.judge(text) == DONE) == a.matches(text), (c, text)
