"""Decimals between two whole bounds as nodes, without an automaton."""

from __future__ import annotations

from . import charset, nodes
from .integer_range import integer_range
from .nodes import NEVER, Chars, Literal, Node

_DIGITS = nodes.repeat(Chars(charset.DIGIT), 0, None)
_ZEROS = nodes.repeat(Literal("0"), 0, None)
_POINT = Literal(".")
_FRACTION = nodes.sequence(_POINT, nodes.repeat(Chars(charset.DIGIT), 1, None))
_NO_FRACTION = nodes.sequence(_POINT, nodes.repeat(Literal("0"), 1, None))
_SOME_FRACTION = nodes.sequence(_POINT, _ZEROS, Chars(charset.of("123456789")), _DIGITS)


def decimal_range(low: int | None, low_open: bool, high: int | None, high_open: bool) -> Node:
    """The decimals of low..high (None: no bound) without those that are open; none is "-0"."""
    options: list[Node] = []
    if low is None or low < 0:
        least = (0, True) if high is None or high >= 0 else (-high, high_open)
        below = _magnitudes(*least, None if low is None else -low, low_open)
        options.append(nodes.sequence(Literal("-"), below))
    if high is None or high >= 0:
        least = (0, False) if low is None or low < 0 else (low, low_open)
        options.append(_magnitudes(*least, high, high_open))
    return nodes.choice(*options)


def _magnitudes(low: int, low_open: bool, high: int | None, high_open: bool) -> Node:
    """By their whole part, for low >= 0: next to a bound it says which fractions fit."""
    if high is not None and low > high:
        return NEVER
    if low == high:
        one = nodes.sequence(Literal(str(low)), nodes.optional(_NO_FRACTION))
        return NEVER if low_open or high_open else one
    inner = integer_range(low + low_open, None if high is None else high - 1)
    options = [nodes.sequence(inner, nodes.optional(_FRACTION))]
    if low_open:
        options.append(nodes.sequence(Literal(str(low)), _SOME_FRACTION))
    if high is not None and not high_open:
        options.append(nodes.sequence(Literal(str(high)), nodes.optional(_NO_FRACTION)))
    return nodes.choice(*options)
