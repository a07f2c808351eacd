"""Deterministic finite automata over Unicode code points.

The libraries measured take 0.7 s for `[a-z]{1,63}` (greenery) or spell out every character of
a class (interegular), hence this small one. State 0 is the start, -1 is the dead state, and the
alphabet is a tuple of disjoint character sets: any other character leads to -1.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from msgspec import Struct

from . import charset
from .charset import CharSet
from .errors import LimitExceeded

DEFAULT_STATES = 6_000


class Automaton(Struct, frozen=True, cache_hash=True, gc=False):
    """`delta[state][part]` is the next state; `accept[state]` whether a text may end there."""

    parts: tuple[CharSet, ...]
    delta: tuple[tuple[int, ...], ...]
    accept: tuple[bool, ...]

    def step(self, state: int, point: int) -> int:
        for index, ranges in enumerate(self.parts):
            if charset.contains(ranges, point):
                return self.delta[state][index]
        return -1

    def matches(self, text: str) -> bool:
        state = 0
        for char in text:
            state = self.step(state, ord(char))
            if state < 0:
                return False
        return self.accept[state]

    @property
    def weight(self) -> int:
        """About the bytes it takes."""
        ranges = sum(map(len, self.parts))
        return 200 + len(self.delta) * (72 + 8 * len(self.parts)) + 128 * ranges

    def is_empty(self) -> bool:
        """Only meaningful after `trim`, which every operation of this module ends with."""
        return not any(self.accept)

    def edges(self, state: int) -> dict[int, CharSet]:
        """Target -> the set of characters that lead there."""
        grouped: dict[int, list[CharSet]] = {}
        for index, target in enumerate(self.delta[state]):
            if target >= 0:
                grouped.setdefault(target, []).append(self.parts[index])
        return {t: charset.union(*sets) for t, sets in grouped.items()}

    def without_empty(self) -> Automaton:
        """The same language without the empty text."""
        if not self.accept[0]:
            return self
        delta = (self.delta[0], *(tuple(t + 1 if t >= 0 else -1 for t in r) for r in self.delta))
        first = tuple(t + 1 if t >= 0 else -1 for t in self.delta[0])
        return trim(Automaton(self.parts, (first, *delta[1:]), (False, *self.accept)))


NOTHING = Automaton((), ((),), (False,))
ANYTHING = Automaton((charset.UNIVERSE,), ((0,),), (True,))

State = TypeVar("State", bound=Hashable)


def explore(
    parts: Iterable[CharSet],
    start: State,
    follow: Callable[[State], Iterable[State | None]],
    final: Callable[[State], bool],
    limit: int = DEFAULT_STATES,
) -> Automaton:
    """Breadth first over hashable states; `follow` yields a successor (or None) per part."""
    index: dict[State, int] = {start: 0}
    queue = [start]
    delta: list[tuple[int, ...]] = []
    for state in queue:
        row = []
        last: State | None = None
        number = -1
        for target in follow(state):
            if target is None:
                row.append(-1)
                continue
            if target is not last:  # digits in a row have one target; to hash it takes long
                last, number = target, index.setdefault(target, len(queue))
                if number == len(queue):
                    queue.append(target)
                    if number >= limit:
                        raise LimitExceeded("", "", "states", f"an automaton needs over {limit}")
            row.append(number)
        delta.append(tuple(row))
    return minimize(Automaton(tuple(parts), tuple(delta), tuple(final(s) for s in queue)))


def trim(a: Automaton) -> Automaton:
    """Drop states that cannot be reached or cannot reach an accepting state."""
    inverse: list[list[int]] = [[] for _ in a.delta]
    for state, row in enumerate(a.delta):
        for target in set(row):
            if target >= 0:
                inverse[target].append(state)
    alive = {s for s, ok in enumerate(a.accept) if ok}
    stack = list(alive)
    while stack:
        for source in inverse[stack.pop()]:
            if source not in alive:
                alive.add(source)
                stack.append(source)
    if 0 not in alive:
        return NOTHING
    order, number = [0], {0: 0}
    for state in order:
        for target in a.delta[state]:
            if target in alive and target not in number:
                number[target] = len(order)
                order.append(target)
    renamed = [number.get(s, -1) for s in range(len(a.delta))] + [-1]
    delta = tuple([tuple(map(renamed.__getitem__, a.delta[s])) for s in order])
    return Automaton(a.parts, delta, tuple([a.accept[s] for s in order]))


def minimize(a: Automaton) -> Automaton:
    """Merge equal states by partition refinement, then equal parts.

    In each round only states whose successors changed blocks are looked at: the others of their
    block still agree with each other, so one of them stands for all.
    """
    a = merge_parts(trim(a))
    before: list[list[int]] = [[] for _ in a.delta]
    for state, row in enumerate(a.delta):
        for target in set(row):
            if target >= 0:
                before[target].append(state)
    block = [int(ok != a.accept[0]) for ok in a.accept]
    members = {b: {s for s, own in enumerate(block) if own == b} for b in set(block)}
    block.append(-1)  # where delta's -1 points to
    dirty = set(range(len(a.delta)))
    while dirty:
        touched: dict[int, list[int]] = {}
        for state in dirty:
            touched.setdefault(block[state], []).append(state)
        splits = [_split(a, block, members[b], states) for b, states in touched.items()]
        dirty = set()
        for group in (g for split in splits for g in split):
            number = len(members)
            members[block[group[0]]].difference_update(group)
            members[number] = set(group)
            for state in group:
                block[state] = number
                dirty.update(before[state])
    return _quotient(a, block)


def _split(a: Automaton, block: list[int], members: set[int], states: list[int]) -> list[list[int]]:
    """The groups that leave their block; the largest, or those not looked at, keep it."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for state in states:
        groups.setdefault(tuple(map(block.__getitem__, a.delta[state])), []).append(state)
    if len(states) < len(members):
        looked_at = set(states)
        other = next(s for s in members if s not in looked_at)
        groups.pop(tuple(map(block.__getitem__, a.delta[other])), None)
        return list(groups.values())
    return sorted(groups.values(), key=len)[:-1]


def _quotient(a: Automaton, block: list[int]) -> Automaton:
    number: dict[int, int] = {}
    first: list[int] = []
    for state in range(len(a.delta)):  # trimmed, so the start comes first
        if block[state] not in number:
            number[block[state]] = len(first)
            first.append(state)
    renamed = [number.get(b, -1) for b in block]
    delta = tuple([tuple(map(renamed.__getitem__, a.delta[state])) for state in first])
    return merge_parts(Automaton(a.parts, delta, tuple(a.accept[s] for s in first)))


def merge_parts(a: Automaton) -> Automaton:
    """Parts that no state tells apart become one; parts that lead nowhere are dropped."""
    columns: dict[tuple[int, ...], list[CharSet]] = {}
    for ranges, column in zip(a.parts, zip(*a.delta, strict=True), strict=True):
        if max(column) >= 0:
            columns.setdefault(column, []).append(ranges)
    if len(columns) == len(a.parts):
        return a
    parts = tuple(charset.union(*sets) for sets in columns.values())
    delta = tuple(zip(*columns, strict=True)) if columns else tuple(() for _ in a.delta)
    return Automaton(parts, delta, a.accept)
