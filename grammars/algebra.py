"""Union, intersection and complement of value sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from msgspec.structs import replace

from . import numbers, strings
from .errors import UnsupportedSchema
from .limits import Budget
from .numbers import NumberConstraint
from .strings import StringConstraint
from .values import (
    ANY_ARRAY,
    ANY_OBJECT,
    EVERYTHING,
    FALSE,
    NOTHING,
    TRUE,
    ArrayConstraint,
    Contains,
    Goal,
    ObjectConstraint,
    Values,
    both,
)

T = TypeVar("T")


class Goals(Protocol):
    """What the algebra needs to know of goals."""

    budget: Budget

    def negate(self, goal: Goal) -> Goal: ...

    def is_never(self, goal: Goal, depth: int = 3) -> bool:
        """Whether no value satisfies it, as far as `depth` levels tell."""

    def texts(self, goal: Goal) -> frozenset[str] | None:
        """The strings that satisfy it where those are few and nothing else does."""


class Algebra:
    def __init__(self, goals: Goals) -> None:
        self.goals = goals

    # ------------------------------------------------------------------ value sets

    def union(self, *sets: Values) -> Values:
        sets = tuple(s for s in sets if s != NOTHING)
        if len(sets) == 1:
            return sets[0]
        return self._checked(
            Values(
                any(s.null for s in sets),
                frozenset().union(*(s.booleans for s in sets)),
                _merge_numbers(c for s in sets for c in s.numbers),
                _merge_strings(c for s in sets for c in s.strings),
                _merge((c for s in sets for c in s.arrays), ANY_ARRAY),
                _merge((c for s in sets for c in s.objects), ANY_OBJECT),
            )
        )

    def intersect(self, a: Values, b: Values) -> Values:
        if a is EVERYTHING or a == EVERYTHING:
            return b
        if b is EVERYTHING or b == EVERYTHING:
            return a
        return self._checked(
            Values(
                a.null and b.null,
                a.booleans & b.booleans,
                _pairs(a.numbers, b.numbers, numbers.ANY, numbers.intersect, _merge_numbers),
                _pairs(a.strings, b.strings, strings.ANY, strings.intersect, _merge_strings),
                _pairs(a.arrays, b.arrays, ANY_ARRAY, self.meet_arrays, _merge_arrays),
                _pairs(a.objects, b.objects, ANY_OBJECT, self.meet_objects, _merge_objects),
            )
        )

    def complement(self, a: Values) -> Values:
        return self.subtract(EVERYTHING, a)

    def subtract(self, a: Values, b: Values) -> Values:
        """Values of `a` outside `b`; what is disjoint anyway stays as it is."""
        return self._checked(
            Values(
                a.null and not b.null,
                a.booleans - b.booleans,
                _merge_numbers(
                    self._minus(
                        a.numbers, b.numbers, numbers.complement, numbers.intersect,
                        numbers.is_empty,
                    )
                ),
                _merge_strings(
                    self._minus(
                        a.strings, b.strings, strings.complement, strings.intersect,
                        strings.is_empty,
                    )
                ),
                _merge(
                    self._minus(
                        a.arrays, b.arrays, self.array_complement, self.meet_arrays,
                        self.array_is_empty,
                    ),
                    ANY_ARRAY,
                ),
                _merge(
                    self._minus(
                        a.objects, b.objects, self.object_complement, self.meet_objects,
                        self.object_is_empty, self.told_apart,
                    ),
                    ANY_OBJECT,
                ),
            )
        )  # fmt: skip

    def _minus(
        self,
        have: tuple[T, ...],
        remove: tuple[T, ...],
        complement: Callable[[T], list[T]],
        meet: Callable[[T, T], T | None],
        is_empty: Callable[[T], bool],
        told_apart: Callable[[T, T], bool] | None = None,
    ) -> tuple[T, ...]:
        for gone in remove:
            kept: list[T] = []
            rest: list[T] | None = None
            for c in have:
                shared = None if told_apart and told_apart(c, gone) else meet(c, gone)
                if shared is None or is_empty(shared):
                    kept.append(c)
                    continue
                if rest is None:
                    rest = complement(gone)
                pieces = (meet(c, r) for r in rest)
                kept.extend(p for p in pieces if p is not None and not is_empty(p))
            have = tuple(dict.fromkeys(kept))
            self.goals.budget.check("alternatives", len(have))
            self.goals.budget.check_time()
        return have

    def is_empty(self, a: Values) -> bool:
        return not (
            a.null
            or a.booleans
            or not all(map(numbers.is_empty, a.numbers))
            or not all(map(strings.is_empty, a.strings))
            or not all(map(self.array_is_empty, a.arrays))
            or not all(map(self.object_is_empty, a.objects))
        )

    def _checked(self, a: Values) -> Values:
        widest = max(len(a.numbers), len(a.strings), len(a.arrays), len(a.objects))
        if widest > 8:
            self.goals.budget.check("alternatives", widest)
            self.goals.budget.check_time()
        return a

    # ------------------------------------------------------------------ arrays

    def meet_arrays(self, a: ArrayConstraint, b: ArrayConstraint) -> ArrayConstraint | None:
        if a in (ANY_ARRAY, b):
            return b
        if b == ANY_ARRAY:
            return a
        width = max(len(a.prefix), len(b.prefix))
        prefix = tuple(both(a.item(i), b.item(i)) for i in range(width))
        high = _least(a.high, b.high)
        low = max(a.low, b.low)
        if high is not None and low > high:
            return None
        contains = tuple(dict.fromkeys(a.contains + b.contains))
        return ArrayConstraint(
            prefix, both(a.items, b.items), low, high, contains, a.unique or b.unique
        )

    def array_complement(self, a: ArrayConstraint) -> list[ArrayConstraint]:
        if a.unique:
            raise UnsupportedSchema("", "uniqueItems", "cannot be negated")
        out = []
        if a.low:
            out.append(ArrayConstraint(high=a.low - 1))
        if a.high is not None:
            out.append(ArrayConstraint(low=a.high + 1))
        for index, goal in enumerate(a.prefix):
            if goal:
                wrong = (*[TRUE] * index, self.goals.negate(goal))
                out.append(ArrayConstraint(prefix=wrong, low=index + 1))
        if a.items:
            wrong_item = Contains(len(a.prefix), self.goals.negate(a.items), 1, None)
            out.append(ArrayConstraint(contains=(wrong_item,)))
        for c in a.contains:
            if c.low:
                out.append(ArrayConstraint(contains=(replace(c, low=0, high=c.low - 1),)))
            if c.high is not None:
                out.append(ArrayConstraint(contains=(replace(c, low=c.high + 1, high=None),)))
        return out

    def array_is_empty(self, a: ArrayConstraint) -> bool:
        if a.high is not None and a.low > a.high:
            return True
        for c in a.contains:
            if c.low and (self.goals.is_never(c.goal) or (a.high is not None and a.high < c.low)):
                return True
        return any(self.goals.is_never(a.item(i)) for i in range(min(a.low, len(a.prefix) + 1)))

    # ------------------------------------------------------------------ objects

    def meet_objects(self, a: ObjectConstraint, b: ObjectConstraint) -> ObjectConstraint | None:
        if a in (ANY_OBJECT, b):
            return b
        if b == ANY_OBJECT:
            return a
        props = dict(a.props)
        for name, goal in b.props:
            props[name] = both(props.get(name, TRUE), goal)
        required = a.required | b.required
        high = _least(a.high, b.high)
        low = max(a.low, b.low)
        if any(props.get(name) == FALSE for name in required):
            return None
        if high is not None and max(low, len(required)) > high:
            return None
        return ObjectConstraint(
            tuple(props.items()),
            required,
            tuple(dict.fromkeys(a.every + b.every)),
            tuple(dict.fromkeys(a.some + b.some)),
            low,
            high,
        )

    def told_apart(self, a: ObjectConstraint, b: ObjectConstraint) -> bool:
        """Whether a property that both require names their kind: a quick look before `meet`."""
        if not (a.required and b.required):
            return False
        others = dict(b.props)
        for name, goal in a.props:
            if name in a.required and name in b.required and goal and others.get(name):
                mine, theirs = self.goals.texts(goal), self.goals.texts(others[name])
                if mine is not None and theirs is not None and not mine & theirs:
                    return True
        return False

    def object_complement(self, a: ObjectConstraint) -> list[ObjectConstraint]:
        out = [
            ObjectConstraint(props=((name, self.goals.negate(goal)),), required=frozenset((name,)))
            for name, goal in a.props
            if goal
        ]
        out += [ObjectConstraint(props=((name, FALSE),)) for name in sorted(a.required)]
        for names, goal in a.every:
            if goal:
                out.append(ObjectConstraint(some=((names, self.goals.negate(goal)),)))
        for names, goal in a.some:
            out.append(ObjectConstraint(every=((names, self.goals.negate(goal)),)))
        if a.low:
            out.append(ObjectConstraint(high=a.low - 1))
        if a.high is not None:
            out.append(ObjectConstraint(low=a.high + 1))
        return out

    def object_is_empty(self, a: ObjectConstraint) -> bool:
        if a.high is not None and max(a.low, len(a.required)) > a.high:
            return True
        if any(self.goals.is_never(goal) for _, goal in a.some):
            return True
        return any(self.goals.is_never(a.goal_of(name)) for name in a.required)


def _least(a: int | None, b: int | None) -> int | None:
    return a if b is None else b if a is None else min(a, b)


def _pairs(
    a: tuple[T, ...],
    b: tuple[T, ...],
    top: T,
    meet: Callable[[T, T], T | None],
    merge: Callable[[Iterable[T]], tuple[T, ...]],
) -> tuple[T, ...]:
    if not a or not b:
        return ()
    if len(a) == 1 and a[0] == top:
        return b
    if len(b) == 1 and b[0] == top:
        return a
    return merge(m for x in a for y in b if (m := meet(x, y)) is not None)


def _merge(items: Iterable[T], top: T) -> tuple[T, ...]:
    unique = tuple(dict.fromkeys(items))
    return (top,) if top in unique else unique


def _merge_arrays(items: Iterable[ArrayConstraint]) -> tuple[ArrayConstraint, ...]:
    return _merge(items, ANY_ARRAY)


def _merge_objects(items: Iterable[ObjectConstraint]) -> tuple[ObjectConstraint, ...]:
    return _merge(items, ANY_OBJECT)


def _merge_numbers(items: Iterable[NumberConstraint]) -> tuple[NumberConstraint, ...]:
    merged = _merge(items, numbers.ANY)
    finite = [c for c in merged if c.values is not None]
    if len(finite) < 2:
        return merged
    values = tuple(dict.fromkeys(v for c in finite for v in c.values or ()))
    rest = tuple(c for c in merged if c.values is None)
    return (NumberConstraint(values=values), *rest)


def _merge_strings(items: Iterable[StringConstraint]) -> tuple[StringConstraint, ...]:
    merged = _merge(items, strings.ANY)
    finite = [c for c in merged if c.values is not None]
    if len(finite) < 2:
        return merged
    values = tuple(dict.fromkeys(v for c in finite for v in c.values or ()))
    rest = tuple(c for c in merged if c.values is None)
    return (StringConstraint(values=values), *rest)
