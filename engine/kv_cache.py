"""Who owns which llama.cpp sequence, and where a prompt's prefix can be had from.

Three sources, cheapest first: an idle slot that still holds the prefix (trimmed in place), a
copy in host memory, another slot that holds it. Pure bookkeeping: what is decided here comes
out as memory operations for the next step.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable

from msgspec import Struct

from engine.batch import Clear, Drop, MemoryOp, Restore, Save, Trim
from engine.radix_cache import RadixTree, common_prefix

WORTH_COPYING = 32
"""Tokens below which computing again is no dearer than a copy (0.02 ms a token) and its memory."""


class Running(Struct, frozen=True):
    """A slot at work and the tokens whose KV it holds."""

    slot: int
    tokens: list[int]


class Prefill(Struct, frozen=True):
    """A prompt of which the first `n_computed` tokens are computed."""

    prompt: list[int]
    n_computed: int


class _Copy(Struct):
    """KV in host memory."""

    handle: int
    tokens: list[int]
    size: int


class KVCache:
    """Slots, and copies in host memory within a budget, least recently used out first."""

    def __init__(
        self,
        n_slots: int,
        *,
        can_trim: bool,
        min_computed: int = 1,
        align: int = 1,
        retain: bool = True,
        budget: int = 0,
        bytes_per_token: int = 0,
    ) -> None:
        """`budget` bytes for copies. Of every prompt at least `min_computed` tokens are computed:
        one for its logits, more where short runs take another path through the arithmetic; and
        trimmed prefixes are multiples of `align`, where kernels work on groups of rows.
        Without `retain` (the unified layout, where every cell slows every sequence) a slot is
        cleared as soon as it is idle."""
        self._can_trim = can_trim
        self._retain = retain
        self._min_computed = min_computed
        self._align = align
        self._budget = budget
        self._bytes_per_token = bytes_per_token
        self._idle: OrderedDict[int, list[int]] = OrderedDict((slot, []) for slot in range(n_slots))
        """Slot → tokens it still holds, least recently used first."""
        self._outside = {-1, n_slots}
        self._copies: OrderedDict[int, _Copy] = OrderedDict()
        self._tree: RadixTree[int] = RadixTree()
        self._handles = itertools.count(1)
        self._ops: list[MemoryOp] = []
        self.size = 0
        """Bytes of the copies in host memory, forks left out."""

    @property
    def n_idle(self) -> int:
        """Slots that can be acquired."""
        return len(self._idle)

    def take_ops(self) -> list[MemoryOp]:
        """What the next step has to do first, in order."""
        ops, self._ops = self._ops, []
        return ops

    def match_prefix(self, prompt: list[int]) -> int:
        """Tokens of `prompt` that an idle slot or a copy could save; changes nothing."""
        prefix = self._reusable(prompt)
        best = max((self._usable(held, prefix) for held in self._idle.values()), default=0)
        length, handle = self._tree.match_prefix(prefix)
        if handle is not None:
            best = max(best, self._usable(self._copies[handle].tokens, prefix[:length]))
        return best

    def acquire(self, prompt: list[int], running: Iterable[Running] = ()) -> tuple[int, int]:
        """A slot for `prompt`, and how many of its tokens are in it already.

        KeyError if no slot is idle.
        """
        prefix = self._reusable(prompt)
        slot, in_slot = self._best_idle(prefix)
        handle, in_copy = self._best_copy(prefix)
        placed = self._well_placed()
        apart = (Running(s, held) for s, held in self._idle.items() if s not in placed)
        source, in_running = self._best_running(prefix, [*running, *apart])
        if max(in_copy, in_running) < in_slot + WORTH_COPYING:
            return slot, self._reuse(slot, in_slot)
        if in_running >= in_copy + WORTH_COPYING and source is not None:
            handle = self._save(source.slot, source.tokens)
            in_copy = in_running
        self._copies.move_to_end(handle)
        slot = self._vacate(keep=handle)
        self._ops.append(Restore(slot, handle))
        self._trim(slot, in_copy, len(self._copies[handle].tokens))
        self._shrink()
        return slot, in_copy

    def worth_waiting(self, prompt: list[int], prefills: Iterable[Prefill]) -> bool:
        """Whether a prefill under way will soon hold much more of `prompt` than can be had now."""
        if not self._can_trim:
            return False
        prefix = self._reusable(prompt)
        coming = (
            shared
            for each in prefills
            if (shared := common_prefix(each.prompt, prefix)) > each.n_computed
        )
        best = max(coming, default=0)
        return best >= WORTH_COPYING and best >= self.match_prefix(prompt) + WORTH_COPYING

    def _reusable(self, prompt: list[int]) -> list[int]:
        return prompt[: max(0, len(prompt) - self._min_computed)]

    def _usable(self, held: list[int], prefix: list[int]) -> int:
        """Tokens of `prefix` that `held` gives; memory that cannot be trimmed must fit whole."""
        shared = common_prefix(held, prefix)
        if self._can_trim:
            return shared - shared % self._align
        return shared if shared == len(held) else 0

    def _best_idle(self, prefix: list[int]) -> tuple[int, int]:
        """The well-placed idle slot with the longest usable prefix; the victim where none has."""
        usable = {slot: self._usable(self._idle[slot], prefix) for slot in self._well_placed()}
        slot = max(usable, key=lambda slot: usable[slot])
        return (slot, usable[slot]) if usable[slot] else (self._victim(), 0)

    def _well_placed(self) -> list[int]:
        """Idle slots beside a busy one, or all: llama.cpp runs neighbours in one pass, and each
        gap costs another pass over the weights. Least recently used first."""
        beside = [
            slot for slot in self._idle if {slot - 1, slot + 1} - self._idle.keys() - self._outside
        ]
        return beside or list(self._idle)

    def _victim(self) -> int:
        """The well-placed slot with the least to lose: the lowest empty one, else the oldest."""
        placed = self._well_placed()
        empty = [slot for slot in placed if not self._idle[slot]]
        return min(empty) if empty else placed[0]

    def _best_copy(self, prefix: list[int]) -> tuple[int, int]:
        length, handle = self._tree.match_prefix(prefix)
        if handle is None:
            return 0, 0
        return handle, self._usable(self._copies[handle].tokens, prefix[:length])

    def _best_running(
        self, prefix: list[int], running: Iterable[Running]
    ) -> tuple[Running | None, int]:
        best, length = None, 0
        for each in running:
            if (usable := self._usable(each.tokens, prefix)) > length:
                best, length = each, usable
        return best, length

    def _reuse(self, slot: int, length: int) -> int:
        """Take `slot` with its first `length` tokens; the rest is copied if it is worth it."""
        held = self._idle.pop(slot)
        if len(held) >= length + WORTH_COPYING:
            self._keep(slot, held)
        if length:
            self._trim(slot, length, len(held))
        elif held:
            self._ops.append(Clear(slot))
        return length

    def _vacate(self, keep: int = 0) -> int:
        slot = self._victim()
        held = self._idle.pop(slot)
        if len(held) >= WORTH_COPYING:
            self._keep(slot, held, keep)
        return slot

    def _trim(self, slot: int, length: int, held: int) -> None:
        if length < held:
            self._ops.append(Trim(slot, length))

    def _keep(self, slot: int, held: list[int], keep: int = 0) -> None:
        """Copy what a slot holds to host memory, unless a copy has it already."""
        length, _ = self._tree.match_prefix(held)
        needed = len(held) * self._bytes_per_token
        if length < len(held) and 0 < needed <= self._budget:
            self._save(slot, held)
            self._shrink(keep)

    def _save(self, slot: int, tokens: list[int]) -> int:
        """Copy a slot to host memory; copies of its prefixes are then of no use."""
        if self._can_trim:
            for handle in list(self._tree.prefixes_of(tokens)):
                self._drop(handle)
        handle = self.new_handle()
        copy = _Copy(handle, list(tokens), len(tokens) * self._bytes_per_token)
        self._copies[handle] = copy
        self._tree.insert(copy.tokens, handle)
        self.size += copy.size
        self._ops.append(Save(slot, handle))
        return handle

    def _drop(self, handle: int) -> None:
        copy = self._copies.pop(handle)
        self._tree.remove(copy.tokens)
        self.size -= copy.size
        self._ops.append(Drop(handle))

    def _shrink(self, keep: int = 0) -> None:
        """Drop the least recently used copies until the budget holds; `keep` is in use."""
        for handle in list(self._copies):
            if self.size <= self._budget:
                return
            if handle != keep:
                self._drop(handle)

    def release(self, slot: int, tokens: list[int]) -> None:
        """Give a slot back with what it holds."""
        assert slot not in self._idle, f"slot {slot} was released twice"
        self._idle[slot] = list(tokens) if self._retain else []
        if not self._retain:
            if len(tokens) >= WORTH_COPYING:
                self._keep(slot, tokens)
            self._ops.append(Clear(slot))

    def new_handle(self) -> int:
        """A number for a copy outside the cache, such as a fork's."""
        return next(self._handles)

    def queue(self, op: MemoryOp) -> None:
        """Add an operation of the caller's to the next step's."""
        self._ops.append(op)

    def take_empty(self) -> int:
        """A slot for a state that is about to be restored; KeyError if none is idle."""
        return self._vacate()

    def forget(self) -> None:
        """The memory behind was reset: nothing holds anything, and nothing is left to do."""
        for slot in self._idle:
            self._idle[slot] = []
        self._copies.clear()
        self._tree = RadixTree()
        self._ops.clear()
        self.size = 0
