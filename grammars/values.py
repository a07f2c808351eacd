"""Sets of JSON values in normal form: for each type a union of constraints.

Children of arrays and objects are goals: sets of literals that must all hold, a literal being a
schema (positive number) or its negation (negative). Goals stay unexpanded until a grammar needs
them, which is what makes recursion through any keyword terminate.
"""

from __future__ import annotations

from msgspec import Struct

from .numbers import ANY as ANY_NUMBER
from .numbers import NumberConstraint
from .strings import ANY as ANY_STRING
from .strings import StringConstraint

Goal = frozenset[int]
TRUE: Goal = frozenset()
FALSE_LITERAL = -1
FALSE: Goal = frozenset((FALSE_LITERAL,))


def both(a: Goal, b: Goal) -> Goal:
    """Conjunction of two goals."""
    if not a or a == b:
        return b
    if not b:
        return a
    joined = a | b
    if FALSE_LITERAL in joined or any(-x in joined for x in joined):
        return FALSE
    return joined


class Contains(Struct, frozen=True, cache_hash=True, gc=False):
    """low..high (None: any number) of the items from index `start` on satisfy `goal`."""

    start: int
    goal: Goal
    low: int
    high: int | None


class ArrayConstraint(Struct, frozen=True, cache_hash=True, gc=False):
    """Item i satisfies prefix[i], later ones `items`; low..high of them."""

    prefix: tuple[Goal, ...] = ()
    items: Goal = TRUE
    low: int = 0
    high: int | None = None
    contains: tuple[Contains, ...] = ()
    unique: bool = False

    def item(self, index: int) -> Goal:
        return self.prefix[index] if index < len(self.prefix) else self.items


class ObjectConstraint(Struct, frozen=True, cache_hash=True, gc=False):
    """`props`: goals of named properties, in order. `every`: each property whose name is in the
    set satisfies the goal. `some`: at least one such property does. low..high properties."""

    props: tuple[tuple[str, Goal], ...] = ()
    required: frozenset[str] = frozenset()
    every: tuple[tuple[StringConstraint, Goal], ...] = ()
    some: tuple[tuple[StringConstraint, Goal], ...] = ()
    low: int = 0
    high: int | None = None

    def goal_of(self, name: str, declared: Goal | None = None) -> Goal:
        """All that the property must satisfy; `declared` is its own goal where that is known."""
        if declared is None:
            declared = next((g for n, g in self.props if n == name), TRUE)
        goal = declared
        for names, wanted in self.every:
            if wanted and names.accepts(name):
                goal = both(goal, wanted)
        return goal


ANY_ARRAY = ArrayConstraint()
ANY_OBJECT = ObjectConstraint()


class Values(Struct, frozen=True, cache_hash=True, gc=False):
    null: bool = False
    booleans: frozenset[bool] = frozenset()
    numbers: tuple[NumberConstraint, ...] = ()
    strings: tuple[StringConstraint, ...] = ()
    arrays: tuple[ArrayConstraint, ...] = ()
    objects: tuple[ObjectConstraint, ...] = ()


NOTHING = Values()
EVERYTHING = Values(
    True, frozenset((True, False)), (ANY_NUMBER,), (ANY_STRING,), (ANY_ARRAY,), (ANY_OBJECT,)
)
