"""Prefixes in host memory: found by their tokens and adapters, kept within a budget.

Out first goes what one conversation alone can use, then prefixes that several requests shared;
the least recently used first among each. What leaves goes to disk, if there is one.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from engine.batch import Drop, Export, Import, MemoryOp, Save, Trim
from engine.disk_cache import DiskCache
from engine.prefix_index import Held, PrefixIndex
from engine.prefix_rules import WORTH_COPYING, PrefixRules


class HostCopy(Struct, eq=False):
    """KV in host memory."""

    handle: int
    held: Held
    size: int
    shared: bool = False
    """Several requests begin with it."""
    uses: int = 0
    """How often it was restored."""
    from_disk: bool = False
    """Read from a file, not copied from a slot."""

    @property
    def level(self) -> str:
        """Of the cache, as it is counted."""
        return "disk" if self.from_disk else "memory"


class HostCopies:
    """Copies of slots."""

    def __init__(
        self,
        queue: Callable[[MemoryOp], None],
        *,
        rules: PrefixRules,
        budget: int = 0,
        bytes_per_token: int = 0,
        disk: DiskCache | None = None,
    ) -> None:
        """`queue` takes what the next step has to do for it; `budget` is in bytes."""
        self._queue = queue
        self._rules = rules
        self._budget = budget
        self._bytes_per_token = bytes_per_token
        self._bytes_per_copy = 0
        """Beyond its tokens, learned: all that a recurrent state has."""
        self._disk = disk
        self._copies: OrderedDict[int, HostCopy] = OrderedDict()
        """By handle, least recently used first."""
        self._index: PrefixIndex[HostCopy] = PrefixIndex()
        self._leaving: dict[int, Held] = {}
        """Copies on their way to disk."""
        self._handles = itertools.count(1)
        self.size = 0
        """Bytes, forks left out."""

    @property
    def budget(self) -> int:
        """Bytes that copies may take."""
        return self._budget

    def new_handle(self) -> int:
        """A number for a copy; one that is not made here is the caller's to drop."""
        return next(self._handles)

    def tokens(self) -> list[int]:
        """How many each copy has; from any thread."""
        return [len(copy.held.tokens) for copy in list(self._copies.values())]

    def size_of(self, n_tokens: int) -> int:
        """Bytes of a copy, as far as is known."""
        return self._bytes_per_copy + n_tokens * self._bytes_per_token

    def candidates(self, wanted: Held) -> list[HostCopy]:
        """Copies with which `wanted` may begin; changes nothing."""
        return self._index.candidates(wanted)

    def use(self, copy: HostCopy) -> None:
        """It is restored now. A state that cannot be trimmed and is used twice is shared."""
        self._copies.move_to_end(copy.handle)
        copy.uses += 1
        copy.shared = copy.shared or (copy.uses > 1 and not self._rules.can_trim)

    def use_family(self, key: str) -> None:
        """A request with this key came: what belongs to it stays longer."""
        for handle, copy in list(self._copies.items()):
            if copy.held.key == key:
                self._copies.move_to_end(handle)

    def keep(
        self, slot: int, held: Held, spare: HostCopy | None = None, *, trim: bool = False
    ) -> None:
        """Copy what a slot holds, unless it is short, too large or there already.

        `spare` is in use and stays. With `trim` the slot holds more and is cut to it first.
        """
        fits = self.size_of(len(held.tokens)) <= self._budget
        if not (self._budget and fits) or len(held.tokens) < WORTH_COPYING or self._has(held):
            return
        if trim:
            self._queue(Trim(slot, len(held.tokens)))
        self.save(slot, held)
        self.shrink(spare)

    def keep_shared(self, slot: int, held: Held) -> None:
        """As `keep`, for a prefix that two requests have in common."""
        copy = self._index.get(held)
        if copy is None and self.size_of(len(held.tokens)) <= self._budget // 2:
            copy = self.save(slot, held)
        if copy is not None:
            copy.shared = True
            self.shrink(copy)

    def _has(self, held: Held) -> bool:
        """Whether some copy gives all of it."""
        n_held = len(held.tokens)
        return self._index.has(held) or any(
            copy.held.tokens[:n_held] == held.tokens and not self._whole(copy.held)
            for copy in self._index.candidates(held)
        )

    def _whole(self, held: Held) -> bool:
        """Whether a copy of it is of use only as a whole."""
        return not self._rules.can_trim or self._rules.floor_of(len(held.tokens)) > 0

    def save(self, slot: int, held: Held) -> HostCopy:
        """Copy a slot, whatever the budget; copies of its prefixes are then of no use, unless
        others share them or it cannot be trimmed to them."""
        if not self._whole(held):
            for copy in self._index.prefixes_of(held):
                if not copy.shared:
                    self._drop(copy)
        copy = self._add(held, self.size_of(len(held.tokens)))
        self._queue(Save(slot, copy.handle))
        return copy

    def _add(self, held: Held, size: int) -> HostCopy:
        held = Held(list(held.tokens), held.lora, held.n_prompt, held.key)
        copy = HostCopy(self.new_handle(), held, size)
        self._copies[copy.handle] = copy
        self._index.insert(held, copy)
        self.size += size
        return copy

    def add_read(self, held: Held, data: bytearray) -> None:
        """What was read from disk."""
        if not self._index.has(held):
            copy = self._add(held, len(data))
            copy.from_disk = True
            self._queue(Import(copy.handle, data))
            self.shrink(copy)

    def _drop(self, copy: HostCopy) -> None:
        del self._copies[copy.handle]
        self._index.remove(copy.held)
        self.size -= copy.size
        self._queue(Drop(copy.handle))

    def shrink(self, spare: HostCopy | None = None) -> None:
        """Drop copies until the budget holds; `spare` is in use."""
        while self.size > self._budget:
            victim = self._victim(spare)
            if victim is None:
                return
            if self._disk is not None and not self._disk.has(victim.held):
                self._export(victim)
            self._drop(victim)

    def _victim(self, spare: HostCopy | None) -> HostCopy | None:
        """What one conversation alone can use, while shared prefixes take at most half."""
        loose = [copy for copy in self._copies.values() if copy is not spare]
        crowded = sum(copy.size for copy in loose if copy.shared) > self._budget // 2
        least = next(iter(loose), None)
        return next((copy for copy in loose if copy.shared == crowded), least)

    def _export(self, copy: HostCopy) -> None:
        self._leaving[copy.handle] = copy.held
        self._queue(Export(copy.handle))

    def export_all(self) -> list[int]:
        """Have every copy handed out; returns their handles, the most valuable first."""
        evicted = list(self._leaving)
        ranked = [*reversed(self._copies.values())]
        ranked.sort(key=lambda copy: not copy.shared)
        for copy in ranked:
            self._export(copy)
        return [copy.handle for copy in ranked] + evicted

    def take_leaving(self, handle: int) -> Held:
        """What the copy under `handle`, which was handed out, holds."""
        return self._leaving.pop(handle)

    def learn_sizes(self, sizes: dict[int, int]) -> None:
        """The true bytes of copies."""
        for handle, size in sizes.items():
            copy = self._copies.get(handle)
            if copy is None:
                continue
            self.size += size - copy.size
            copy.size = size
            beyond = size - len(copy.held.tokens) * self._bytes_per_token
            self._bytes_per_copy = max(self._bytes_per_copy, beyond)
        self.shrink()

    def forget(self) -> None:
        """The memory behind was reset."""
        self._copies.clear()
        self._index.clear()
        self._leaving.clear()
        self.size = 0
