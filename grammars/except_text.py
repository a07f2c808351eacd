"""Every string but some, printed: a trie of ways out.

Objects that let further properties through exclude the names of the declared ones, which makes
this most of their grammar. So no nodes are built for it; both notations write it alike.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from . import charset, nodes
from .json_text import CHARACTER, escape_set
from .nodes import Rule

CHUNK = 10  # characters of one rule: engines recurse into groups

_ANY_REST = Rule("chars", nodes.repeat(CHARACTER, 0, None), True)


@lru_cache(maxsize=4096)
def _other_than(chars: str) -> Rule:
    """A character that is none of these, then anything."""
    ranges = charset.complement(charset.of(chars))
    return Rule("x", nodes.sequence(escape_set(ranges), _ANY_REST), True)


def _shared_start(a: str, b: str) -> str:
    differing = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return a[: next(differing, min(len(a), len(b)))]


class ExceptPrinter:
    """Prints for one grammar: `literal` spells a character of a JSON string, `name` gives a rule
    its name, `define` makes a rule of a text and returns its name."""

    def __init__(
        self,
        literal: Callable[[str], str],
        name: Callable[[Rule], str],
        define: Callable[[str], str],
    ) -> None:
        self._literal, self._name, self._define = literal, name, define
        self._steps: dict[str, str] = {}
        self._chunks: dict[str, str] = {}
        self._tries: dict[tuple[str, ...], str] = {}

    def text(self, texts: frozenset[str]) -> str:
        """One item: the inside of every JSON string but these."""
        return self._trie(tuple(sorted(texts)))

    def _trie(self, texts: tuple[str, ...]) -> str:
        """`text` of sorted texts."""
        if len(texts) == 1:
            return self._single(texts[0])
        start = _shared_start(texts[0], texts[-1])
        if not start:
            return self._branches(texts)
        rest = self._named(tuple([t[len(start) :] for t in texts]))
        for cut in range((len(start) - 1) // CHUNK * CHUNK, 0, -CHUNK):
            rest = self._define(self._wrap(start[cut : cut + CHUNK], rest))
        return self._wrap(start[:CHUNK], rest)

    def _single(self, text: str) -> str:
        head = len(text) % CHUNK
        return self._wrap(text[:head], self._chunk(text[head:]))

    def _named(self, texts: tuple[str, ...]) -> str:
        """As `_trie`; several texts are a rule, which others that go on alike share."""
        if len(texts) == 1:
            return self._single(texts[0])
        known = self._tries.get(texts)
        if known is None:
            known = self._tries[texts] = self._define(self._trie(texts))
        return known

    def _branches(self, texts: tuple[str, ...]) -> str:
        groups: dict[str, list[str]] = {}
        for text in texts:
            if text:
                groups.setdefault(text[0], []).append(text[1:])
        options = [self._name(_other_than("".join(groups)))]
        options += [f"{self._literal(c)} {self._named(tuple(g))}" for c, g in groups.items()]
        return f"({' | '.join(options)})" + ("?" if texts[0] else "")

    def _chunk(self, tail: str) -> str:
        if not tail:
            return self._name(_other_than(""))
        known = self._chunks.get(tail)
        if known is None:
            text = self._wrap(tail[:CHUNK], self._chunk(tail[CHUNK:]))
            known = self._chunks[tail] = self._define(text)
        return known

    def _wrap(self, head: str, rest: str) -> str:
        """Anything that does not begin with `head`, or `head` and then `rest`."""
        steps = [self._steps.get(char) or self._step(char) for char in head]
        return "".join(steps) + rest + ")?" * len(head)

    def _step(self, char: str) -> str:
        other = self._name(_other_than(char))
        step = self._steps[char] = f"({other} | {self._literal(char)} "
        return step
