"""LoRA adapters by name: which are on, how strongly, and whose turn it is to have theirs on.

llama.cpp applies adapters to a whole pass, so a step computes for one set of them only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.errors import InvalidLora
from engine.request import LoraScale

LoraSet = tuple[LoraScale, ...]
"""Sorted by name, no scale 0: two requests with equal sets may share a step and a prefix."""

TURN = 4
"""Steps that one set gets while others wait: a change of adapters costs llama.cpp a new plan of
its buffers. Of S sets at work, each waits at most (S - 1) × TURN steps."""


def lora_set(wanted: Iterable[LoraScale], known: Iterable[str]) -> LoraSet:
    """`wanted` as a key; InvalidLora for a name that is not known or comes twice."""
    names = tuple(known)
    scales: dict[str, float] = {}
    for each in wanted:
        if each.name not in names:
            there = ", ".join(names) or "none"
            raise InvalidLora(f"no LoRA adapter is called {each.name!r}; there is: {there}")
        if each.name in scales:
            raise InvalidLora(f"the LoRA adapter {each.name!r} is named twice")
        scales[each.name] = each.scale
    return tuple(LoraScale(name, scale) for name, scale in sorted(scales.items()) if scale)


class LoraTurns:
    """Who runs next when sequences with different adapters are at work."""

    def __init__(self) -> None:
        self._current: LoraSet = ()
        self._left = 0
        self._last: dict[LoraSet, int] = {}
        self._step = 0

    def next(self, at_work: Mapping[LoraSet, object]) -> LoraSet:
        """The set of the coming step: the current one for a turn, then who waits longest."""
        self._step += 1
        if self._current not in at_work or (len(at_work) > 1 and self._left == 0):
            self._last = {each: self._last.get(each, 0) for each in at_work}
            self._current = min(at_work, key=lambda each: self._last[each])
            self._left = TURN
        self._left = max(0, self._left - 1)
        self._last[self._current] = self._step
        return self._current
