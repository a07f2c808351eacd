"""Constraints on strings, and their nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from . import automaton, formats, nodes, patterns, regular
from .automaton import Automaton
from .errors import LimitExceeded
from .json_text import STRING, quote, quoted
from .memo import memo
from .nodes import NEVER, Dfa, Except, Literal, Node, Rule, Token
from .patterns import Pattern

MAX_FINITE = 64
MAX_NAME = 1_000  # characters of an excluded text
WITNESSES = ("", "q", "Q7", "(", "~~~", "\u00b7", "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq")


class StringConstraint(Struct, frozen=True, cache_hash=True, gc=False):
    """Texts of low..high code points that match all of `matches` and none of `avoids`.

    `values`, where given, is the whole set; `excluded` are left out. Patterns are names:
    "p:" + a regular expression, or "f:" + a format.
    """

    low: int = 0
    high: int | None = None
    matches: frozenset[str] = frozenset()
    avoids: frozenset[str] = frozenset()
    values: tuple[str, ...] | None = None
    excluded: frozenset[str] = frozenset()

    @property
    def weight(self) -> int:
        """About the bytes it takes."""
        texts = chain(self.matches, self.avoids, self.values or (), self.excluded)
        return 500 + sum([64 + len(t) for t in texts])

    def accepts(self, text: str) -> bool:
        return (
            self.low <= len(text) <= (len(text) if self.high is None else self.high)
            and text not in self.excluded
            and (self.values is None or text in self.values)
            and all(lookup(p).matches(text) for p in self.matches)
            and not any(lookup(p).matches(text) for p in self.avoids)
        )


ANY = StringConstraint()


def lookup(name: str) -> Pattern:
    kind, _, text = name.partition(":")
    return formats.pattern(text) if kind == "f" else patterns.pattern(text)


def matching(name: str) -> StringConstraint:
    """The texts that a pattern or format matches."""
    texts = lookup(name).texts
    if texts is not None:
        return StringConstraint(values=texts)
    return StringConstraint(matches=frozenset((name,)))


def outside(patterns: Iterable[str], excluded: frozenset[str]) -> StringConstraint:
    """The texts that no pattern matches, without those excluded."""
    known = {name: lookup(name).texts for name in patterns}
    avoids = frozenset(name for name, texts in known.items() if texts is None)
    return StringConstraint(
        avoids=avoids, excluded=excluded.union(*(t or () for t in known.values()))
    )


def intersect(a: StringConstraint, b: StringConstraint) -> StringConstraint | None:
    """Their conjunction, or None where it is known to be empty."""
    if a == ANY:
        return b
    if b == ANY:
        return a
    high = a.high if b.high is None else b.high if a.high is None else min(a.high, b.high)
    both = StringConstraint(
        max(a.low, b.low), high, a.matches | b.matches, a.avoids | b.avoids, None,
        a.excluded | b.excluded,
    )  # fmt: skip
    if a.values is not None or b.values is not None:
        first, other = (a, b) if a.values is not None else (b, a)
        values = tuple(v for v in first.values or () if both.accepts(v) and other.accepts(v))
        return StringConstraint(values=values) if values else None
    if (both.high is not None and both.low > both.high) or both.matches & both.avoids:
        return None
    return _settled(both)


def _settled(c: StringConstraint) -> StringConstraint:
    """Without the excluded texts that are outside anyway: they cost a state a character."""
    if not c.excluded or c == replace(ANY, excluded=c.excluded):
        return c
    rest = replace(c, excluded=frozenset())
    kept = frozenset(t for t in c.excluded if rest.accepts(t))
    return c if len(kept) == len(c.excluded) else replace(rest, excluded=kept)


def holds_all_but(c: StringConstraint, texts: frozenset[str]) -> bool:
    """Whether every other text satisfies `c`."""
    return c.excluded <= texts and c == replace(ANY, excluded=c.excluded)


def complement(c: StringConstraint) -> list[StringConstraint]:
    """The strings outside, as a union."""
    if c.values is not None:
        return [StringConstraint(excluded=frozenset(c.values))]
    out = [StringConstraint(high=c.low - 1)] if c.low else []
    if c.high is not None:
        out.append(StringConstraint(low=c.high + 1))
    out += [StringConstraint(avoids=frozenset((p,))) for p in sorted(c.matches)]
    out += [StringConstraint(matches=frozenset((p,))) for p in sorted(c.avoids)]
    if c.excluded:
        out.append(StringConstraint(values=tuple(sorted(c.excluded))))
    return out


@memo(lambda a, c: a.weight + c.weight, 32_000_000)
def to_automaton(c: StringConstraint) -> Automaton:
    """Over the characters of the strings, not over their JSON spelling."""
    if c.values is not None:
        return regular.of_texts(c.values)
    parts = [lookup(p).automaton for p in sorted(c.matches)]
    if c.excluded:
        parts.append(regular.all_except(c.excluded))
    a = regular.intersect(parts or [automaton.ANYTHING])
    for name in sorted(c.avoids):
        a = regular.difference(a, lookup(name).automaton)
    if c.low or c.high is not None:
        a = regular.bound_length(a, c.low, c.high)
    return a


def is_empty(c: StringConstraint) -> bool:
    if c.values is not None:
        return not c.values
    if not (c.matches or c.avoids or c.high):
        return c.high == 0 and (c.low > 0 or "" in c.excluded)
    if c.high is not None and c.low > c.high:
        return True
    return _is_empty(c)


@memo(lambda _, c: c.weight, 4_000_000)
def _is_empty(c: StringConstraint) -> bool:
    if not c.avoids and len(c.matches) <= 1:
        simple = _simple_body(replace(c, excluded=frozenset()))
        if simple == NEVER:
            return True
        if simple is not None and patterns.at_least(simple) > len(c.excluded):
            return False
    if any(c.accepts(text) for text in _witnesses(c)):
        return False
    return to_automaton(c).is_empty()


def _witnesses(c: StringConstraint) -> Iterator[str]:
    """Texts that may well be accepted: building an automaton to see so takes far longer."""
    for name in c.matches:
        node = lookup(name).node
        if node is not None:
            yield from (patterns.sample(node, last) for last in (False, True))
    yield from WITNESSES


def overlap(a: StringConstraint, b: StringConstraint) -> bool:
    both = intersect(a, b)
    return both is not None and not is_empty(both)


def to_node(c: StringConstraint) -> Node:
    """JSON text of the strings, one token."""
    if c == ANY:
        return STRING
    if c.values is not None:
        return nodes.choice(*(Token(Literal(quote(v))) for v in c.values))
    if c.excluded and max(map(len, c.excluded)) > MAX_NAME:
        reason = f"a text of over {MAX_NAME} characters to tell others from"
        raise LimitExceeded("", "", "pattern_length", reason)
    return _token(c)


@memo(lambda _, c: 10 * c.weight, 16_000_000)
def _token(c: StringConstraint) -> Node:
    if c == replace(ANY, excluded=c.excluded):
        for text in c.excluded:
            quote(text)  # raises where it cannot be spelled
        return Token(nodes.sequence(Literal('"'), Except(c.excluded), Literal('"')))
    node = _quoted(body(c))
    # A rule's text is kept between compilations, and stands once in a grammar.
    return Rule(_hint(c), node, True) if c.matches and node != NEVER else node


def _hint(c: StringConstraint) -> str:
    """What the rule of a pattern is called: after its format, if that is all."""
    kind, _, name = min(c.matches).partition(":")
    return name if kind == "f" and len(c.matches) == 1 else "text"


def body(c: StringConstraint) -> Node:
    """The characters of the strings, unquoted and unescaped."""
    if c.values is not None:
        return nodes.choice(*(Literal(v) for v in c.values))
    simple = _simple_body(c)
    if simple is not None:
        return simple
    a = to_automaton(c)
    return NEVER if a.is_empty() else Dfa(a)


def _quoted(inner: Node) -> Node:
    return NEVER if inner == NEVER else quoted(inner)


def _simple_body(c: StringConstraint) -> Node | None:
    """A single pattern whose node can carry the length bounds."""
    if c.avoids or c.excluded or len(c.matches) > 1:
        return None
    inner: Node | None = patterns.ANY_TEXT
    for name in c.matches:
        inner = lookup(name).node
    return None if inner is None else patterns.adjust_length(inner, c.low, c.high)


def finite_values(c: StringConstraint) -> list[str] | None:
    if c.values is not None:
        return list(c.values)
    if not c.matches and (c.high is None or c.high > 1):
        return None
    return regular.finite_texts(to_automaton(c), MAX_FINITE)


def without(c: StringConstraint, texts: frozenset[str]) -> StringConstraint | None:
    return intersect(c, replace(ANY, excluded=texts)) if texts else c
