"""Prefixes in host memory: found by their tokens and adapters, kept within a budget."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from engine.batch import Drop, MemoryOp, Save
from engine.lora import LoraSet
from engine.radix_cache import RadixTree

WORTH_COPYING = 32
"""Tokens below which computing again is no dearer than a copy (0.02 ms a token) and its memory."""


class Held(Struct, frozen=True):
    """Computed tokens, and the adapters they were computed with."""

    tokens: list[int]
    lora: LoraSet = ()


class HostCopy(Struct):
    """KV in host memory."""

    handle: int
    held: Held
    size: int


class HostCopies:
    """Copies of slots, least recently used out first."""

    def __init__(
        self,
        queue: Callable[[MemoryOp], None],
        *,
        can_trim: bool,
        budget: int = 0,
        bytes_per_token: int = 0,
    ) -> None:
        """`queue` takes what the next step has to do for it; `budget` is in bytes."""
        self._queue = queue
        self._can_trim = can_trim
        self._budget = budget
        self._bytes_per_token = bytes_per_token
        self._copies: OrderedDict[int, HostCopy] = OrderedDict()
        self._trees: dict[LoraSet, RadixTree[int]] = {}
        self._handles = itertools.count(1)
        self.size = 0
        """Bytes, forks left out."""

    def new_handle(self) -> int:
        """A number for a copy; one that is not made here is the caller's to drop."""
        return next(self._handles)

    def match_prefix(self, wanted: Held) -> tuple[int, HostCopy | None]:
        """The longest prefix that a copy shares with `wanted`, and that copy; changes nothing.

        Memory that cannot be trimmed must be a prefix of `wanted` as a whole.
        """
        tree = self._trees.get(wanted.lora)
        if tree is None:
            return 0, None
        if self._can_trim:
            length, handle = tree.match_prefix(wanted.tokens)
            return length, None if handle is None else self._copies[handle]
        whole = [self._copies[handle] for handle in tree.prefixes_of(wanted.tokens)]
        return (len(whole[-1].held.tokens), whole[-1]) if whole else (0, None)

    def touch(self, copy: HostCopy) -> None:
        """It was used just now."""
        self._copies.move_to_end(copy.handle)

    def keep(self, slot: int, held: Held, spare: HostCopy | None = None) -> None:
        """Copy what a slot holds, unless it is short, too large or there already.

        `spare` is in use and stays.
        """
        if len(held.tokens) < WORTH_COPYING:
            return
        length, _ = self.match_prefix(held)
        needed = len(held.tokens) * self._bytes_per_token
        if length < len(held.tokens) and 0 < needed <= self._budget:
            self.save(slot, held)
            self.shrink(spare)

    def save(self, slot: int, held: Held) -> HostCopy:
        """Copy a slot, whatever the budget; copies of its prefixes are then of no use."""
        tree = self._trees.setdefault(held.lora, RadixTree())
        if self._can_trim:
            for handle in list(tree.prefixes_of(held.tokens)):
                self._drop(self._copies[handle])
        size = len(held.tokens) * self._bytes_per_token
        copy = HostCopy(self.new_handle(), Held(list(held.tokens), held.lora), size)
        self._copies[copy.handle] = copy
        self._trees.setdefault(held.lora, tree).insert(copy.held.tokens, copy.handle)
        self.size += copy.size
        self._queue(Save(slot, copy.handle))
        return copy

    def _drop(self, copy: HostCopy) -> None:
        del self._copies[copy.handle]
        tree = self._trees[copy.held.lora]
        tree.remove(copy.held.tokens)
        if not tree:
            del self._trees[copy.held.lora]
        self.size -= copy.size
        self._queue(Drop(copy.handle))

    def shrink(self, spare: HostCopy | None = None) -> None:
        """Drop the least recently used copies until the budget holds; `spare` is in use."""
        for copy in list(self._copies.values()):
            if self.size <= self._budget:
                return
            if copy is not spare:
                self._drop(copy)

    def forget(self) -> None:
        """The memory behind was reset."""
        self._copies.clear()
        self._trees.clear()
        self.size = 0
