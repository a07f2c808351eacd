"""Sequences whose members are shown to differ by the order they stand in.

That two texts differ is not context-free, but it is implied where each text belongs to a later
class than the one before it. The classes used here are the first character, the last character
and the length; a sequence is accepted if one of the three grows strictly.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from . import nodes, strings
from .nodes import EPSILON, NEVER, Literal, Node, Rule
from .strings import StringConstraint

COMMA = Literal(", ")
_SINGLES = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_GROUPS = ("[0-9A-Z_]", "[a-d]", "[e-i]", "[j-n]", "[o-r]", "[s-z]")
LONGEST = 24


def chain(
    classes: Sequence[Node],
    low: int,
    high: int | None,
    started: bool = False,
    lasting: bool = False,
) -> Node:
    """low..high of the classes, each at most once, in order; `started`: a comma comes first.

    `lasting`: no class refers to a rule of one compilation.
    """
    if low > len(classes):
        return NEVER
    if high is not None and high >= len(classes):
        high = None
    cap = high if high is not None else max(low, 1)
    first: list[Node] = [EPSILON] if low == 0 else []
    after: list[Node] = [EPSILON if k >= low else NEVER for k in range(cap + 1)]
    for node in reversed(classes):
        if node == NEVER or high == 0:
            continue
        first.append(nodes.sequence(COMMA if started else EPSILON, node, after[min(1, cap)]))
        item = nodes.sequence(COMMA, node)
        row = [NEVER]
        for k in range(1, cap + 1):
            if k < cap:
                text = _either(after[k], nodes.sequence(item, after[k + 1]))
            else:
                text = nodes.sequence(nodes.optional(item) if high is None else EPSILON, after[k])
            row.append(text if text in (EPSILON, NEVER) else Rule("next", text, lasting))
        after = row
    return _either(*(f for f in reversed(first)))


def links(classes: Sequence[Node], started: bool, lasting: bool = False) -> tuple[Node, Node]:
    """One or more of the classes, each at most once, in order; and any of them after a comma.

    `started` and `lasting` as for `chain`.
    """
    first: list[Node] = []
    rest: Node = EPSILON
    for node in reversed(classes):
        if node != NEVER:
            first.append(nodes.sequence(COMMA if started else EPSILON, node, rest))
            tail = nodes.sequence(nodes.optional(nodes.sequence(COMMA, node)), rest)
            rest = Rule("next", tail, lasting)
    return nodes.choice(*reversed(first)), rest


def _either(*options: Node) -> Node:
    return nodes.choice(*(o for o in options if o != NEVER))


@lru_cache(maxsize=8)
def partitions(coarse: bool = False) -> tuple[tuple[StringConstraint, ...], ...]:
    """Ways to split all strings into disjoint classes; `coarse` is one way with few classes."""
    if coarse:
        return (_by_character("^", "", list(_GROUPS)),)
    singles = list(_SINGLES)
    lengths = tuple(StringConstraint(low=n, high=n) for n in range(LONGEST))
    return (
        _by_character("^", "", singles),
        _by_character("", "$", singles),
        (*lengths, StringConstraint(low=LONGEST)),
    )


def _by_character(before: str, after: str, classes: list[str]) -> tuple[StringConstraint, ...]:
    named = [f"p:{before}{c}{after}" for c in classes]
    rest = StringConstraint(matches=frozenset((f"p:{before}[^0-9A-Z_a-z]{after}",)))
    picked = (StringConstraint(matches=frozenset((name,))) for name in named)
    return (StringConstraint(high=0), *picked, rest)


def cut(texts: tuple[StringConstraint, ...], part: StringConstraint) -> list[StringConstraint]:
    """The members of a union that lie in one class."""
    pieces = (strings.intersect(t, part) for t in texts)
    return [p for p in pieces if p is not None and not strings.is_empty(p)]
