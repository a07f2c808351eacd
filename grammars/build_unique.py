"""uniqueItems as nodes.

Finitely many items: every order of them is accepted while they are few, else the order in which
they are listed. Otherwise the items must come in an order that shows them distinct (`distinct`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from . import distinct, nodes, numbers, patterns, regular, strings
from .errors import UnsupportedSchema
from .memo import memo
from .nodes import EPSILON, Dfa, Literal, Node, Rule, Token
from .numbers import NumberConstraint
from .strings import StringConstraint
from .values import NOTHING, ArrayConstraint, Goal, ObjectConstraint, Values, both

if TYPE_CHECKING:
    from .build import Builder

COMMA = Literal(", ")
MAX_ANY_ORDER = 6
MAX_FINITE = 200
_INTEGER_TEXT = patterns.pattern("^(?:0|-?[1-9][0-9]*)$")


def build(b: Builder, c: ArrayConstraint) -> Node:
    """The items without the brackets."""
    prefix = [_finite(b, goal) for goal in c.prefix]
    items = _finite(b, c.items) if c.high is None or c.high > len(prefix) else []
    if any(p is None for p in prefix):
        raise UnsupportedSchema("", "uniqueItems", "prefixItems without a finite set of values")
    known = [p for p in prefix if p is not None]
    if items is not None:
        texts = list(dict.fromkeys(t for part in (*known, items) for t in part))
        if len(texts) <= MAX_ANY_ORDER:
            parts = [*known, items]
            orders = ("any order", repr(parts), c.low, c.high)
            return b.shared(orders, lambda: _any_order(b, c, parts))
        if not known:
            listed = ("listed", repr(items), c.low, c.high)
            each = [Token(Literal(t)) for t in items]
            return b.shared(listed, lambda: distinct.chain(each, c.low, c.high))
    if not known:
        key = ("unique", b.x.values(c.items), c.low, c.high)
        return b.shared(key, lambda: _growing(b, c.items, c.low, c.high, False))
    return _after_prefix(b, c, known)


def _finite(b: Builder, goal: Goal) -> list[str] | None:
    """The JSON texts of all values of a goal, or None."""
    values = b.x.values(goal)
    if values.objects or values.arrays:
        return None
    out = ["null"] if values.null else []
    out += ["true" if v else "false" for v in sorted(values.booleans)]
    for n in values.numbers:
        finite = numbers.finite_values(n, MAX_FINITE)
        if finite is None:
            return None
        out += finite
    for s in values.strings:
        texts = strings.finite_values(s)
        if texts is None:
            return None
        out += [json.dumps(t, ensure_ascii=False) for t in texts]
    return list(dict.fromkeys(out))


def _any_order(b: Builder, c: ArrayConstraint, parts: list[list[str]]) -> Node:
    """A rule per (items so far, values used)."""
    states: dict[tuple[int, frozenset[str]], Rule] = {}
    queue: list[tuple[int, frozenset[str]]] = []

    def state(index: int, used: frozenset[str]) -> Rule:
        if (index, used) not in states:
            states[index, used] = Rule("items")
            queue.append((index, used))
            b.x.budget.check("counters", len(states), "uniqueItems")
        return states[index, used]

    start = state(0, frozenset())
    for index, used in queue:
        options: list[Node] = [EPSILON] if index >= c.low else []
        if c.high is None or index < c.high:
            for text in parts[min(index, len(parts) - 1)]:
                if text not in used:
                    item = nodes.sequence(COMMA if index else EPSILON, Token(Literal(text)))
                    options.append(nodes.sequence(item, state(index + 1, used | {text})))
        states[index, used].body = nodes.choice(*options)
    b.counting += states.values()
    return start


def _after_prefix(b: Builder, c: ArrayConstraint, known: list[list[str]]) -> Node:
    """The finite prefix in any combination, then items that are none of its values."""
    width = len(known)
    texts = list(dict.fromkeys(t for part in known for t in part))
    if len(texts) > MAX_ANY_ORDER:
        raise UnsupportedSchema("", "uniqueItems", "prefixItems with many values")
    short = ArrayConstraint(
        c.prefix, c.items, c.low, width if c.high is None else min(width, c.high)
    )
    options = [_any_order(b, short, known)] if c.low <= width else []
    if c.high is None or c.high > width:
        taken = b.x.algebra.union(NOTHING, *(b.x.constant_values(json.loads(t)) for t in texts))
        rest = b.x.known(b.x.algebra.subtract(b.x.values(c.items), taken))
        full = ArrayConstraint(c.prefix, c.items, width, width)
        high = None if c.high is None else c.high - width
        tail = _growing(b, rest, max(1, c.low - width), high, True)
        options.append(nodes.sequence(_any_order(b, full, known), tail))
    return nodes.choice(*options)


def _growing(b: Builder, goal: Goal, low: int, high: int | None, started: bool) -> Node:
    """Single values, then integers, strings and objects in growing order, at most one array."""
    values = b.x.values(goal)
    single: list[Node] = [Token(Literal("null"))] if values.null else []
    single += [Token(Literal("true" if v else "false")) for v in sorted(values.booleans)]
    last: list[Node] = []
    if values.arrays:
        last.append(b.node(b.x.known(Values(arrays=values.arrays)), "item"))
    last += _object_classes(b, values.objects)
    options = []
    for partition in distinct.partitions():
        whole = _number_classes(values.numbers, partition)
        texts = _string_classes(values.strings, partition)
        if high is None and low <= 1:
            options.append(_chained((tuple(single), whole, texts), last, low, started))
        else:
            make = distinct.chain if last else _lasting_chain
            options.append(make((*single, *whole, *texts, *last), low, high, started))
        if not values.strings and not values.numbers:
            break
    return nodes.choice(*options)


def _chained(kept: tuple[tuple[Node, ...], ...], last: list[Node], low: int, started: bool) -> Node:
    """The chain of all classes, made of chains of which those of `kept` outlive a compilation."""
    some, rest = distinct.links(last, started)
    for classes in reversed(kept):
        first, later = _lasting_links(classes, started)
        some = nodes.choice(nodes.sequence(first, rest), some)
        rest = nodes.sequence(later, rest)
    return some if low else nodes.optional(some)


@memo(lambda _, classes, *__: 8_000 * len(classes), 20_000_000)
def _lasting_links(classes: tuple[Node, ...], started: bool) -> tuple[Node, Node]:
    return distinct.links(classes, started, lasting=True)


@memo(lambda _, classes, *__: 8_000 * len(classes), 20_000_000)
def _lasting_chain(classes: tuple[Node, ...], low: int, high: int | None, started: bool) -> Node:
    return distinct.chain(classes, low, high, started, lasting=True)


def _weight(classes: tuple[Node, ...], *_: object) -> int:
    return 1_000 + 5_000 * len(classes)


@memo(_weight, 20_000_000)
def _string_classes(
    texts: tuple[StringConstraint, ...], partition: tuple[StringConstraint, ...]
) -> tuple[Node, ...]:
    if not texts:
        return ()
    cuts = (distinct.cut(texts, part) for part in partition)
    return tuple(nodes.choice(*(strings.to_node(p) for p in pieces)) for pieces in cuts)


@memo(_weight, 20_000_000)
def _number_classes(
    found: tuple[NumberConstraint, ...], partition: tuple[StringConstraint, ...]
) -> tuple[Node, ...]:
    """Integers alone: their one spelling makes different texts different numbers."""
    if not found:
        return ()
    a = regular.union([numbers.to_automaton(n) if n.values is None else
                       regular.of_texts(map(numbers.spell, n.values))
                       for n in found])  # fmt: skip
    a = regular.intersect([a, _INTEGER_TEXT.automaton])
    pieces = (regular.intersect([a, strings.to_automaton(part)]) for part in partition)
    return tuple(Token(Dfa(piece)) for piece in pieces if not piece.is_empty())


def _object_classes(b: Builder, objects: tuple[ObjectConstraint, ...]) -> list[Node]:
    """Objects told apart by a required property that holds a string."""
    if not objects:
        return []
    name = _telling_property(b, objects)
    if name is None:
        return [b.node(b.x.known(Values(objects=objects)), "item")]
    out: list[Node] = []
    for part in distinct.partitions(coarse=True)[0]:
        goal = b.x.known(Values(strings=(part,)))
        mark = ObjectConstraint(props=((name, goal),))
        pieces = tuple(m for o in objects if (m := b.x.algebra.meet_objects(o, mark)) is not None)
        pieces = tuple(p for p in pieces if not b.x.algebra.object_is_empty(p))
        if pieces:
            out.append(b.node(b.x.known(Values(objects=pieces)), "item"))
    return out


def _telling_property(b: Builder, objects: tuple[ObjectConstraint, ...]) -> str | None:
    first = objects[0]
    for name, _ in first.props:
        if all(name in o.required for o in objects):
            goals = [o.goal_of(name) for o in objects]
            if all(_open_strings(b, g) for g in goals):
                return name
    return None


def _open_strings(b: Builder, goal: Goal) -> bool:
    texts = b.x.values(both(goal, frozenset())).strings
    return any(strings.finite_values(t) is None for t in texts)
