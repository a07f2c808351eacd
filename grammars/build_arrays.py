"""Array constraints as nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import build_unique, nodes
from .errors import UnsupportedSchema
from .nodes import EPSILON, NEVER, Literal, Node, Rule
from .values import ArrayConstraint, Contains, both

if TYPE_CHECKING:
    from .build import Builder

OPEN, CLOSE, COMMA = Literal("["), Literal("]"), Literal(", ")
Counts = tuple[int, ...]


def build(b: Builder, c: ArrayConstraint) -> Node:
    c = _settled(b, c)
    if c.high is not None and c.low > c.high:
        return NEVER
    if c.unique and (c.high is None or c.high > 1):
        if c.contains:
            raise UnsupportedSchema("", "uniqueItems", "not together with contains")
        return nodes.sequence(OPEN, build_unique.build(b, c), CLOSE)
    if c.contains:
        return nodes.sequence(OPEN, _counting(b, c), CLOSE)
    return nodes.sequence(OPEN, _plain(b, c), CLOSE)


def _settled(b: Builder, c: ArrayConstraint) -> ArrayConstraint:
    """Cut where no item can stand; drop counters that are always met."""
    width = len(c.prefix) + 1
    high = c.high
    for index in range(width if high is None else min(width, high)):
        if b.x.is_never(c.item(index)):
            high = index
            break
    prefix = c.prefix if high is None else c.prefix[:high]
    contains = tuple(k for k in c.contains if k.low > 0 or k.high is not None)
    return ArrayConstraint(prefix, c.items, c.low, high, contains, c.unique)


def _plain(b: Builder, c: ArrayConstraint) -> Node:
    width = len(c.prefix)
    if not width:
        if c.high == 0:
            return EPSILON
        item: Node = b.node(c.items, "item")
        after = nodes.repeat(
            nodes.sequence(COMMA, item), max(0, c.low - 1), None if c.high is None else c.high - 1
        )
        some = nodes.sequence(item, after)
        return some if c.low else nodes.optional(some)
    rest: Node = EPSILON
    if c.high is None or c.high > width:
        more = nodes.sequence(COMMA, b.node(c.items, "item"))
        rest = nodes.repeat(more, max(0, c.low - width), None if c.high is None else c.high - width)
    for index in range(width - 1, -1, -1):
        item = nodes.sequence(COMMA if index else EPSILON, b.node(c.prefix[index], "item"), rest)
        rest = item if index < c.low else nodes.optional(item)
        if index and index % 8 == 0:
            rest = Rule("items", rest)
    return rest


def _counting(b: Builder, c: ArrayConstraint) -> Node:
    """A rule per (items so far, how many of each `contains` were met)."""
    cap = max(len(c.prefix), c.low, *(k.start for k in c.contains)) + 1
    if c.high is not None:
        cap = c.high
    states: dict[tuple[int, Counts], Rule] = {}
    queue: list[tuple[int, Counts]] = []

    def state(index: int, counts: Counts) -> Rule:
        key = (index if c.high is not None else min(index, cap), counts)
        if key not in states:
            states[key] = Rule("items")
            queue.append(key)
            b.x.budget.check("counters", len(states), "contains")
        return states[key]

    start = state(0, (0,) * len(c.contains))
    for index, counts in queue:
        options: list[Node] = []
        done = index >= c.low and all(n >= k.low for n, k in zip(counts, c.contains, strict=True))
        if done:
            options.append(EPSILON)
        if c.high is None or index < c.high:
            for goal, new in _outcomes(b, c, index, counts):
                item = nodes.sequence(COMMA if index else EPSILON, b.node(goal, "item"))
                options.append(nodes.sequence(item, state(index + 1, new)))
        states[index, counts].body = nodes.choice(*options)
    b.counting += states.values()
    return start


def _outcomes(b: Builder, c: ArrayConstraint, index: int, counts: Counts):  # type: ignore[no-untyped-def]
    """(goal of the item, counts after it), over which `contains` the item meets."""
    outcomes = [(c.item(index), counts)]
    for number, k in enumerate(c.contains):
        if index < k.start:
            continue
        split = []
        for goal, so_far in outcomes:
            count = so_far[number]
            inside = both(goal, k.goal)
            outside = both(goal, b.x.negate(k.goal))
            if k.high is None:
                if count >= k.low:
                    split.append((goal, so_far))
                    continue
                outside = goal  # a lower bound may go uncounted
            if k.high is None or count < k.high:
                new = (*so_far[:number], count + 1, *so_far[number + 1 :])
                split.append((inside, new))
            split.append((outside, so_far))
        outcomes = [(g, n) for g, n in split if not b.x.is_never(g)]
    return outcomes


__all__ = ["Contains", "build"]
