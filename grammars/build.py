"""Goals as rules: one rule for each distinct value set, built from a worklist."""

from __future__ import annotations

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
        self._queue: list[tuple[Rule, Values, Goal]] = []

    def grammar(self, goal: Goal) -> Node:
        """The root node; raises UnsupportedSchema where no value satisfies the goal."""
        root = self.node(goal, "value")
        for rule, values, own in self._queue:
            self.x.budget.check_time()
            rule.body = self._located(values, own)
        body = prune(root)
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

    def _located(self, values: Values, goal: Goal) -> Node:
        try:
            return self._body(values)
        except UnsupportedSchema as error:
            error.locate(self.x.path(goal))
            raise
        except UnsupportedPattern as error:
            raise UnsupportedSchema(self.x.path(goal), "pattern", str(error)) from error

    def _body(self, values: Values) -> Node:
        options: list[Node] = []
        options.extend(build_objects.build(self, c) for c in values.objects)
        options.extend(build_arrays.build(self, c) for c in values.arrays)
        options.extend(strings.to_node(c) for c in values.strings)
        options.extend(numbers.to_node(c) for c in values.numbers)
        options.extend(Token(_TRUE if v else _FALSE) for v in sorted(values.booleans, reverse=True))
        if values.null:
            options.append(Token(_NULL))
        return nodes.choice(*(o for o in options if o != NEVER))
