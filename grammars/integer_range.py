"""Whole numbers between two bounds as nodes, without an automaton."""

from __future__ import annotations

from . import charset, nodes
from .nodes import EPSILON, NEVER, Chars, Literal, Node


def integer_range(low: int | None, high: int | None) -> Node:
    """The decimals of low..high (None: no bound); zero has no sign."""
    options: list[Node] = []
    if low is None or low < 0:
        least = 1 if high is None or high >= -1 else -high
        below = _magnitudes(least, None if low is None else -low)
        options.append(nodes.sequence(Literal("-"), below))
    if (low is None or low <= 0) and (high is None or high >= 0):
        options.append(Literal("0"))
    if high is None or high > 0:
        options.append(_magnitudes(max(1, low or 1), high))
    return nodes.choice(*options)


def _magnitudes(low: int, high: int | None) -> Node:
    """low..high for low >= 1, by the number of digits."""
    if high is not None and low > high:
        return NEVER
    first = str(low)
    if high is None:
        longer = nodes.sequence(_digits(1, 9), _any(len(first), None))
        return nodes.choice(_at_least(first), longer)
    last = str(high)
    if len(first) == len(last):
        return _between(first, last)
    options = [_at_least(first), _between("1" + "0" * (len(last) - 1), last)]
    if len(last) - len(first) > 1:
        options.insert(1, nodes.sequence(_digits(1, 9), _any(len(first), len(last) - 2)))
    return nodes.choice(*options)


def _between(first: str, last: str) -> Node:
    """Texts of equal length from `first` to `last`."""
    if not first:
        return EPSILON
    rest = len(first) - 1
    if set(first) == {"0"} and set(last) == {"9"}:
        return _any(rest + 1, rest + 1)
    low, high = int(first[0]), int(last[0])
    if low == high:
        return nodes.sequence(Literal(first[0]), _between(first[1:], last[1:]))
    options = []
    if set(first[1:]) - {"0"}:
        options.append(nodes.sequence(Literal(first[0]), _at_least(first[1:])))
        low += 1
    tail = None
    if set(last[1:]) - {"9"}:
        tail = nodes.sequence(Literal(last[0]), _between("0" * rest, last[1:]))
        high -= 1
    if low <= high:
        options.append(nodes.sequence(_digits(low, high), _any(rest, rest)))
    return nodes.choice(*options, *([tail] if tail else []))


def _at_least(first: str) -> Node:
    return _between(first, "9" * len(first))


def _digits(low: int, high: int) -> Node:
    if low == high:
        return Literal(str(low))
    return Chars(charset.normalize([(0x30 + low, 0x30 + high)]))


def _any(low: int, high: int | None) -> Node:
    return nodes.repeat(Chars(charset.DIGIT), low, high)
