"""Drop what can never be finished: alternatives that lead only into endless recursion."""

from __future__ import annotations

from . import nodes
from .nodes import Choice, Literal, Member, Node, Repeat, Rule, Sequence, Token, is_never

MAX_DEPTH = 60
_TEXTS = (Token, Literal)  # a token that matches nothing is never built


def prune(root: Rule, rules: list[Rule], good: set[int]) -> Node:
    """The same language without unproductive parts; rules are edited in place.

    Without an end can only be one of `rules`, or what leads to it. `good` are the ids of those
    known to have one. Usually a look at the others, last built first, shows that they have too.
    """
    tried: set[int] = set()
    if all(_ends(rule, good, tried, 0) for rule in reversed(rules)):
        return root
    users = _users(root)
    good = _productive_rules([rule for rule, _ in users.values()], users)
    if id(root) not in good:
        return nodes.NEVER
    bad = [found for key, (_, found) in users.items() if key not in good]
    for rule in {id(r): r for found in bad for r in found}.values():
        rule.body = _cut(rule.body, good)
    return root


Users = dict[int, tuple[Rule, list[Rule]]]


def _users(root: Rule) -> Users:
    """Every rule outside of tokens, by its id, and the rules that refer to it."""
    users: Users = {id(root): (root, [])}
    queue = [root]
    for rule in queue:
        stack: list[Node] = [rule.body]
        while stack:
            node = stack.pop()
            if isinstance(node, Rule):
                if node.lasting:
                    continue
                if id(node) not in users:
                    users[id(node)] = (node, [])
                    queue.append(node)
                users[id(node)][1].append(rule)
            elif not isinstance(node, Token):
                stack.extend(nodes.children(node))
    return users


def _productive_rules(rules: list[Rule], users: Users) -> set[int]:
    """The ids of the rules with an end; a rule is looked at again once another turns out good."""
    good: set[int] = set()
    stack = rules
    while stack:
        rule = stack.pop()
        if id(rule) not in good and _productive(rule.body, good):
            good.add(id(rule))
            stack.extend(users[id(rule)][1])
    return good


def _ends(rule: Rule, good: set[int], tried: set[int], depth: int) -> bool:
    """A look at each rule once, which may miss an end; what it finds is added to `good`."""
    if rule.lasting or id(rule) in good:
        return True
    if id(rule) in tried or depth > MAX_DEPTH:
        return False
    tried.add(id(rule))
    found = _ending(rule.body, good, tried, depth + 1)
    if found:
        good.add(id(rule))
    return found


def _ending(node: Node, good: set[int], tried: set[int], depth: int) -> bool:
    match node:
        case Rule():
            return _ends(node, good, tried, depth)
        case Sequence(items):
            parts = (i for i in items if type(i) not in _TEXTS)
            return all(_ending(i, good, tried, depth) for i in parts)
        case Choice(options):
            return any(_ending(o, good, tried, depth) for o in options)
        case Repeat(body, low, _):
            return low == 0 or _ending(body, good, tried, depth)
        case Member(value=value):
            return not node.required or _ends(value, good, tried, depth)
    return True


def _productive(node: Node, good: set[int]) -> bool:
    match node:
        case Rule():
            return node.lasting or id(node) in good
        case Sequence(items):
            return all(_productive(i, good) for i in items)
        case Choice(options):
            return any(_productive(o, good) for o in options)
        case Repeat(body, low, _):
            return low == 0 or _productive(body, good)
        case Member(value=value):
            return not node.required or _productive(value, good)
    return True


def _cut(node: Node, good: set[int]) -> Node:
    match node:
        case Rule():
            return node if node.lasting or id(node) in good else nodes.NEVER
        case Sequence(items):
            return nodes.sequence(*(_cut(i, good) for i in items))
        case Choice(options):
            kept = (_cut(o, good) for o in options)
            return nodes.choice(*(o for o in kept if not is_never(o)))
        case Repeat(body, low, high):
            return nodes.repeat(_cut(body, good), low, high)
        case Member(value=value):
            gone = nodes.NEVER if node.required else nodes.EPSILON
            return node if _productive(value, good) else gone
    return node
