"""A pattern as schemas use it: the set of texts in which it matches somewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from . import charset, nodes
from .automaton import Automaton
from .memo import memo
from .nodes import EPSILON, NEVER, Chars, Node
from .regex_automaton import Matcher, has_assertion
from .regex_syntax import Anchor, Concat, Either, Loop, Regex, Set, parse

ANY_TEXT = nodes.repeat(Chars(charset.UNIVERSE), 0, None)
MAX_UNROLLED = 4_000
MAX_TEXTS = 32


@dataclass(frozen=True)
class Pattern:
    """`whole`: the pattern must match the whole text instead of some part of it."""

    source: str
    whole: bool = False

    @cached_property
    def tree(self) -> Regex:
        return parse(self.source)

    @cached_property
    def node(self) -> Node | None:
        """The language as a node, where no automaton is needed to say it."""
        node = _lift(self.tree, not self.whole, not self.whole)
        return None if node is None or _unrolled(node) > MAX_UNROLLED else node

    @cached_property
    def texts(self) -> tuple[str, ...] | None:
        """All texts of the language where those are few, as those of `^(a|b)$` are."""
        return None if self.node is None else _texts(self.node)

    @property
    def automaton(self) -> Automaton:
        return _automaton(self)

    @cached_property
    def lengths(self) -> tuple[int, int | None] | None:
        """Bounds on the length of the texts in code points, where the node tells them."""
        return None if self.node is None else lengths(self.node)

    @cached_property
    def matcher(self) -> Matcher:
        return Matcher(self.source, self.tree, self.whole)

    def matches(self, text: str) -> bool:
        """Builds only the states that the text visits."""
        return self.matcher.matches(text)


@memo(lambda a, p: a.weight, 32_000_000)
def _automaton(p: Pattern) -> Automaton:
    return p.matcher.automaton()


@memo(lambda p, *_: 1_000 + 300 * len(p.source), 32_000_000)
def pattern(source: str, whole: bool = False) -> Pattern:
    """Raises UnsupportedPattern at once if the syntax is wrong."""
    made = Pattern(source, whole)
    _ = made.tree
    return made


def _lift(tree: Regex, left: bool, right: bool) -> Node | None:
    """The language of `tree` with any text allowed before (left) and after (right) it.

    None where an assertion stands anywhere but at the rim.
    """
    if isinstance(tree, Either):
        options = [_lift(o, left, right) for o in tree.options]
        return None if any(o is None for o in options) else nodes.choice(*(o for o in options if o))
    if isinstance(tree, Anchor) and tree.kind in "^$":
        tree = Concat((tree,))
    items = tree.items if isinstance(tree, Concat) else (tree,)
    if len(items) == 1 and isinstance(items[0], (Either, Concat)):
        return _lift(items[0], left, right)
    while items and items[0] == Anchor("^"):
        items, left = items[1:], False
    while items and items[-1] == Anchor("$"):
        items, right = items[:-1], False
    if any(has_assertion(i) for i in items):
        return _lift(items[0], left, right) if len(items) == 1 and items != (tree,) else None
    body = nodes.sequence(*(_plain(i) for i in items))
    if nodes.nullable(body) and left and right:
        return ANY_TEXT
    return nodes.sequence(ANY_TEXT if left else EPSILON, body, ANY_TEXT if right else EPSILON)


def _plain(tree: Regex) -> Node:
    match tree:
        case Set(ranges):
            return Chars(ranges) if ranges else NEVER
        case Concat(items):
            return nodes.sequence(*(_plain(i) for i in items))
        case Either(options):
            return nodes.choice(*(_plain(o) for o in options))
        case Loop(body, low, high):
            return nodes.repeat(_plain(body), low, high)
    raise AssertionError("assertions are lifted first")


def lengths(node: Node) -> tuple[int, int | None]:
    """Least and greatest length (None: unbounded) of a node without rules."""
    match node:
        case nodes.Literal(text):
            return len(text), len(text)
        case nodes.Sequence(items):
            bounds = [lengths(i) for i in items]
            tops = [h for _, h in bounds]
            return sum(low for low, _ in bounds), None if None in tops else sum(
                h or 0 for h in tops
            )
        case nodes.Choice(options) if options:
            bounds = [lengths(o) for o in options]
            tops = [h for _, h in bounds]
            return min(low for low, _ in bounds), None if None in tops else max(
                h or 0 for h in tops
            )
        case nodes.Repeat(body, low, high):
            least, most = lengths(body)
            top = None if high is None or most is None else high * most
            return low * least, 0 if most == 0 else top
        case nodes.Token(body):
            return lengths(body)
    return 1, 1


def at_least(node: Node) -> float:
    """A lower bound on the number of texts of a node without rules that is not NEVER."""
    match node:
        case Chars(ranges):
            return sum(high - low + 1 for low, high in ranges)
        case nodes.Sequence(items) | nodes.Choice(items) if items:
            return max(at_least(i) for i in items)
        case nodes.Repeat(body, _, high):
            return math.inf if high is None else at_least(body)
    return 1


def sample(node: Node, last: bool) -> str:
    """A text of a node without rules that is not NEVER, of first or of last alternatives."""
    match node:
        case Chars(ranges):
            return chr(ranges[-1][1] if last else ranges[0][0])
        case nodes.Sequence(items):
            return "".join([sample(i, last) for i in items])
        case nodes.Choice(options):
            return sample(options[-1 if last else 0], last)
        case nodes.Repeat(body, low, high):
            return sample(body, last) * (max(low, 1) if high is None else min(max(low, 1), high))
        case nodes.Literal(text):
            return text
    return ""


def _texts(node: Node) -> tuple[str, ...] | None:
    match node:
        case Chars(((low, high),)) if low == high:
            return (chr(low),)
        case nodes.Sequence(items):
            parts = [_texts(i) for i in items]
            found = [p for p in parts if p is not None]
            if len(found) < len(parts) or math.prod(map(len, found)) > MAX_TEXTS:
                return None
            return tuple(map("".join, product(*found)))
        case nodes.Choice(options) if len(options) <= MAX_TEXTS:
            parts = [_texts(o) for o in options]
            together = tuple(dict.fromkeys(t for p in parts for t in p or ()))
            return None if None in parts or len(together) > MAX_TEXTS else together
    return None


def _unrolled(node: Node) -> int:
    """How many rules llama.cpp's engine makes of nested repetitions, roughly."""
    match node:
        case nodes.Sequence(items) | nodes.Choice(items):
            return sum(_unrolled(i) for i in items)
        case nodes.Repeat(body, low, high):
            return max(low, high or 1) * (1 if isinstance(body, Chars) else _unrolled(body))
    return 1


def adjust_length(node: Node, low: int, high: int | None) -> Node | None:
    """`node` cut to low..high code points where a single repetition can carry the bounds."""
    if low == 0 and high is None:
        return node
    least, most = lengths(node)
    if least >= low and (high is None or (most is not None and most <= high)):
        return node
    items = node.items if isinstance(node, nodes.Sequence) else (node,)
    loose = [i for i, n in enumerate(items) if len(set(lengths(n))) > 1]
    if len(loose) != 1:
        return None
    loop = items[loose[0]]
    if not (isinstance(loop, nodes.Repeat) and isinstance(loop.body, Chars)):
        return None
    fixed = sum(lengths(n)[0] for i, n in enumerate(items) if i != loose[0])
    new_low = max(loop.min, low - fixed)
    new_high = loop.max if high is None else high - fixed
    if new_high is not None and loop.max is not None:
        new_high = min(new_high, loop.max)
    if new_high is not None and new_high < new_low:
        return NEVER
    inner = nodes.repeat(loop.body, new_low, new_high)
    return nodes.sequence(*items[: loose[0]], inner, *items[loose[0] + 1 :])
