"""Objects whose properties must be counted, or of which some property must exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import build_objects, distinct, nodes, strings
from .build_objects import COMMA, Cell, Declared
from .errors import UnsupportedSchema
from .nodes import EPSILON, NEVER, Node, Rule
from .strings import StringConstraint
from .values import Goal, ObjectConstraint, both

if TYPE_CHECKING:
    from .build import Builder

Wanted = tuple[StringConstraint, Goal]
Pending = tuple[Wanted, ...]
MAX_DISTINCT = 8


def build_counted(
    b: Builder, c: ObjectConstraint, declared: list[Declared], cells: list[Cell]
) -> Node:
    """The properties without the braces."""
    return _Counted(b, c, declared, cells).run()


class _Counted:
    """A rule per (property to consider, properties written, witnesses still wanted)."""

    def __init__(
        self, b: Builder, c: ObjectConstraint, declared: list[Declared], cells: list[Cell]
    ) -> None:
        self.b, self.c, self.declared, self.cells = b, c, declared, cells
        self.cap = max(c.low, 1) if c.high is None else c.high
        self.left = [sum(d.required for d in declared[i:]) for i in range(len(declared) + 1)]
        self.states: dict[tuple[int, int, Pending], Rule] = {}
        self.queue: list[tuple[int, int, Pending]] = []
        self.extra = build_objects.free(b, cells)

    def run(self) -> Node:
        start = self.state(0, 0, self.c.some)
        for key in self.queue:
            self.states[key].body = self.body(*key)
        self.b.counting += self.states.values()
        return start

    def state(self, index: int, count: int, pending: Pending) -> Node:
        high = self.c.high
        if high is not None and count + self.left[index] > high:
            return NEVER
        if not self.cells and count + len(self.declared) - index < self.c.low:
            return NEVER
        key = (index, count, pending)
        if key not in self.states:
            self.states[key] = Rule("rest")
            self.queue.append(key)
            self.b.x.budget.check("counters", len(self.states), "minProperties")
        return self.states[key]

    def body(self, index: int, count: int, pending: Pending) -> Node:
        if index == len(self.declared):
            return self.tail(count, pending)
        d = self.declared[index]
        options: list[Node] = []
        for goal, still in self.outcomes(d, pending):
            after = self.state(index + 1, min(count + 1, self.cap), still)
            if self.c.high is None or count < self.c.high:
                comma = COMMA if count else EPSILON
                options.append(nodes.sequence(comma, build_objects.member(self.b, d, goal), after))
        if not d.required:
            options.append(self.state(index + 1, count, pending))
        return nodes.choice(*(o for o in options if o != NEVER))

    def outcomes(self, d: Declared, pending: Pending) -> Iterator[tuple[Goal, Pending]]:
        """The property as it is, or as the witness of some of what is wanted."""
        results: list[tuple[Goal, Pending]] = [(d.goal, ())]
        for wanted in pending:
            names, goal = wanted
            split = []
            for sofar, still in results:
                split.append((sofar, (*still, wanted)))
                if names.accepts(d.name):
                    split.append((both(sofar, goal), still))
            results = split
        return (r for r in results if not self.b.x.is_never(r[0]))

    def tail(self, count: int, pending: Pending) -> Node:
        """Properties without a declaration; the witnesses come last, where none overrides them."""
        low = max(0, self.c.low - count)
        high = None if self.c.high is None else self.c.high - count
        if not pending:
            return self.extras(count > 0, low, high)
        if low > 1:
            raise UnsupportedSchema("", "minProperties", "beside a wanted property without a name")
        options = []
        for witnesses in self.witnesses(pending):
            if high is not None and len(witnesses) > high:
                continue
            room = None if high is None else high - len(witnesses)
            closing = nodes.sequence(*(nodes.sequence(COMMA, w) for w in witnesses))
            if not count:
                first = nodes.sequence(
                    witnesses[0], *(nodes.sequence(COMMA, w) for w in witnesses[1:])
                )
                options.append(first)
            if count or room is None or room > 0:
                before = self.extras(count > 0, 0 if count else 1, room)
                options.append(nodes.sequence(before, closing))
        return nodes.choice(*(o for o in options if o != NEVER))

    def extras(self, started: bool, low: int, high: int | None) -> Node:
        if not self.cells or high == 0:
            return EPSILON if low == 0 else NEVER
        more = nodes.sequence(COMMA, self.extra)
        if low > 1:
            return self.distinct(started, low, high)
        if started:
            return nodes.repeat(more, low, high)
        rest = nodes.repeat(more, 0, None if high is None else high - 1)
        some = nodes.sequence(self.extra, rest)
        return some if low else nodes.optional(some)

    def distinct(self, started: bool, low: int, high: int | None) -> Node:
        """A name given twice counts once, so the first `low` names must be seen to differ."""
        if low > MAX_DISTINCT:
            raise UnsupportedSchema("", "minProperties", f"over {MAX_DISTINCT} undeclared names")
        more = nodes.sequence(COMMA, self.extra)
        rest = nodes.repeat(more, 0, None if high is None else high - low)
        options = []
        for partition in distinct.partitions():
            classes = [self.named(part) for part in partition]
            options.append(nodes.sequence(distinct.chain(classes, low, low, started), rest))
        return nodes.choice(*options)

    def named(self, part: StringConstraint) -> Node:
        pieces = [Cell(tuple(distinct.cut(cell.names, part)), cell.goal) for cell in self.cells]
        return nodes.choice(*(build_objects.free_member(self.b, p) for p in pieces if p.names))

    def witnesses(self, pending: Pending) -> Iterator[list[Node]]:
        """Ways to satisfy all that is wanted: one property for all, or one for each."""
        together = self.witness(pending)
        if together != NEVER:
            yield [together]
        if len(pending) > 1 and self.names_differ(pending):
            apart = [self.witness((wanted,)) for wanted in pending]
            if NEVER not in apart:
                yield apart

    def witness(self, wanted: Pending) -> Node:
        options = []
        for cell in self.cells:
            names, goal = list(cell.names), cell.goal
            for allowed, extra_goal in wanted:
                goal = both(goal, extra_goal)
                names = [m for n in names if (m := strings.intersect(n, allowed)) is not None]
            names = [n for n in names if not strings.is_empty(n)]
            if names and not self.b.x.is_never(goal):
                options.append(build_objects.free_member(self.b, Cell(tuple(names), goal)))
        return nodes.choice(*options)

    @staticmethod
    def names_differ(pending: Pending) -> bool:
        return not any(
            strings.overlap(a, other)
            for i, (a, _) in enumerate(pending)
            for other, _ in pending[i + 1 :]
        )
