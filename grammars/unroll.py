"""Automata as nodes.

`right_linear`: a rule per state, recursion for loops; what GBNF runs best. `regular`: no
recursion, loops become stars by eliminating the states of each strongly connected component;
what a lexer needs. Where every loop is a self-loop both are the same.
"""

from collections.abc import Callable

from . import nodes
from .automaton import Automaton
from .charset import CharSet
from .errors import LimitExceeded
from .json_text import plain_set, shared_set
from .memo import memo
from .nodes import EPSILON, NEVER, Chars, Node, Rule

MAX_COMPONENT = 40
INLINE_DEPTH = 6

Spell = Callable[[CharSet], Node]


@memo(lambda _, a, *__: 8 * a.weight, 32_000_000)
def right_linear(a: Automaton, escaped: bool) -> Rule:
    return Rule("r", _Unroller(a, shared_set if escaped else plain_set, False).run(), True)


@memo(lambda _, a, *__: 8 * a.weight, 32_000_000)
def regular(a: Automaton, escaped: bool) -> Node:
    """Raises LimitExceeded where a loop has too many states to be said without recursion."""
    return _Unroller(a, shared_set if escaped else plain_set, True).run()


class _Unroller:
    def __init__(self, a: Automaton, spell: Spell, regular: bool) -> None:
        self.a, self.spell, self.regular = a, spell, regular
        self.edges = [
            {t: spell(ranges) for t, ranges in a.edges(s).items()} for s in range(len(a.delta))
        ]
        self.indegree = [0] * len(a.delta)
        for source, targets in enumerate(self.edges):
            for target in targets:
                if target != source:
                    self.indegree[target] += 1
        self.done: dict[int, Node] = {}
        self.depth: dict[int, int] = {}
        self.chain: dict[int, tuple[int, int]] = {}

    def run(self) -> Node:
        if self.a.is_empty():
            return NEVER
        for component in _components(self.edges):
            if len(component) == 1:
                self.finish(component[0], self.single(component[0]))
            elif self.regular:
                self.eliminate(component)
            else:
                self.recurse(component)
        return self.done[0]

    def finish(self, state: int, node: Node, depth: int | None = None) -> None:
        """States used more than once, and long chains, become rules."""
        deep = 1 + max((self.depth.get(t, 0) for t in self.edges[state]), default=0)
        if state and (self.indegree[state] > 1 or deep > INLINE_DEPTH) and not _small(node):
            node, deep = Rule("s", node, True), 0
        self.done[state], self.depth[state] = node, deep

    def single(self, state: int) -> Node:
        run = self.run_of(state)
        if run is not None:
            return run
        options = [EPSILON] if self.a.accept[state] else []
        loop = EPSILON
        for target, node in self.edges[state].items():
            if target == state:
                loop = nodes.repeat(node, 0, None)
            else:
                options.append(nodes.sequence(node, self.done[target]))
        return nodes.sequence(loop, nodes.choice(*options))

    def run_of(self, state: int) -> Node | None:
        """Fold a chain of equal steps: x x x -> x{3}, (x (x x?)?)? -> x{0,2} | x{3}."""
        if len(self.edges[state]) != 1:
            return None
        (target, node) = next(iter(self.edges[state].items()))
        if target == state:
            return None
        accept, count, end = self.a.accept[state], 1, target
        tail = self.chain.get(target)
        alike = self.indegree[target] == 1 and self.a.accept[target] == accept
        if tail and alike and next(iter(self.edges[target].values())) == node:
            count, end = tail[0] + 1, tail[1]
        self.chain[state] = (count, end)
        whole = nodes.sequence(nodes.repeat(node, count, count), self.done[end])
        if not accept:
            return whole
        if self.done[end] == EPSILON:
            return nodes.repeat(node, 0, count)
        return nodes.choice(nodes.repeat(node, 0, count - 1), whole)

    def recurse(self, component: list[int]) -> None:
        rules = {s: Rule("s", lasting=True) for s in component}
        self.done.update(rules)
        for state in component:
            self.depth[state] = 0
        for state in component:
            options = [EPSILON] if self.a.accept[state] else []
            for target, node in self.edges[state].items():
                options.append(nodes.sequence(node, self.done[target]))
            rules[state].body = nodes.choice(*options)

    def eliminate(self, component: list[int]) -> None:
        """Arden's rule: X = RX | E becomes R*E, one state after the other."""
        if len(component) > MAX_COMPONENT:
            reason = f"a loop of {len(component)} states; at most {MAX_COMPONENT}"
            raise LimitExceeded("", "", "states", reason)
        inside = set(component)
        rest: dict[int, Node] = {}
        step: dict[int, dict[int, Node]] = {}
        for state in component:
            options = [EPSILON] if self.a.accept[state] else []
            step[state] = {}
            for target, node in self.edges[state].items():
                if target in inside:
                    step[state][target] = node
                else:
                    options.append(nodes.sequence(node, self.done[target]))
            rest[state] = nodes.choice(*options)
        order: list[int] = []
        while step.keys() - set(order):
            left = [s for s in component if s not in order]
            state = min(left, key=lambda s: self._cost(s, step, left))
            order.append(state)
            self._substitute(state, step, rest, [s for s in left if s != state])
        for state in reversed(order):
            options = [nodes.sequence(n, self.done[t]) for t, n in step[state].items()]
            body = nodes.choice(*options, rest[state])
            self.done[state] = body if _small(body) else Rule("s", body, True)
            self.depth[state] = 0

    @staticmethod
    def _cost(state: int, step: dict[int, dict[int, Node]], left: list[int]) -> int:
        return len(step[state]) * sum(state in step[s] for s in left)

    def _substitute(
        self,
        state: int,
        step: dict[int, dict[int, Node]],
        rest: dict[int, Node],
        left: list[int],
    ) -> None:
        loop = nodes.repeat(step[state].pop(state, NEVER), 0, None)
        step[state] = {t: _shared(nodes.sequence(loop, n)) for t, n in step[state].items()}
        rest[state] = _shared(nodes.sequence(loop, rest[state]))
        for source in left:
            into = step[source].pop(state, None)
            if into is None:
                continue
            for target, node in step[state].items():
                known = step[source].get(target, NEVER)
                step[source][target] = _shared(nodes.choice(known, nodes.sequence(into, node)))
            rest[source] = _shared(nodes.choice(rest[source], nodes.sequence(into, rest[state])))


def _small(node: Node) -> bool:
    """Cheap enough to be repeated instead of named."""
    match node:
        case nodes.Sequence(items) | nodes.Choice(items):
            return len(items) <= 2 and all(_leaf(i) for i in items)
        case nodes.Repeat(body, _, _):
            return _leaf(body)
    return _leaf(node)


def _leaf(node: Node) -> bool:
    if isinstance(node, nodes.Repeat):
        return _leaf(node.body)
    return isinstance(node, (nodes.Literal, Rule)) or (
        isinstance(node, Chars) and len(node.ranges) <= 4
    )


def _shared(node: Node) -> Node:
    return node if node in (NEVER, EPSILON) or _small(node) else Rule("s", node, True)


def _components(edges: list[dict[int, Node]]) -> list[list[int]]:
    """Strongly connected components, successors first (Tarjan, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    out: list[list[int]] = []
    work = [(0, iter(edges[0]))]
    index[0] = low[0] = 0
    stack.append(0)
    on_stack.add(0)
    while work:
        state, targets = work[-1]
        for target in targets:
            if target not in index:
                index[target] = low[target] = len(index)
                stack.append(target)
                on_stack.add(target)
                work.append((target, iter(edges[target])))
                break
            if target in on_stack:
                low[state] = min(low[state], index[target])
        else:
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[state])
            if low[state] == index[state]:
                component: list[int] = []
                while not component or component[-1] != state:
                    component.append(stack.pop())
                    on_stack.discard(component[-1])
                out.append(component)
    return out
