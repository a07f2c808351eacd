"""Free text around markers: what stands before, between and after constrained parts."""

from __future__ import annotations

from collections.abc import Iterator

from . import automaton, charset
from .automaton import Automaton

_FOUND = "\0found"


def until(markers: tuple[str, ...]) -> Automaton:
    """Texts that end with the first occurrence of a marker; so none is a prefix of another."""
    return _scan(markers, True)


def without(markers: tuple[str, ...]) -> Automaton:
    """Texts in which no marker occurs."""
    return _scan(markers, False)


def _scan(markers: tuple[str, ...], to_marker: bool) -> Automaton:
    """States are the longest end of the text that is the beginning of a marker."""
    if not all(markers):
        raise ValueError("an empty marker")
    beginnings = {m[:i] for m in markers for i in range(len(m))}
    letters = sorted({c for m in markers for c in m})
    rest = charset.complement(charset.union(*(charset.of(c) for c in letters)))

    def follow(state: str) -> Iterator[str | None]:
        for letter in (*letters, ""):
            if state == _FOUND:
                yield None
                continue
            text = state + letter if letter else ""
            if any(text.endswith(m) for m in markers):
                yield _FOUND if to_marker else None
                continue
            while text not in beginnings:
                text = text[1:]
            yield text

    parts = [*(charset.of(c) for c in letters), rest]
    return automaton.explore(parts, "", follow, lambda s: (s == _FOUND) == to_marker)
