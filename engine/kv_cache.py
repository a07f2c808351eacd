"""Who owns which llama.cpp sequence, and where a prompt's prefix can be had from.

Three sources, cheapest first: an idle slot that still holds the prefix (trimmed in place), a
copy in host memory, another slot that holds it. A prefix counts only under the adapters that it
was computed with. Pure bookkeeping: what is decided here comes out as memory operations for the
next step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from msgspec import Struct

from engine.batch import Clear, MemoryOp, Restore, Trim
from engine.host_copies import WORTH_COPYING, Held, HostCopies, HostCopy
from engine.lora import LoraSet
from engine.radix_cache import common_prefix


class Running(Struct, frozen=True):
    """A slot at work and the tokens whose KV it holds."""

    slot: int
    tokens: list[int]
    lora: LoraSet = ()


class Prefill(Struct, frozen=True):
    """A prompt of which the first `n_computed` tokens are computed."""

    prompt: list[int]
    n_computed: int
    lora: LoraSet = ()


class KVCache:
    """Slots, and copies in host memory."""

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
        self._idle: OrderedDict[int, Held] = OrderedDict(
            (slot, Held([])) for slot in range(n_slots)
        )
        """Slot → what it still holds, least recently used first."""
        self._outside = {-1, n_slots}
        self._ops: list[MemoryOp] = []
        self._copies = HostCopies(
            self.queue, can_trim=can_trim, budget=budget, bytes_per_token=bytes_per_token
        )

    @property
    def n_idle(self) -> int:
        """Slots that can be acquired."""
        return len(self._idle)

    @property
    def size(self) -> int:
        """Bytes of the copies in host memory, forks left out."""
        return self._copies.size

    def take_ops(self) -> list[MemoryOp]:
        """What the next step has to do first, in order."""
        ops, self._ops = self._ops, []
        return ops

    def match_prefix(self, prompt: list[int], lora: LoraSet = ()) -> int:
        """Tokens of `prompt` that an idle slot or a copy could save; changes nothing."""
        wanted = self._reusable(prompt, lora)
        best = max((self._usable(held, wanted) for held in self._idle.values()), default=0)
        return max(best, self._best_copy(wanted)[1])

    def acquire(
        self, prompt: list[int], running: Iterable[Running] = (), lora: LoraSet = ()
    ) -> tuple[int, int]:
        """A slot for `prompt`, and how many of its tokens are in it already.

        KeyError if no slot is idle.
        """
        wanted = self._reusable(prompt, lora)
        slot, in_slot = self._best_idle(wanted)
        copy, in_copy = self._best_copy(wanted)
        placed = self._well_placed()
        apart = ((s, held) for s, held in self._idle.items() if s not in placed)
        at_work = ((each.slot, Held(each.tokens, each.lora)) for each in running)
        source, held, in_running = self._best_running(wanted, [*at_work, *apart])
        if max(in_copy, in_running) < in_slot + WORTH_COPYING:
            return slot, self._reuse(slot, in_slot)
        if copy is None or in_running >= in_copy + WORTH_COPYING:
            copy, in_copy = self._copies.save(source, held), in_running
        return self._restore(copy, in_copy), in_copy

    def worth_waiting(
        self, prompt: list[int], prefills: Iterable[Prefill], lora: LoraSet = ()
    ) -> bool:
        """Whether a prefill under way will soon hold much more of `prompt` than can be had now."""
        if not self._can_trim:
            return False
        wanted = self._reusable(prompt, lora)
        coming = (
            shared
            for each in prefills
            if each.lora == lora
            and (shared := common_prefix(each.prompt, wanted.tokens)) > each.n_computed
        )
        best = max(coming, default=0)
        return best >= WORTH_COPYING and best >= self.match_prefix(prompt, lora) + WORTH_COPYING

    def _reusable(self, prompt: list[int], lora: LoraSet) -> Held:
        return Held(prompt[: max(0, len(prompt) - self._min_computed)], lora)

    def _usable(self, held: Held, wanted: Held) -> int:
        """Tokens of `wanted` that `held` gives; memory that cannot be trimmed must fit whole."""
        if held.lora != wanted.lora:
            return 0
        shared = common_prefix(held.tokens, wanted.tokens)
        if self._can_trim:
            return shared - shared % self._align
        return shared if shared == len(held.tokens) else 0

    def _best_idle(self, wanted: Held) -> tuple[int, int]:
        """The well-placed idle slot with the longest usable prefix; the victim where none has."""
        usable = {slot: self._usable(self._idle[slot], wanted) for slot in self._well_placed()}
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
        empty = [slot for slot in placed if not self._idle[slot].tokens]
        return min(empty) if empty else placed[0]

    def _best_copy(self, wanted: Held) -> tuple[HostCopy | None, int]:
        length, copy = self._copies.match_prefix(wanted)
        if copy is None:
            return None, 0
        return copy, self._usable(copy.held, Held(wanted.tokens[:length], wanted.lora))

    def _best_running(
        self, wanted: Held, running: Iterable[tuple[int, Held]]
    ) -> tuple[int, Held, int]:
        best, length = (-1, Held([])), 0
        for slot, held in running:
            if (usable := self._usable(held, wanted)) > length:
                best, length = (slot, held), usable
        return *best, length

    def _reuse(self, slot: int, length: int) -> int:
        """Take `slot` with its first `length` tokens; the rest is copied if it is worth it."""
        held = self._idle.pop(slot)
        if len(held.tokens) >= length + WORTH_COPYING:
            self._copies.keep(slot, held)
        if length:
            self._trim(slot, length, len(held.tokens))
        elif held.tokens:
            self._ops.append(Clear(slot))
        return length

    def _restore(self, copy: HostCopy, length: int) -> int:
        """A slot with the first `length` tokens of `copy`."""
        self._copies.touch(copy)
        slot = self._vacate(spare=copy)
        self._ops.append(Restore(slot, copy.handle))
        self._trim(slot, length, len(copy.held.tokens))
        self._copies.shrink()
        return slot

    def _vacate(self, spare: HostCopy | None = None) -> int:
        slot = self._victim()
        self._copies.keep(slot, self._idle.pop(slot), spare)
        return slot

    def _trim(self, slot: int, length: int, held: int) -> None:
        if length < held:
            self._ops.append(Trim(slot, length))

    def release(self, slot: int, tokens: list[int], lora: LoraSet = ()) -> None:
        """Give a slot back with what it holds."""
        assert slot not in self._idle, f"slot {slot} was released twice"
        held = Held(list(tokens), lora)
        self._idle[slot] = held if self._retain else Held([])
        if not self._retain:
            self._copies.keep(slot, held)
            self._ops.append(Clear(slot))

    def new_handle(self) -> int:
        """A number for a copy outside the cache, such as a fork's."""
        return self._copies.new_handle()

    def queue(self, op: MemoryOp) -> None:
        """Add an operation of the caller's to the next step's."""
        self._ops.append(op)

    def take_empty(self) -> int:
        """A slot for a state that is about to be restored; KeyError if none is idle."""
        return self._vacate()

    def forget(self) -> None:
        """The memory behind was reset: nothing holds anything, and nothing is left to do."""
        for slot in self._idle:
            self._idle[slot] = Held([])
        self._copies.forget()
        self._ops.clear()
