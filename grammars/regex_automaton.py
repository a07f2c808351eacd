"""Regular expression trees to automata: subset construction that knows where it stands.

Anchors and word boundaries are decided in the closure, which is taken only once the next
character is known. A lookahead adds an obligation (an automaton for the rest of the text) to the
path that passed it; a lookbehind is an automaton that has run since the start of the text.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from msgspec import Struct, field
from msgspec.structs import replace

from . import automaton, charset, regular
from .automaton import Automaton
from .charset import CharSet
from .errors import LimitExceeded, UnsupportedPattern
from .regex_syntax import Anchor, Concat, Either, Look, Loop, Regex, Set

START, WORD, OTHER, END = 0, 1, 2, 3
MAX_WORK = 300_000
_CARET = Anchor("^")
MAX_KEPT = 2_000  # moves that a matcher remembers between texts
Obligations = frozenset[tuple[int, int]]
Config = tuple[int, Obligations]
State = tuple[int, tuple[int, ...], frozenset[Config]]


class _Nfa(Struct):
    """Thompson's construction; `free` edges carry a condition or None, `sets` edges characters."""

    pattern: str
    limit: int
    free: list[list[tuple[Anchor | int | None, int]]] = field(default_factory=list)
    sets: list[list[tuple[CharSet, int]]] = field(default_factory=list)
    looks: list[tuple[Look, Automaton]] = field(default_factory=list)
    boundaries: bool = False

    def state(self) -> int:
        if len(self.free) > 20 * self.limit:
            raise LimitExceeded("", "pattern", "states", f"an automaton needs over {self.limit}")
        self.free.append([])
        self.sets.append([])
        return len(self.free) - 1

    def add(self, tree: Regex, source: int) -> int:
        """Append a fragment; returns its end."""
        match tree:
            case Set(ranges):
                target = self.state()
                self.sets[source].append((ranges, target))
                return target
            case Concat(items):
                first = False  # nothing but the start of the text can stand here
                for item in items:
                    first = item == _CARET or (first and isinstance(item, (Anchor, Look)))
                    if first and isinstance(item, Look) and item.ahead:
                        item = replace(item, body=_from_start(item.body))
                    source = self.add(item, source)
                return source
            case Either(options):
                target = self.state()
                for option in options:
                    self.free[self.add(option, source)].append((None, target))
                return target
            case Loop():
                return self.loop(tree, source)
            case Anchor():
                self.boundaries |= tree.kind in "bB"
                return self.edge(tree, source)
            case Look():
                self.looks.append((tree, _look_automaton(self.pattern, tree, self.limit)))
                return self.edge(len(self.looks) - 1, source)

    def edge(self, condition: Anchor | int | None, source: int) -> int:
        target = self.state()
        self.free[source].append((condition, target))
        return target

    def loop(self, tree: Loop, source: int) -> int:
        for _ in range(tree.min):
            source = self.add(tree.body, source)
        if tree.max is None:
            entry, target = self.state(), self.state()
            self.free[source].append((None, entry))
            self.free[self.add(tree.body, entry)].append((None, entry))
            self.free[entry].append((None, target))
            return target
        target = self.state()
        for _ in range(tree.max - tree.min):
            self.free[source].append((None, target))
            source = self.add(tree.body, source)
        self.free[source].append((None, target))
        return target


def _from_start(tree: Regex) -> Regex:
    """The same where the text starts, without the ^ that says so."""
    match tree:
        case Concat((first, *rest)):
            return Concat((_from_start(first), *rest))
        case Either(options):
            return Either(tuple(map(_from_start, options)))
    return Concat(()) if tree == _CARET else tree


def _look_automaton(pattern: str, look: Look, limit: int) -> Automaton:
    """Ahead: texts that begin with a match (or do not). Behind: texts that end with one."""
    if not _self_contained(look.body, look.ahead):
        raise UnsupportedPattern(pattern, 0, "this assertion inside a lookaround")
    a = determinize(pattern, look.body, search=(not look.ahead, look.ahead), limit=limit)
    return regular.complement(a, limit) if look.negative and look.ahead else a


def _self_contained(tree: Regex, ahead: bool) -> bool:
    """Whether a lookaround sees only the side of the text that its automaton reads."""
    match tree:
        case Concat(items) | Either(items):
            return all(_self_contained(i, ahead) for i in items)
        case Loop(body, _, _):
            return _self_contained(body, ahead)
        case Anchor(kind):
            return kind == ("$" if ahead else "^")
        case Look(body, inner, _):
            return ahead and inner and _self_contained(body, ahead)
    return True


def has_assertion(tree: Regex) -> bool:
    match tree:
        case Concat(items) | Either(items):
            return any(has_assertion(i) for i in items)
        case Loop(body, _, _):
            return has_assertion(body)
    return isinstance(tree, (Anchor, Look))


def determinize(
    pattern: str,
    tree: Regex,
    search: tuple[bool, bool] = (True, True),
    limit: int = automaton.DEFAULT_STATES,
) -> Automaton:
    """The texts in which `tree` matches; `search` says whether text may precede, and follow."""
    return _subsets(pattern, tree, search, limit).run(limit)


def _subsets(pattern: str, tree: Regex, search: tuple[bool, bool], limit: int) -> _Subsets:
    nfa = _Nfa(pattern, limit)
    start = nfa.state()
    if search[0]:
        nfa.sets[start].append((charset.UNIVERSE, start))
    final = nfa.add(tree, nfa.edge(None, start) if search[0] else start)
    if search[1]:
        after = nfa.edge(None, final)
        nfa.sets[after].append((charset.UNIVERSE, after))
        final = after
    return _Subsets(nfa, start, final, search[1])


class Matcher:
    """Matches texts without building the whole automaton; it has that, too."""

    def __init__(self, pattern: str, tree: Regex, whole: bool) -> None:
        search = (not whole, not whole)
        self._subsets = _subsets(pattern, tree, search, automaton.DEFAULT_STATES)
        self._next: dict[tuple[State, int], State | None] = {}

    def automaton(self) -> Automaton:
        """As `determinize`."""
        self._subsets.work = 0
        return self._subsets.run(automaton.DEFAULT_STATES)

    def matches(self, text: str) -> bool:
        subsets = self._subsets
        subsets.work = 0
        if len(self._next) > MAX_KEPT:
            self._next.clear()
            subsets.memo.clear()
        state = subsets.initial
        for char in text:
            part = subsets.part_of(ord(char))
            key = (state, part)
            if key not in self._next:
                self._next[key] = None if part < 0 else subsets.move(state, part)
            target = self._next[key]
            if target is None:
                return False
            state = target
        return subsets.ends(state)


def _segments(parts: list[CharSet]) -> tuple[list[int], list[int]]:
    """Where the owner changes along the code points, and the part before and after each."""
    owned = sorted((low, high, part) for part, own in enumerate(parts) for low, high in own)
    starts: list[int] = []
    owners, end = [-1], 0
    for low, high, part in owned:
        if low > end or not starts:
            starts.append(end)
            owners.append(-1)
        starts.append(low)
        owners.append(part)
        end = high + 1
    return [*starts, end], [*owners, -1]


class _Subsets:
    """States are (kind of the previous character, lookbehind states, configurations)."""

    def __init__(self, nfa: _Nfa, start: int, final: int, open_end: bool) -> None:
        self.nfa, self.start, self.final, self.open_end = nfa, start, final, open_end
        self.behind = [k for k, (look, _) in enumerate(nfa.looks) if not look.ahead]
        sets = {ranges: None for edges in nfa.sets for ranges, _ in edges}
        looked = [p for _, a in nfa.looks for p in a.parts]
        every = [*sets, *looked, charset.UNIVERSE] + ([charset.WORD] if nfa.boundaries else [])
        self.parts, members = charset.partition(every)
        self.starts, self.owners = _segments(self.parts)
        inside = {r: frozenset(m) for r, m in zip(sets, members, strict=False)}
        self.edges = [[(inside[r], target) for r, target in edges] for edges in nfa.sets]
        self.columns = self._look_columns(members[len(sets) :])
        word = frozenset(members[-1]) if nfa.boundaries else frozenset()
        self.kinds = [WORD if p in word else OTHER for p in range(len(self.parts))]
        self.memo: dict[tuple[State, int], frozenset[Config]] = {}
        self.work = 0  # configurations looked at

    def _look_columns(self, members: list[list[int]]) -> list[dict[int, int]]:
        columns, offset = [], 0
        for _, a in self.nfa.looks:
            own = {part: i for i in range(len(a.parts)) for part in members[offset + i]}
            columns.append(own)
            offset += len(a.parts)
        return columns

    @property
    def initial(self) -> State:
        return (START, (0,) * len(self.behind), frozenset(((self.start, frozenset()),)))

    def run(self, limit: int) -> Automaton:
        return automaton.explore(self.parts, self.initial, self.follow, self.ends, limit)

    def part_of(self, point: int) -> int:
        return self.owners[bisect_right(self.starts, point)]

    def closure(self, state: State, following: int) -> frozenset[Config]:
        key = (state, following)
        if key not in self.memo:
            previous, behind, configs = state
            seen, stack = set(configs), list(configs)
            while stack:
                source, duties = stack.pop()
                for condition, target in self.nfa.free[source]:
                    new = self.pass_edge(condition, duties, previous, behind, following)
                    if new is not None and (target, new) not in seen:
                        seen.add((target, new))
                        stack.append((target, new))
            self.memo[key] = frozenset(seen)
            self.work += len(seen)
            if self.work > MAX_WORK:
                reason = "too many places in the pattern to be at once"
                raise LimitExceeded("", "pattern", "states", reason)
        return self.memo[key]

    def pass_edge(
        self,
        condition: Anchor | int | None,
        duties: Obligations,
        previous: int,
        behind: tuple[int, ...],
        following: int,
    ) -> Obligations | None:
        """The obligations after the edge, or None where its condition fails."""
        if condition is None:
            return duties
        if isinstance(condition, int):
            look, a = self.nfa.looks[condition]
            if look.ahead:
                return None if a.is_empty() else duties | {(condition, 0)}
            state = behind[self.behind.index(condition)]
            return duties if (state >= 0 and a.accept[state]) != look.negative else None
        holds = {
            "^": previous == START,
            "$": following == END,
            "b": (previous == WORD) != (following == WORD),
            "B": (previous == WORD) == (following == WORD),
        }
        return duties if holds[condition.kind] else None

    def follow(self, state: State) -> Iterator[State | None]:
        if self.nfa.looks or self.nfa.boundaries:
            return (self.move(state, part) for part in range(len(self.kinds)))
        return self.follow_plain(state)

    def follow_plain(self, state: State) -> Iterator[State | None]:
        """As `move` for every part at once: without lookaround no configuration has duties."""
        moved: list[set[Config]] = [set() for _ in self.kinds]
        for source, duties in self.closure(state, OTHER):
            for inside, target in self.edges[source]:
                config = (target, duties)
                for part in inside:
                    moved[part].add(config)
        done: Config = (self.final, frozenset())
        for configs in moved:
            if self.open_end and done in configs:
                yield (OTHER, (), frozenset((done,)))
            else:
                yield (OTHER, (), frozenset(configs)) if configs else None

    def move(self, state: State, part: int) -> State | None:
        _, behind, _ = state
        moved = set()
        for source, duties in self.closure(state, self.kinds[part]):
            for inside, target in self.edges[source]:
                if part in inside:
                    new = self.advance(duties, part)
                    if new is not None:
                        moved.add((target, new))
        if not moved:
            return None
        if self.open_end and (self.final, frozenset()) in moved:
            done: frozenset[Config] = frozenset(((self.final, frozenset()),))
            return (OTHER, (0,) * len(self.behind), done)
        kind = self.kinds[part] if self.nfa.boundaries else OTHER
        return (kind, self.look_back(behind, part), frozenset(moved))

    def advance(self, duties: Obligations, part: int) -> Obligations | None:
        if not duties:
            return duties
        new = set()
        for k, state in duties:
            column = self.columns[k].get(part, -1)
            a = self.nfa.looks[k][1]
            target = a.delta[state][column] if column >= 0 else -1
            if target < 0:
                return None
            if not (a.accept[target] and self.absorbing(k, target)):
                new.add((k, target))
        return frozenset(new)

    def absorbing(self, k: int, state: int) -> bool:
        a = self.nfa.looks[k][1]
        covered = charset.union(*a.parts) == charset.UNIVERSE
        return covered and all(t == state for t in a.delta[state])

    def look_back(self, behind: tuple[int, ...], part: int) -> tuple[int, ...]:
        out = []
        for k, state in zip(self.behind, behind, strict=True):
            column = self.columns[k].get(part, -1)
            out.append(self.nfa.looks[k][1].delta[state][column] if min(state, column) >= 0 else -1)
        return tuple(out)

    def ends(self, state: State) -> bool:
        for source, duties in self.closure(state, END):
            if source == self.final and all(self.nfa.looks[k][1].accept[s] for k, s in duties):
                return True
        return False
