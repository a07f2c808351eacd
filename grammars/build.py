"""Goals as rules: one rule for each distinct value set, built from a worklist."""

from __future__ import annotations

from collections.abc import Callable

from . import build_arrays, build_objects, nodes, numbers, strings
from .errors import UnsupportedPattern, UnsupportedSchema
from .expand import Expander
from .nodes import NEVER, Literal, Node, Rule, Token
from .productive import prune
from .values import Goal, Values

_TRUE, _FALSE, _NULL = Literal("true"), Literal("false"), Literal("null")


class Builder:
    def __init__(self, expander: Expander) -> None:
        self.x = expander
        self._rules: dict[Values, Rule] = {}
        self._goals: dict[Goal, Rule] = {}
        self._shared: dict[object, Rule] = {}
        self.counting: list[Rule] = []  # the states of counters, which may be dead ends
        self._queue: list[tuple[Rule, Values, Goal]] = []

    def grammar(self, goal: Goal) -> Node:
        """The root node; raises UnsupportedSchema where no value satisfies the goal."""
        root = self.node(goal, "value")
        finished: set[int] = set()
        for rule, values, own in self._queue:
            self.x.budget.check_time()
            rule.body, ends = self._located(values, own)
            if ends:
                finished.add(id(rule))
        body = prune(root, [*(rule for rule, _, _ in self._queue), *self.counting], finished)
        if body == NEVER:
            raise UnsupportedSchema("$", "", "no value satisfies it")
        return body

    def node(self, goal: Goal, hint: str) -> Rule:
        rule = self._goals.get(goal)
        if rule is None:
            values = self.x.values(goal)
            rule = self._rules.get(values)
            if rule is None:
                rule = self._rules[values] = Rule(hint)
                self._queue.append((rule, values, goal))
                self.x.budget.check("rules", len(self._queue))
            self._goals[goal] = rule
        return rule

    def shared(self, key: object, make: Callable[[], Node]) -> Node:
        """What `make` builds, as one rule for all who give the same key."""
        if key not in self._shared:
            self._shared[key] = Rule("items", make())
        rule = self._shared[key]
        return rule.body if nodes.is_never(rule.body) else rule

    def _located(self, values: Values, goal: Goal) -> tuple[Node, bool]:
        try:
            return self._body(values)
        except UnsupportedSchema as error:
            error.locate(self.x.path(goal))
            raise
        except UnsupportedPattern as error:
            raise UnsupportedSchema(self.x.path(goal), "pattern", str(error)) from error

    def _body(self, values: Values) -> tuple[Node, bool]:
        """The node, and whether it has a way to end that needs no other rule."""
        nested: list[Node] = [build_objects.build(self, c) for c in values.objects]
        nested += [build_arrays.build(self, c) for c in values.arrays]
        flat = [strings.to_node(c) for c in values.strings]
        flat += [numbers.to_node(c) for c in values.numbers]
        flat += [Token(_TRUE if v else _FALSE) for v in sorted(values.booleans, reverse=True)]
        if values.null:
            flat.append(Token(_NULL))
        flat = [n for n in flat if not nodes.is_never(n)]
        nested = [n for n in nested if not nodes.is_never(n)]
        return nodes.choice(*nested, *flat), bool(flat)
