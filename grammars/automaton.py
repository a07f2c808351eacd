"""Deterministic finite automata over Unicode code points.

The libraries measured take 0.7 s for `[a-z]{1,63}` (greenery) or spell out every character of
a class (interegular), hence this small one. State 0 is the start, -1 is the dead state, and the
alphabet is a tuple of disjoint character sets: any other character leads to -1.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from . import charset
from .charset import CharSet
from .errors import LimitExceeded

DEFAULT_STATES = 6_000


@dataclass(frozen=True, slots=True)
class Automaton:
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
        for target in follow(state):
            if target is None:
                row.append(-1)
                continue
            number = index.get(target)
            if number is None:
                number = index[target] = len(queue)
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
    delta = tuple(tuple(number.get(t, -1) for t in a.delta[s]) for s in order)
    return Automaton(a.parts, delta, tuple(a.accept[s] for s in order))


def minimize(a: Automaton) -> Automaton:
    """Merge equal states (partition refinement by signature), then equal parts."""
    a = trim(a)
    block = [int(ok) for ok in a.accept]
    count = len(set(block))
    while True:
        signatures: dict[tuple[int, ...], int] = {}
        new = []
        for state, row in enumerate(a.delta):
            key = (block[state], *[block[t] if t >= 0 else -1 for t in row])
            new.append(signatures.setdefault(key, len(signatures)))
        block = new
        if len(signatures) == count:
            break
        count = len(signatures)
    first: dict[int, int] = {}
    for state, number in enumerate(block):
        first.setdefault(number, state)
    delta = tuple(
        tuple(block[t] if t >= 0 else -1 for t in a.delta[first[b]]) for b in range(count)
    )
    return merge_parts(Automaton(a.parts, delta, tuple(a.accept[first[b]] for b in range(count))))


def merge_parts(a: Automaton) -> Automaton:
    """Parts that no state tells apart become one; parts that lead nowhere are dropped."""
    columns: dict[tuple[int, ...], list[CharSet]] = {}
    for index, ranges in enumerate(a.parts):
        column = tuple(row[index] for row in a.delta)
        if any(t >= 0 for t in column):
            columns.setdefault(column, []).append(ranges)
    parts = tuple(charset.union(*sets) for sets in columns.values())
    delta = tuple(zip(*columns, strict=True)) if columns else tuple(() for _ in a.delta)
    return Automaton(parts, delta, a.accept)


def combine(
    automata: list[Automaton],
    final: Callable[[list[bool]], bool],
    limit: int = DEFAULT_STATES,
    needed: frozenset[int] = frozenset(),
) -> Automaton:
    """Run several side by side; `final` decides from who accepts.

    The states of the automata in `needed` must be alive, else the whole is dead.
    """
    parts, columns = _common_parts(automata)
    moves = [
        [tuple(row[c] if c >= 0 else -1 for c in cols) for row in a.delta]
        for a, cols in zip(automata, columns, strict=True)
    ]
    width, count = len(parts), len(automata)

    def follow(state: tuple[int, ...]) -> Iterator[tuple[int, ...] | None]:
        rows = [moves[i][s] if s >= 0 else None for i, s in enumerate(state)]
        for part in range(width):
            target = tuple(r[part] if r is not None else -1 for r in rows)
            dead = any(target[i] < 0 for i in needed) or max(target) < 0
            yield None if dead else target

    def ends(state: tuple[int, ...]) -> bool:
        accepts = [s >= 0 and automata[i].accept[s] for i, s in enumerate(state)]
        return final(accepts)

    return explore(parts, (0,) * count, follow, ends, limit)


def _common_parts(automata: list[Automaton]) -> tuple[list[CharSet], list[list[int]]]:
    """Refine the alphabets; per automaton the own part of each common part, or -1."""
    sets = [p for a in automata for p in a.parts] + [charset.UNIVERSE]
    parts, members = charset.partition(sets)
    columns, offset = [], 0
    for a in automata:
        column = [-1] * len(parts)
        for own in range(len(a.parts)):
            for part in members[offset + own]:
                column[part] = own
        offset += len(a.parts)
        columns.append(column)
    return parts, columns


def intersect(automata: list[Automaton], limit: int = DEFAULT_STATES) -> Automaton:
    if len(automata) == 1:
        return automata[0]
    return combine(automata, all, limit, frozenset(range(len(automata))))


def union(automata: list[Automaton], limit: int = DEFAULT_STATES) -> Automaton:
    if len(automata) == 1:
        return automata[0]
    return combine(automata, any, limit)


def complement(a: Automaton, limit: int = DEFAULT_STATES) -> Automaton:
    return combine([ANYTHING, a], lambda ok: not ok[1], limit, frozenset((0,)))


def difference(a: Automaton, b: Automaton, limit: int = DEFAULT_STATES) -> Automaton:
    return combine([a, b], lambda ok: ok[0] and not ok[1], limit, frozenset((0,)))


def of_texts(texts: Iterable[str]) -> Automaton:
    """A finite language, as a minimal trie."""
    words = sorted(set(texts))
    alphabet = sorted({c for w in words for c in w})
    column = {c: i for i, c in enumerate(alphabet)}
    delta: list[list[int]] = [[-1] * len(alphabet)]
    accept = [False]
    for word in words:
        state = 0
        for char in word:
            target = delta[state][column[char]]
            if target < 0:
                target = delta[state][column[char]] = len(delta)
                delta.append([-1] * len(alphabet))
                accept.append(False)
            state = target
        accept[state] = True
    parts = tuple(charset.of(c) for c in alphabet)
    return minimize(Automaton(parts, tuple(map(tuple, delta)), tuple(accept)))


def all_except(texts: Iterable[str]) -> Automaton:
    """Every text but these: a trie whose every way out leads to "anything"."""
    words = frozenset(texts)
    alphabet = sorted({c for w in words for c in w})
    column = {c: i for i, c in enumerate(alphabet)}
    tails: dict[frozenset[str], int] = {words: 0}
    queue = [words]
    delta: list[list[int]] = []
    for remaining in queue:
        row = [-1] * (len(alphabet) + 1)
        groups: dict[str, set[str]] = {}
        for word in remaining:
            if word:
                groups.setdefault(word[0], set()).add(word[1:])
        for first, rest in groups.items():
            key = frozenset(rest)
            if key not in tails:
                tails[key] = len(queue)
                queue.append(key)
            row[column[first]] = tails[key]
        delta.append(row)
    anything = len(delta)
    filled = [tuple(t if t >= 0 else anything for t in row) for row in delta]
    filled.append((anything,) * (len(alphabet) + 1))
    parts = [charset.intersect(charset.of(c), charset.UNIVERSE) for c in alphabet]
    rest_of = charset.complement(charset.union(*parts))
    accept = tuple("" not in remaining for remaining in queue)
    return merge_parts(Automaton((*parts, rest_of), tuple(filled), (*accept, True)))


def bound_length(
    a: Automaton, low: int, high: int | None, limit: int = DEFAULT_STATES
) -> Automaton:
    """Keep the texts of low..high code points."""
    distance = _distances(a)
    cap = low if high is None else high

    def follow(state: tuple[int, int]) -> Iterator[tuple[int, int] | None]:
        own, length = state
        for target in a.delta[own]:
            size = length + 1 if high is not None else min(length + 1, cap)
            too_far = target < 0 or (high is not None and size + distance[target] > high)
            yield None if too_far else (target, size)

    def ends(state: tuple[int, int]) -> bool:
        own, length = state
        return a.accept[own] and length >= low

    return explore(a.parts, (0, 0), follow, ends, limit)


def _distances(a: Automaton) -> list[int]:
    """Per state the characters to the nearest accepting state."""
    distance = [0 if ok else 1 << 30 for ok in a.accept]
    changed = True
    while changed:
        changed = False
        for state in range(len(a.delta) - 1, -1, -1):
            best = min((distance[t] + 1 for t in a.delta[state] if t >= 0), default=1 << 30)
            if best < distance[state]:
                distance[state] = best
                changed = True
    return distance


def finite_texts(a: Automaton, at_most: int) -> list[str] | None:
    """All texts of the language in order, or None if there are more than `at_most`."""
    out: list[str] = []
    stack: list[tuple[int, str]] = [(0, "")]
    while stack:
        state, text = stack.pop()
        if a.accept[state]:
            out.append(text)
        if len(text) > 200 or len(out) + len(stack) > at_most * 4:
            return None
        for target, ranges in a.edges(state).items():
            if sum(high - low + 1 for low, high in ranges) > at_most:
                return None
            points = (p for low, high in ranges for p in range(low, high + 1))
            stack.extend((target, text + chr(p)) for p in points)
    return sorted(out) if len(out) <= at_most else None
