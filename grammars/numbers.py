"""Constraints on numbers, and their digits as automata.

Values are exact fractions: a JSON number is a decimal, whatever a float makes of it. A number
without constraints may be spelled in any way; a constrained one is written without exponent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

from . import automaton, charset, nodes
from .automaton import Automaton
from .errors import LimitExceeded, UnsupportedSchema
from .integer_range import integer_range
from .nodes import NEVER, Chars, Dfa, Literal, Node, Rule, Token

MAX_MODULUS = 2_000
MAX_DIGITS = 400
MAX_BITS = 4_000

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
INTEGER = Rule("integer", Token(_INTEGER))
NUMBER = Rule(
    "number",
    Token(nodes.sequence(_INTEGER, nodes.optional(_FRACTION), nodes.optional(_EXPONENT))),
)


@dataclass(frozen=True, slots=True)
class NumberConstraint:
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


@lru_cache(maxsize=2048)
def to_node(c: NumberConstraint) -> Node:
    if c == ANY:
        return NUMBER
    if c == WHOLE:
        return INTEGER
    if c.values is not None:
        return nodes.choice(*(Token(Literal(spell(v))) for v in c.values))
    if c.step == 1 and not (c.not_steps or c.excluded):
        found = integer_range(*_whole_bounds(c))
        return found if nodes.is_never(found) else Token(found)
    a = to_automaton(c)
    return NEVER if a.is_empty() else Token(Dfa(a))


def spell(value: Fraction) -> str:
    """A decimal without exponent where that is short, else as Python's json writes it."""
    if value.denominator == 1 and abs(value) < 10**30:
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


# --------------------------------------------------------------------------- digits

LESS, EQUAL, GREATER = -1, 0, 1
Pairs = tuple[tuple[int, int], ...]
State = tuple[int, bool, bool, Pairs, Pairs]


@dataclass(frozen=True, slots=True)
class _Point:
    """Compares the magnitude of a number with this one, digit by digit.

    A state is (digits read, cut off above the own count; comparison of the digits so far).
    """

    negative: bool
    whole: tuple[int, ...]
    fraction: tuple[int, ...]

    def integer_step(self, state: tuple[int, int], digit: int) -> tuple[int, int]:
        count, sign = state
        if count >= len(self.whole):
            return len(self.whole) + 1, GREATER
        if sign == EQUAL:
            sign = _sign(digit - self.whole[count])
        return count + 1, sign

    def point(self, state: tuple[int, int]) -> tuple[int, int]:
        count, sign = state
        return 0, LESS if count < len(self.whole) else GREATER if count > len(self.whole) else sign

    def fraction_step(self, state: tuple[int, int], digit: int) -> tuple[int, int]:
        count, sign = state
        if sign != EQUAL:
            return 0, sign
        own = self.fraction[count] if count < len(self.fraction) else 0
        return min(count + 1, len(self.fraction)), _sign(digit - own)

    def result(self, state: tuple[int, int], negative: bool, in_fraction: bool) -> int:
        """Comparison of the whole number with this one."""
        count, sign = state if in_fraction else self.point(state)
        if sign == EQUAL and any(self.fraction[count:]):
            sign = LESS
        if negative != self.negative:
            return LESS if negative else GREATER
        return -sign if negative else sign


def _sign(x: int) -> int:
    return (x > 0) - (x < 0)


def _point(value: Fraction) -> _Point:
    text = format(_decimal(abs(value)), "f")
    whole, _, fraction = text.partition(".")
    if len(text) > MAX_DIGITS:
        raise LimitExceeded("", "", "states", f"a bound of over {MAX_DIGITS} digits")
    return _Point(value < 0, tuple(map(int, whole)), tuple(map(int, fraction.rstrip("0"))))


def _decimal(value: Fraction) -> Decimal:
    """Exact: the denominator of a JSON number divides a power of ten."""
    places = 0
    while value.denominator != 1 and places <= MAX_DIGITS:
        value, places = value * 10, places + 1
    return Decimal(value.numerator).scaleb(-places) if places else Decimal(value.numerator)


@lru_cache(maxsize=2048)
def to_automaton(c: NumberConstraint) -> Automaton:
    """Decimals without exponent, and without a negative zero."""
    digits = _Digits(c)
    return automaton.explore(digits.parts, digits.start, digits.follow, digits.ends)


class _Digits:
    """One pass over the digits for all parts of a constraint.

    A state is (phase, negative, non-zero, point states, remainders); phases: 0 start, 1 after
    the sign, 2 after a leading zero, 3 in the integer part, 4 after the dot, 5 in the fraction.
    """

    def __init__(self, c: NumberConstraint) -> None:
        self.c = c
        self.points: dict[Fraction, _Point] = {}
        for value in (c.low, c.high, *c.excluded):
            if value is not None:
                self.points[value] = _point(value)
        self.order = list(self.points)
        # Whole numbers are written as such: 3, never 3.0, though both are integers to a validator.
        self.whole = c.step is not None and c.step.denominator == 1
        steps = ([c.step] if c.step is not None else []) + sorted(c.not_steps)
        self.moduli = [_modulus(s) for s in steps]
        self.parts = [charset.of("-"), charset.of("."), *(charset.of(str(d)) for d in range(10))]
        self.start: State = (
            0,
            False,
            False,
            tuple((0, EQUAL) for _ in self.order),
            tuple((0, 0) for _ in self.moduli),
        )
        total = math.prod(m * (p + 1) for m, p in self.moduli)
        if total > MAX_MODULUS:
            raise LimitExceeded("", "multipleOf", "states", f"{total} remainders to tell apart")

    def follow(self, state: State) -> Iterator[State | None]:
        phase, negative, nonzero, points, remainders = state
        yield (1, True, nonzero, points, remainders) if phase == 0 else None
        if phase in (2, 3) and not self.whole:
            after = tuple(p.point(s) for p, s in zip(self.points.values(), points, strict=True))
            yield (4, negative, nonzero, after, remainders)
        else:
            yield None
        if self.moduli:
            yield from (self.digit(state, digit) for digit in range(10))
            return
        # Without remainders only the order relative to the next digits of the bounds matters.
        pivots = self.pivots(state)
        known: dict[tuple[int, ...], State | None] = {}
        for digit in range(10):
            key = (digit > 0, *[_sign(digit - p) for p in pivots])
            if key not in known:
                known[key] = self.digit(state, digit)
            yield known[key]

    def pivots(self, state: State) -> list[int]:
        """The next digit of each point that the digits so far equal."""
        out = []
        for point, (count, sign) in zip(self.points.values(), state[3], strict=True):
            digits = point.whole if state[0] <= 3 else point.fraction
            if sign == EQUAL:
                out.append(digits[count] if count < len(digits) else 0)
        return out

    def digit(self, state: State, digit: int) -> State | None:
        phase, negative, nonzero, points, remainders = state
        if phase == 2:
            return None
        if phase <= 3:
            moved = tuple(
                p.integer_step(s, digit) for p, s in zip(self.points.values(), points, strict=True)
            )
            rest = tuple(
                ((r * 10 + digit) % m, 0)
                for (r, _), (m, _) in zip(remainders, self.moduli, strict=True)
            )
            new = 2 if phase < 2 and digit == 0 else 3
            return new, negative, nonzero or digit > 0, moved, rest
        moved = tuple(
            p.fraction_step(s, digit) for p, s in zip(self.points.values(), points, strict=True)
        )
        rest = tuple(
            self._fraction(r, m, digit) for r, m in zip(remainders, self.moduli, strict=True)
        )
        return 5, negative, nonzero or digit > 0, moved, rest

    @staticmethod
    def _fraction(state: tuple[int, int], modulus: tuple[int, int], digit: int) -> tuple[int, int]:
        """After the places of the step only zeros keep a multiple a multiple (-1: none)."""
        (rest, place), (m, places) = state, modulus
        if rest < 0 or place < places:
            return ((rest * 10 + digit) % m, place + 1) if rest >= 0 else state
        return (rest, place) if digit == 0 else (-1, places)

    def ends(self, state: State) -> bool:
        phase, negative, nonzero, points, remainders = state
        if phase not in (2, 3, 5) or (negative and not nonzero):
            return False
        signs = {
            value: self.points[value].result(s, negative, phase == 5)
            for value, s in zip(self.order, points, strict=True)
        }
        c = self.c
        if c.low is not None and signs[c.low] < (1 if c.low_open else 0):
            return False
        if c.high is not None and signs[c.high] > (-1 if c.high_open else 0):
            return False
        if any(signs[x] == 0 for x in c.excluded):
            return False
        multiple = [
            rest >= 0 and rest * 10 ** (places - place) % m == 0
            for (rest, place), (m, places) in zip(remainders, self.moduli, strict=True)
        ]
        wanted = [True] if c.step is not None else []
        return multiple == wanted + [False] * len(c.not_steps)


def _modulus(step: Fraction) -> tuple[int, int]:
    """(m, places) with: x is a multiple of step when x * 10**places is one of m."""
    places = 0
    while step.denominator != 1:
        step, places = step * 10, places + 1
        if places > MAX_DIGITS:
            raise LimitExceeded("", "multipleOf", "states", "too many decimal places")
    return step.numerator, places
