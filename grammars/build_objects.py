"""Object constraints as nodes: properties in declared order, then those without a declaration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from . import nodes, strings
from .errors import UnsupportedSchema
from .json_text import quote
from .nodes import NEVER, Literal, Member, Node, Rule, Token
from .strings import StringConstraint
from .values import TRUE, Goal, ObjectConstraint, both

if TYPE_CHECKING:
    from .build import Builder

OPEN, CLOSE, COMMA, COLON = Literal("{"), Literal("}"), Literal(", "), Literal(": ")
MAX_CELLS = 64
MAX_RUN = 64  # members of one sequence


class Declared(Struct, frozen=True):
    name: str
    goal: Goal
    required: bool


class Cell(Struct, frozen=True):
    """Names without a declaration that share a goal."""

    names: tuple[StringConstraint, ...]
    goal: Goal


def build(b: Builder, c: ObjectConstraint) -> Node:
    every = _declared(b, c)
    declared = [d for d in every if not b.x.is_never(d.goal)]
    if len(declared) < len(every) and sum(d.required for d in declared) < len(c.required):
        return NEVER
    cells = _cells(b, c)
    needed = sum(d.required for d in declared)
    counts_up = c.low > needed
    counts_down = c.high is not None and (bool(cells) or len(declared) > c.high)
    if counts_up or counts_down or c.some:
        from .build_counted import build_counted

        return nodes.sequence(OPEN, build_counted(b, c, declared, cells), CLOSE)
    return nodes.sequence(OPEN, _plain(b, declared, cells), CLOSE)


def _declared(b: Builder, c: ObjectConstraint) -> list[Declared]:
    goals = dict(c.props)
    for name in sorted(c.required - goals.keys()):
        goals[name] = TRUE
    if all(goals.keys() <= names.excluded for names, _ in c.every):
        return [Declared(n, g, n in c.required) for n, g in goals.items()]
    return [Declared(n, c.goal_of(n, g), n in c.required) for n, g in goals.items()]


def _cells(b: Builder, c: ObjectConstraint) -> list[Cell]:
    """Split the names without a declaration by which clauses of `every` they fall under."""
    taken = frozenset(n for n, _ in c.props) | c.required
    cells: list[tuple[StringConstraint, Goal]] = [(StringConstraint(excluded=taken), TRUE)]
    for names, goal in c.every:
        if goal == TRUE:
            continue
        if strings.holds_all_but(names, taken):  # as those of additionalProperties do
            cells = [(n, g) for n, w in cells if not b.x.is_never(g := both(w, goal))]
            continue
        split: list[tuple[StringConstraint, Goal]] = []
        for cell, wanted in cells:
            inside = strings.intersect(cell, names)
            if inside is None or strings.is_empty(inside):
                split.append((cell, wanted))
                continue
            split.append((inside, both(wanted, goal)))
            for other in strings.complement(names):
                outside = strings.intersect(cell, other)
                if outside is not None and not strings.is_empty(outside):
                    split.append((outside, wanted))
        cells = [(n, g) for n, g in split if not b.x.is_never(g)]
        if len(cells) > MAX_CELLS:
            raise UnsupportedSchema("", "patternProperties", "too many overlapping patterns")
    grouped: dict[Goal, list[StringConstraint]] = {}
    for name_set, goal in cells:
        grouped.setdefault(goal, []).append(name_set)
    return [Cell(tuple(dict.fromkeys(n)), g) for g, n in grouped.items()]


def member(
    b: Builder, d: Declared, goal: Goal | None = None, comma: bool = False, required: bool = True
) -> Node:
    value = b.node(d.goal if goal is None else goal, d.name)
    return Member(quote(d.name) + ": ", value, comma, required)


def free_member(b: Builder, cell: Cell) -> Node:
    """A property whose name is in the cell, spelled in the one way that names are."""
    names = nodes.choice(*(strings.to_node(n) for n in cell.names))
    # The colon belongs to the token as it does for declared names, or greed would part them.
    return nodes.sequence(Token(nodes.sequence(names, COLON)), b.node(cell.goal, "value"))


def free(b: Builder, cells: list[Cell]) -> Node:
    if not cells:
        return NEVER
    return Rule("property", nodes.choice(*(free_member(b, cell) for cell in cells)))


def _plain(b: Builder, declared: list[Declared], cells: list[Cell]) -> Node:
    """`rest[i]`: what may follow, from property i on, once one has been written."""
    extra = free(b, cells)
    more = nodes.repeat(nodes.sequence(COMMA, extra), 0, None)
    first = next((i for i, d in enumerate(declared) if d.required), len(declared))
    rest: dict[int, Node] = {len(declared): more}
    run = [more]  # backwards: what follows up to the next rule
    for index in range(len(declared) - 1, 0, -1):
        d = declared[index]
        run.append(member(b, d, comma=True, required=d.required))
        if index <= first + 1 or index % MAX_RUN == 0:
            rest[index] = Rule("rest", nodes.sequence(*reversed(run)))
            run = [rest[index]]
    options = [
        nodes.sequence(member(b, declared[i]), rest[i + 1])
        for i in range(min(first + 1, len(declared)))
    ]
    if first < len(declared):
        return nodes.choice(*options)
    options.append(nodes.sequence(extra, more))
    return nodes.optional(nodes.choice(*options))
