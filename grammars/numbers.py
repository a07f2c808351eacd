"""Constraints on numbers, and their digits as automata.

Values are exact fractions: a JSON number is a decimal, whatever a float makes of it. A number
without constraints may be spelled in any way; a constrained one is written without exponent.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction

from msgspec import Struct
from msgspec.structs import replace

from . import charset, digits, nodes, regular
from .automaton import Automaton
from .decimal_range import decimal_range
from .errors import LimitExceeded, UnsupportedSchema
from .integer_range import integer_range
from .memo import memo
from .nodes import NEVER, Chars, Dfa, Literal, Node, Rule, Token

MAX_BITS = 4_000
PLAIN = 10**30  # whole numbers below are spelled digit by digit

_DIGITS = nodes.repeat(Chars(charset.DIGIT), 0, None)
_INTEGER = nodes.sequence(
    nodes.optional(Literal("-")),
    nodes.choice(Literal("0"), nodes.sequence(Chars(charset.of("123456789")), _DIGITS)),
)
_SOME_DIGITS = nodes.repeat(Chars(charset.DIGIT), 1, None)
_FRACTION = nodes.sequence(Literal("."), _SOME_DIGITS)
_EXPONENT = nodes.sequence(
    Chars(charset.of("eE")), nodes.optional(Chars(charset.of("+-"))), _SOME_DIGITS
)
INTEGER = Rule("integer", Token(_INTEGER), True)
NUMBER = Rule(
    "number",
    Token(nodes.sequence(_INTEGER, nodes.optional(_FRACTION), nodes.optional(_EXPONENT))),
    True,
)


class NumberConstraint(Struct, frozen=True, cache_hash=True, gc=False):
    """low <= x <= high (or <, >), a multiple of `step`, of none of `not_steps`, not `excluded`.

    `values`, where given, is the whole set. An integer is a multiple of 1.
    """

    low: Fraction | None = None
    high: Fraction | None = None
    low_open: bool = False
    high_open: bool = False
    step: Fraction | None = None
    not_steps: frozenset[Fraction] = frozenset()
    excluded: frozenset[Fraction] = frozenset()
    values: tuple[Fraction, ...] | None = None

    @property
    def weight(self) -> int:
        """About the bytes it takes, with numbers of a usual size."""
        return 600 + 150 * (len(self.not_steps) + len(self.excluded) + len(self.values or ()))

    def accepts(self, x: Fraction) -> bool:
        return (
            (self.low is None or (x > self.low if self.low_open else x >= self.low))
            and (self.high is None or (x < self.high if self.high_open else x <= self.high))
            and (self.step is None or (x / self.step).denominator == 1)
            and all((x / s).denominator != 1 for s in self.not_steps)
            and x not in self.excluded
            and (self.values is None or x in self.values)
        )


ANY = NumberConstraint()
WHOLE = NumberConstraint(step=Fraction(1))


def exact(value: int | float) -> Fraction:
    """The decimal that a JSON number spells; refuses infinities and thousands of digits."""
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise LimitExceeded("", "", "states", "a number of too many digits")
        return Fraction(value)
    if not math.isfinite(value):
        raise UnsupportedSchema("", "", "a number that is not finite")
    return Fraction(Decimal(repr(value)))


def intersect(a: NumberConstraint, b: NumberConstraint) -> NumberConstraint | None:
    if a == ANY:
        return b
    if b == ANY:
        return a
    low, low_open = _tighter((a.low, a.low_open), (b.low, b.low_open), 1)
    high, high_open = _tighter((a.high, a.high_open), (b.high, b.high_open), -1)
    both = NumberConstraint(
        low, high, low_open, high_open, _common_step(a.step, b.step),
        a.not_steps | b.not_steps, a.excluded | b.excluded,
    )  # fmt: skip
    if a.values is not None or b.values is not None:
        first, other = (a, b) if a.values is not None else (b, a)
        values = tuple(v for v in first.values or () if both.accepts(v) and other.accepts(v))
        return NumberConstraint(values=values) if values else None
    return None if _impossible(both) else both


Bound = tuple[Fraction | None, bool]


def _tighter(a: Bound, b: Bound, sign: int) -> Bound:
    if a[0] is None or b[0] is None:
        return b if a[0] is None else a
    if a[0] == b[0]:
        return a[0], a[1] or b[1]
    return a if (a[0] - b[0]) * sign > 0 else b


def _common_step(a: Fraction | None, b: Fraction | None) -> Fraction | None:
    if a is None or b is None:
        return a if b is None else b
    denominator = a.denominator * b.denominator
    common = math.lcm(a.numerator * b.denominator, b.numerator * a.denominator)
    return Fraction(common, denominator)


def _impossible(c: NumberConstraint) -> bool:
    if c.step is not None and any((c.step / s).denominator == 1 for s in c.not_steps):
        return True
    if c.low is None or c.high is None:
        return False
    return c.low > c.high or (c.low == c.high and not c.accepts(c.low))


def complement(c: NumberConstraint) -> list[NumberConstraint]:
    if c.values is not None:
        return [NumberConstraint(excluded=frozenset(c.values))]
    out = []
    if c.low is not None:
        out.append(NumberConstraint(high=c.low, high_open=not c.low_open))
    if c.high is not None:
        out.append(NumberConstraint(low=c.high, low_open=not c.high_open))
    if c.step is not None:
        out.append(NumberConstraint(not_steps=frozenset((c.step,))))
    out += [NumberConstraint(step=s) for s in sorted(c.not_steps)]
    if c.excluded:
        out.append(NumberConstraint(values=tuple(sorted(c.excluded))))
    return out


@memo(lambda a, c: a.weight + c.weight, 16_000_000)
def to_automaton(c: NumberConstraint) -> Automaton:
    """See `digits.decimals`. Whole numbers have one spelling, so excluding some is cheap."""
    if c.excluded and c.step is not None and c.step.denominator == 1:
        kept = digits.decimals(replace(c, excluded=frozenset()))
        return regular.difference(kept, regular.of_texts(map(spell, c.excluded)))
    return digits.decimals(c)


def is_empty(c: NumberConstraint) -> bool:
    if c.values is not None:
        return not c.values
    if not (c.not_steps or c.excluded):
        return _bounds_cross(c)
    return to_automaton(c).is_empty()


def _whole_bounds(c: NumberConstraint) -> tuple[int | None, int | None]:
    """The least and the greatest whole number within the bounds."""
    low = None if c.low is None else math.ceil(c.low)
    high = None if c.high is None else math.floor(c.high)
    if low is not None and c.low_open and low == c.low:
        low += 1
    if high is not None and c.high_open and high == c.high:
        high -= 1
    return low, high


def _bounds_cross(c: NumberConstraint) -> bool:
    """Whether no multiple of the step lies between the bounds; other parts are not looked at."""
    if c.low is None or c.high is None:
        return False
    if c.step is None:
        return c.low > c.high or (c.low == c.high and (c.low_open or c.high_open))
    first = math.ceil(c.low / c.step)
    if c.low_open and first * c.step == c.low:
        first += 1
    least = first * c.step
    return least > c.high or (c.high_open and least == c.high)


def to_node(c: NumberConstraint) -> Node:
    if c == ANY:
        return NUMBER
    if c == WHOLE:
        return INTEGER
    if c.values is not None:
        return nodes.choice(*(Token(Literal(spell(v))) for v in c.values))
    return _token(c)


@memo(lambda _, c: 10 * c.weight, 8_000_000)
def _token(c: NumberConstraint) -> Node:
    if c.step == 1 and not (c.not_steps or c.excluded):
        found = integer_range(*_whole_bounds(c))
        return found if nodes.is_never(found) else Token(found)
    if _bounds_alone(c):
        found = decimal_range(_whole(c.low), c.low_open, _whole(c.high), c.high_open)
        return found if nodes.is_never(found) else Rule("decimal", Token(found), True)
    a = to_automaton(c)
    return NEVER if a.is_empty() else Rule("decimal", Token(Dfa(a)), True)


def _bounds_alone(c: NumberConstraint) -> bool:
    """Whether whole bounds are all there is."""
    bounds = [b for b in (c.low, c.high) if b is not None]
    whole = all(b.denominator == 1 and abs(b) < PLAIN for b in bounds)
    return whole and c.step is None and not (c.not_steps or c.excluded)


def _whole(bound: Fraction | None) -> int | None:
    return None if bound is None else bound.numerator


def spell(value: Fraction) -> str:
    """A decimal without exponent where that is short, else as Python's json writes it."""
    if value.denominator == 1 and abs(value) < PLAIN:
        return str(value.numerator)
    plain = format(Decimal(value.numerator) / Decimal(value.denominator), "f")
    if len(plain) < 30 and Fraction(Decimal(plain)) == value:
        return plain
    return str(value.numerator) if value.denominator == 1 else json.dumps(float(value))


def finite_values(c: NumberConstraint, at_most: int) -> list[str] | None:
    if c.values is not None:
        return [spell(v) for v in c.values]
    if c.low is None or c.high is None or c.step is None:
        return None
    if (c.high - c.low) / c.step > 4 * at_most:
        return None
    first = math.ceil(c.low / c.step)
    points = (i * c.step for i in range(first, math.floor(c.high / c.step) + 1))
    texts = [spell(x) for x in points if c.accepts(x)]
    return texts if len(texts) <= at_most else None
