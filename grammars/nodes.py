"""The tree between schemas and texts: what a grammar is before it is printed.

Trees are frozen. `Rule` alone is filled in later, so that a grammar can be recursive; a grammar
is whatever can be reached from its root node. `Token` marks one lexeme: a regular part that a
lexer may match greedily, because no text that may follow it can extend it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from .charset import CharSet

if TYPE_CHECKING:
    from .automaton import Automaton


class Literal(Struct, frozen=True, gc=False):
    text: str


class Chars(Struct, frozen=True, gc=False):
    """One character of a set."""

    ranges: CharSet


class Sequence(Struct, frozen=True):
    items: tuple[Node, ...]


class Choice(Struct, frozen=True):
    options: tuple[Node, ...]


class Repeat(Struct, frozen=True):
    body: Node
    min: int
    max: int | None


class Token(Struct, frozen=True):
    body: Node


class Dfa(Struct, frozen=True, gc=False):
    """A deterministic automaton; each printer unrolls it in its own way.

    `escaped`: its characters are spelled as inside a JSON string.
    """

    automaton: Automaton
    escaped: bool = False


class Except(Struct, frozen=True, gc=False):
    """The inside of every JSON string but those of these texts; only within a token."""

    texts: frozenset[str]


class Member(Struct, frozen=True):
    """A property of an object: `key` (its name as JSON, colon and space) as one token, `value`.

    Objects are most of what schemas say, so this is one node, and not a sequence in a repeat.
    """

    key: str
    value: Rule
    comma: bool  # whether ", " comes first
    required: bool


class Rule(Struct, eq=False):
    """A named node; `hint` is where the printed name starts from.

    A `lasting` rule outlives a compilation, refers to lasting rules only and has an end. Once it
    was `printed`, GBNF keeps its text as a `template` for the names of the rules in `refers`.
    """

    hint: str
    body: Node = field(default_factory=lambda: NEVER)
    lasting: bool = False
    printed: bool = False
    refers: tuple[Rule, ...] = ()
    template: str = ""


Node = Literal | Chars | Sequence | Choice | Repeat | Token | Dfa | Except | Member | Rule

EPSILON: Node = Sequence(())
NEVER: Node = Choice(())


def is_never(node: Node) -> bool:
    return type(node) is Choice and not node.options


def is_epsilon(node: Node) -> bool:
    return type(node) is Sequence and not node.items


def sequence(*items: Node) -> Node:
    flat: list[Node] = []
    for item in items:
        if type(item) is Sequence:
            flat.extend(item.items)
        elif type(item) is Choice and not item.options:
            return NEVER
        else:
            flat.append(item)
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def choice(*options: Node) -> Node:
    flat: list[Node] = []
    empty = False
    for option in options:
        if type(option) is Choice:
            flat.extend(option.options)
        elif type(option) is Sequence and not option.items:
            empty = True
        else:
            flat.append(option)
    node = flat[0] if len(flat) == 1 else Choice(tuple(flat))
    return repeat(node, 0, 1) if empty else node


def repeat(body: Node, low: int, high: int | None) -> Node:
    """body{low,high}; a body that can be empty is rewritten so that no loop runs on nothing."""
    if high == 0 or is_epsilon(body):
        return EPSILON
    if is_never(body):
        return EPSILON if low == 0 else NEVER
    if low == 1 and high == 1:
        return body
    if high is None and nullable(body):
        return Repeat(_nonempty(body), 0, None)
    if isinstance(body, Repeat) and (body.min, body.max) == (0, 1) and low in (0, 1):
        return Repeat(body.body, 0, high)
    return Repeat(body, low, high)


def optional(body: Node) -> Node:
    return repeat(body, 0, 1)


def nullable(node: Node) -> bool:
    """Whether the node matches the empty text; a `Rule` counts as non-empty (see `repeat`)."""
    match node:
        case Literal(text):
            return not text
        case Sequence(items):
            return all(nullable(i) for i in items)
        case Choice(options):
            return any(nullable(o) for o in options)
        case Repeat(body, low, _):
            return low == 0 or nullable(body)
        case Token(body):
            return nullable(body)
        case Dfa(automaton, _):
            return automaton.accept[0]
        case Except(texts):
            return "" not in texts
        case Member():
            return not node.required
    return False


def _nonempty(node: Node) -> Node:
    """A node X with X* equal to node*, where node is nullable and X is not."""
    match node:
        case Sequence(items):
            return choice(*(_nonempty(i) for i in items))
        case Choice(options):
            parts = (_nonempty(o) if nullable(o) else o for o in options)
            return choice(*(p for p in parts if p != NEVER))
        case Repeat(body, _, high):
            inner = _nonempty(body) if nullable(body) else body
            return inner if high is None or high > 0 else NEVER
        case Dfa(automaton, escaped):
            return Dfa(automaton.without_empty(), escaped)
        case Literal(""):
            return NEVER
        case Token(body):
            return Token(_nonempty(body))
        case Member():
            return replace(node, required=True)
    return node


def children(node: Node) -> Iterable[Node]:
    match node:
        case Sequence(items):
            return items
        case Choice(options):
            return options
        case Repeat(body, _, _) | Token(body) | Rule(_, body):
            return (body,)
        case Member(_, value):
            return (value,)
    return ()


def rules(root: Node) -> Iterator[Rule]:
    """Every rule reachable from `root`."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Rule):
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield node
        stack.extend(children(node))
