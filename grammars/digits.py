"""Constraints on numbers as automata over the digits of decimals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from msgspec import Struct

from . import automaton, charset
from .automaton import Automaton
from .errors import LimitExceeded

if TYPE_CHECKING:
    from .numbers import NumberConstraint

MAX_MODULUS = 2_000
MAX_DIGITS = 400
MAX_POINTS = 60

LESS, EQUAL, GREATER = -1, 0, 1
Pairs = tuple[tuple[int, int], ...]
State = tuple[int, bool, bool, Pairs, Pairs]


class _Point(Struct, frozen=True):
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


def decimals(c: NumberConstraint) -> Automaton:
    """The decimals of a constraint that names no values: no exponent, no negative zero."""
    digits = _Digits(c)
    return automaton.explore(digits.parts, digits.start, digits.follow, digits.ends)


class _Digits:
    """One pass over the digits for all parts of a constraint.

    A state is (phase, negative, not minus zero, point states, remainders); phases: 0 start, 1
    after the sign, 2 after a leading zero, 3 in the integer part, 4 after the dot, 5 in the
    fraction. A point on the other side of zero compares by its sign alone: its state stays.
    """

    def __init__(self, c: NumberConstraint) -> None:
        self.c = c
        values = dict.fromkeys(v for v in (c.low, c.high, *c.excluded) if v is not None)
        if len(values) > MAX_POINTS:
            reason = f"{len(values)} numbers to tell apart"
            raise LimitExceeded("", "enum", "states", reason)
        self.points = [_point(value) for value in values]
        place = {value: i for i, value in enumerate(values)}
        self.low = -1 if c.low is None else place[c.low]
        self.high = -1 if c.high is None else place[c.high]
        self.excluded = [place[value] for value in c.excluded]
        # Whole numbers are written as such: 3, never 3.0, though both are integers to a validator.
        self.whole = c.step is not None and c.step.denominator == 1
        steps = ([c.step] if c.step is not None else []) + sorted(c.not_steps)
        self.moduli = [_Modulus.of(s) for s in steps]
        self.parts = [charset.of("-"), charset.of("."), *(charset.of(str(d)) for d in range(10))]
        self.start: State = (
            0,
            False,
            True,
            tuple((0, EQUAL) for _ in self.points),
            tuple((0, 0) for _ in self.moduli),
        )
        self.groups: dict[tuple[int, ...], list[list[int]]] = {}
        total = math.prod(sum(m.after) for m in self.moduli)
        if total > MAX_MODULUS:
            raise LimitExceeded("", "multipleOf", "states", f"{total} remainders to tell apart")

    def follow(self, state: State) -> Iterator[State | None]:
        phase, negative, nonzero, points, remainders = state
        below = phase == 0 and not (self.c.low is not None and self.c.low >= 0)
        yield (1, True, False, points, remainders) if below else None
        if phase in (2, 3) and not self.whole:
            after = tuple(
                [
                    p.point(s) if p.negative == negative else s
                    for p, s in zip(self.points, points, strict=True)
                ]
            )
            yield self.possible((4, negative, nonzero, after, remainders))
        else:
            yield None
        targets: list[State | None] = [None] * 10
        for group in self.alike(state):
            target = self.digit(state, group[0])
            for digit in group:
                targets[digit] = target
        yield from targets

    def alike(self, state: State) -> list[list[int]]:
        """Digits grouped by how they compare with those of the bounds, and by remainders."""
        pivots, whole = self.pivots(state), state[0] <= 3
        moduli = [
            m.after[0 if whole else min(place + 1, m.places)]
            for m, (_, place) in zip(self.moduli, state[4], strict=True)
        ]
        key = (len(pivots), *pivots, *moduli)
        if key not in self.groups:
            grouped: dict[tuple[int, ...], list[int]] = {}
            for digit in range(10):
                signs = [_sign(digit - p) for p in pivots]
                traits = (digit > 0, *signs, *[digit % m for m in moduli])
                grouped.setdefault(traits, []).append(digit)
            self.groups[key] = list(grouped.values())
        return self.groups[key]

    def pivots(self, state: State) -> list[int]:
        """The next digit of each point that the digits so far equal."""
        out = []
        for point, (count, sign) in zip(self.points, state[3], strict=True):
            digits = point.whole if state[0] <= 3 else point.fraction
            if sign == EQUAL and point.negative == state[1]:
                out.append(digits[count] if count < len(digits) else 0)
        return out

    def digit(self, state: State, digit: int) -> State | None:
        phase, negative, nonzero, points, remainders = state
        if phase == 2:
            return None
        if phase <= 3:
            moved = [
                p.integer_step(s, digit) if p.negative == negative else s
                for p, s in zip(self.points, points, strict=True)
            ]
            rest = [
                ((r * 10 + digit) % m.after[0], 0)
                for (r, _), m in zip(remainders, self.moduli, strict=True)
            ]
            new = 2 if phase < 2 and digit == 0 else 3
        else:
            moved = [
                p.fraction_step(s, digit) if p.negative == negative else s
                for p, s in zip(self.points, points, strict=True)
            ]
            rest = [m.step(r, digit) for r, m in zip(remainders, self.moduli, strict=True)]
            new = 5
        return self.possible((new, negative, nonzero or digit > 0, tuple(moved), tuple(rest)))

    def possible(self, state: State) -> State | None:
        """The state, or None where no digit to come can make the number fit."""
        phase, negative, _, points, remainders = state
        for index, wrong in ((self.low, LESS), (self.high, GREATER)):
            if index < 0 or self.points[index].negative != negative:
                continue
            count, sign = points[index]
            decided = phase > 3 or count > len(self.points[index].whole)
            if decided and sign and (-sign if negative else sign) == wrong:
                return None
        if self.c.step is not None and phase > 3:
            rest, place = remainders[0]
            if rest and place == self.moduli[0].places:
                return None
        return state

    def ends(self, state: State) -> bool:
        phase, negative, nonzero, points, remainders = state
        if phase not in (2, 3, 5) or (negative and not nonzero):
            return False
        signs = [
            point.result(s, negative, phase == 5)
            for point, s in zip(self.points, points, strict=True)
        ]
        c = self.c
        if self.low >= 0 and signs[self.low] < (1 if c.low_open else 0):
            return False
        if self.high >= 0 and signs[self.high] > (-1 if c.high_open else 0):
            return False
        if any(signs[index] == 0 for index in self.excluded):
            return False
        multiple = [m.divides(r) for r, m in zip(remainders, self.moduli, strict=True)]
        wanted = [True] if c.step is not None else []
        return multiple == wanted + [False] * len(c.not_steps)


class _Modulus(Struct, frozen=True):
    """x is a multiple of the step when x * 10**places is one of after[places].

    `after[k]` is what the digits up to the k-th place count modulo, as more of it would be
    multiplied away by the places to come. A state is (remainder, place), -1 for none any more.
    """

    after: tuple[int, ...]

    @property
    def places(self) -> int:
        return len(self.after) - 1

    @staticmethod
    def of(step: Fraction) -> _Modulus:
        places = 0
        while step.denominator != 1:
            step, places = step * 10, places + 1
            if places > MAX_DIGITS:
                raise LimitExceeded("", "multipleOf", "states", "too many decimal places")
        m = step.numerator
        return _Modulus(tuple(m // math.gcd(m, 10 ** (places - k)) for k in range(places + 1)))

    def step(self, state: tuple[int, int], digit: int) -> tuple[int, int]:
        """After the last place only zeros keep a multiple a multiple."""
        rest, place = state
        if rest < 0:
            return state
        if place < self.places:
            return (rest * 10 + digit) % self.after[place + 1], place + 1
        return state if digit == 0 else (-1, place)

    def divides(self, state: tuple[int, int]) -> bool:
        rest, place = state
        return rest >= 0 and rest * 10 ** (self.places - place) % self.after[-1] == 0
