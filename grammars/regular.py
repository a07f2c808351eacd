"""Operations on regular languages as minimal automata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from . import charset
from .automaton import ANYTHING, DEFAULT_STATES, Automaton, explore, merge_parts, minimize
from .charset import CharSet
from .errors import LimitExceeded


def combine(
    automata: list[Automaton],
    final: Callable[[list[bool]], bool],
    limit: int = DEFAULT_STATES,
    needed: frozenset[int] = frozenset(),
) -> Automaton:
    """Run several side by side; `final` decides from who accepts.

    The states of the automata in `needed` must be alive, else the whole is dead.
    """
    if len(automata) == 2:
        return _pair(automata[0], automata[1], final, limit, needed)
    parts, columns = _common_parts(automata)
    moves = [
        [tuple(row[c] if c >= 0 else -1 for c in cols) for row in a.delta]
        for a, cols in zip(automata, columns, strict=True)
    ]
    width = len(parts)

    def follow(state: tuple[int, ...]) -> Iterator[tuple[int, ...] | None]:
        rows = [moves[i][s] if s >= 0 else None for i, s in enumerate(state)]
        for part in range(width):
            target = tuple(r[part] if r is not None else -1 for r in rows)
            dead = any(target[i] < 0 for i in needed) or max(target) < 0
            yield None if dead else target

    def ends(state: tuple[int, ...]) -> bool:
        accepts = [s >= 0 and automata[i].accept[s] for i, s in enumerate(state)]
        return final(accepts)

    return explore(parts, (0,) * len(automata), follow, ends, limit)


def _pair(
    a: Automaton,
    b: Automaton,
    final: Callable[[list[bool]], bool],
    limit: int,
    needed: frozenset[int],
) -> Automaton:
    """`combine` for two, with both states in one number and rows at once."""
    parts, (left, right) = _common_parts([a, b])
    size = len(b.delta) + 1
    rows_a = [[row[c] if c >= 0 else -1 for c in left] for row in a.delta]
    rows_b = [[row[c] if c >= 0 else -1 for c in right] for row in b.delta]
    rows_a.append([-1] * len(parts))
    rows_b.append([-1] * len(parts))
    need_a, need_b = 0 in needed, 1 in needed
    index: dict[int, int] = {0: 0}
    queue = [0]
    delta: list[tuple[int, ...]] = []
    for state in queue:
        out = []
        for s, t in zip(rows_a[state // size], rows_b[state % size], strict=True):
            if (s < 0 and (need_a or t < 0)) or (t < 0 and need_b):
                out.append(-1)
                continue
            key = (s if s >= 0 else len(a.delta)) * size + (t if t >= 0 else size - 1)
            number = index.get(key)
            if number is None:
                number = index[key] = len(queue)
                queue.append(key)
            out.append(number)
        delta.append(tuple(out))
        if len(queue) > limit:
            raise LimitExceeded("", "", "states", f"an automaton needs over {limit}")
    ends_a, ends_b = (*a.accept, False), (*b.accept, False)
    accept = tuple(final([ends_a[s // size], ends_b[s % size]]) for s in queue)
    return minimize(Automaton(tuple(parts), tuple(delta), accept))


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


def _check_states(count: int) -> None:
    if count > DEFAULT_STATES:
        raise LimitExceeded("", "", "states", f"an automaton needs over {DEFAULT_STATES}")


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
                _check_states(len(delta))
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
    _check_states(max(map(len, words), default=0))  # before tails are copied
    alphabet = sorted({c for w in words for c in w})
    column = {c: i for i, c in enumerate(alphabet)}
    tails: dict[frozenset[str], int] = {words: 0}
    queue = [words]
    delta: list[list[int]] = []
    for remaining in queue:
        _check_states(len(queue))
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
    filled = [tuple([t if t >= 0 else anything for t in row]) for row in delta]
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
    before: list[list[int]] = [[] for _ in a.delta]
    for state, row in enumerate(a.delta):
        for target in set(row):
            if target >= 0:
                before[target].append(state)
    distance = [0 if ok else 1 << 30 for ok in a.accept]
    queue = [state for state, ok in enumerate(a.accept) if ok]
    for state in queue:
        for source in before[state]:
            if distance[source] == 1 << 30:
                distance[source] = distance[state] + 1
                queue.append(source)
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
