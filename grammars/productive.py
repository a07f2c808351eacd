"""Drop what can never be finished: alternatives that lead only into endless recursion."""

from __future__ import annotations

from . import nodes
from .nodes import NEVER, Choice, Node, Repeat, Rule, Sequence


def prune(root: Node) -> Node:
    """The same language without unproductive parts; rules are edited in place."""
    rules = list(nodes.rules(root, tokens=False))
    good: set[int] = set()
    left, before = rules[::-1], len(rules) + 1
    while left and len(left) < before:
        before = len(left)
        still = []
        for rule in left:
            if _productive(rule.body, good):
                good.add(id(rule))
            else:
                still.append(rule)
        left = still
    if not left:
        return root
    for rule in rules:
        if id(rule) in good:
            rule.body = _cut(rule.body, good)
    return _cut(root, good)


def _productive(node: Node, good: set[int]) -> bool:
    kind = type(node)
    if kind is Rule:
        return id(node) in good
    if kind is Sequence:
        return all([_productive(i, good) for i in node.items])  # type: ignore[union-attr]
    if kind is Choice:
        return any([_productive(o, good) for o in node.options])  # type: ignore[union-attr]
    if isinstance(node, Repeat):
        return node.min == 0 or _productive(node.body, good)
    return True  # a token that matches nothing is never built


def _cut(node: Node, good: set[int]) -> Node:
    match node:
        case Rule():
            return node if id(node) in good else NEVER
        case Sequence(items):
            return nodes.sequence(*(_cut(i, good) for i in items))
        case Choice(options):
            kept = [_cut(o, good) for o in options]
            return nodes.choice(*(o for o in kept if o != NEVER))
        case Repeat(body, low, high):
            return nodes.repeat(_cut(body, good), low, high)
    return node
