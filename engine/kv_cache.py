"""Who owns which llama.cpp sequence, and how a prompt's prefix gets there.

`prefix_lookup` says where it can be had from: an idle slot that still holds it (trimmed in place),
a copy in host memory, another slot, a file. Pure bookkeeping: what is decided here comes out as
memory operations for the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import structs

from engine.batch import Clear, Copy, CopyReport, MemoryOp, Restore, Trim
from engine.costs import SourceCosts
from engine.counters import CacheCounters
from engine.disk_cache import DiskCache, DiskEntry, Fetch
from engine.host_copies import HostCopies, HostCopy
from engine.idle_slots import EMPTY, IdleSlots
from engine.lora import LoraSet
from engine.prefix_index import Held
from engine.prefix_lookup import Place, PrefixLookup, Running
from engine.prefix_rules import WORTH_COPYING, Prefill, PrefixRules


class KVCache:
    """Slots, and copies in host memory and on disk."""

    def __init__(
        self,
        n_slots: int,
        *,
        can_trim: bool,
        window: int = 0,
        min_computed: int = 1,
        align: int = 1,
        retain: bool = True,
        budget: int = 0,
        bytes_per_token: int = 0,
        disk: DiskCache | None = None,
    ) -> None:
        """`budget` bytes for copies; `PrefixRules` has the rest. Without `retain` (the unified
        layout, where every cell slows every sequence) a slot is cleared as soon as it is idle."""
        self._rules = PrefixRules(can_trim, window, min_computed, align)
        self._retain = retain
        self._budget = budget
        self._idle = IdleSlots(n_slots, self._rules)
        self._ops: list[MemoryOp] = []
        self._disk = disk
        self._costs = SourceCosts()
        self.counters = CacheCounters()
        self._copies = HostCopies(
            self.queue,
            rules=self._rules,
            budget=budget,
            bytes_per_token=bytes_per_token,
            disk=disk,
        )
        self._lookup = PrefixLookup(self._rules, self._idle, self._copies, self._costs)

    @property
    def can_trim(self) -> bool:
        """Whether a prefix of what a slot holds can be kept."""
        return self._rules.can_trim

    @property
    def n_idle(self) -> int:
        """Slots that can be acquired."""
        return len(self._idle)

    @property
    def size(self) -> int:
        """Bytes of the copies in host memory, forks left out."""
        return self._copies.size

    @property
    def budget(self) -> int:
        """Bytes that copies may take."""
        return self._budget

    @property
    def n_files(self) -> int:
        """Prefixes on disk."""
        return self._disk.n_files if self._disk is not None else 0

    def idle_tokens(self) -> dict[int, int]:
        """Idle slot → tokens that it still holds; from any thread."""
        return {slot: len(held.tokens) for slot, held in self._idle.items()}

    def copy_tokens(self) -> list[int]:
        """Tokens of each copy in host memory; from any thread."""
        return self._copies.tokens()

    def take_ops(self) -> list[MemoryOp]:
        """What the next step has to do first, in order."""
        ops, self._ops = self._ops, []
        return ops

    def match_prefix(self, prompt: list[int], lora: LoraSet = ()) -> int:
        """Tokens of `prompt` that an idle slot or a copy could save; changes nothing."""
        return self._lookup.length(self._rules.reusable(prompt, lora))

    def acquire(
        self,
        prompt: list[int],
        running: Iterable[Running] = (),
        lora: LoraSet = (),
        key: str = "",
    ) -> tuple[int, int]:
        """A slot for `prompt`, and how many of its tokens are in it already.

        What has the same `key`, if there is one, is kept longer. KeyError if no slot is idle.
        """
        wanted = self._rules.reusable(prompt, lora)
        if key:
            self._copies.use_family(key)
        place = self._lookup.place(prompt, wanted, running)
        slot, length = self._take(place), place.length
        self.counters.found(len(prompt), place.level, length)
        if self._rules.can_trim and WORTH_COPYING <= length <= place.held.n_prompt - WORTH_COPYING:
            # Two prompts part here: others may begin like them.
            self._copies.keep_shared(slot, Held(prompt[:length], lora, length, key))
        return slot, length

    def take_whole(self, prompt: list[int], lora: LoraSet = (), key: str = "") -> int | None:
        """A slot that holds all of `prompt`, for whom the logits after it are known already; None
        if it would have to be computed. `key` as in `acquire`."""
        wanted = Held(prompt, lora)
        found = (
            self._whole_in(self._idle.well_placed(), wanted)
            or self._whole_copy(wanted)
            # A gap between the slots at work costs less than the prompt.
            or self._whole_in(self._idle, wanted)
        )
        if found is None:
            return None
        if key:
            self._copies.use_family(key)
        slot, level = found
        self.counters.found(len(prompt), level, len(prompt))
        return slot

    def _whole_in(self, slots: Iterable[int], wanted: Held) -> tuple[int, str] | None:
        """Takes the first of the idle `slots` that holds all that is wanted."""
        slot = self._idle.holding(slots, wanted)
        if slot is None:
            return None
        self._reuse(slot, len(wanted.tokens))
        return slot, "slot"

    def _whole_copy(self, wanted: Held) -> tuple[int, str] | None:
        """The same from a copy in host memory."""
        for copy in self._copies.candidates(wanted):
            if self._rules.holds(copy.held, wanted, self._rules.floor_of(len(copy.held.tokens))):
                return self._restore(copy, len(wanted.tokens)), copy.level
        return None

    def worth_waiting(
        self, prompt: list[int], prefills: Iterable[Prefill], lora: LoraSet = ()
    ) -> bool:
        """As `PrefixLookup.worth_waiting`."""
        return self._lookup.worth_waiting(self._rules.reusable(prompt, lora), prefills, lora)

    def fetch(
        self, prompt: list[int], running: Iterable[Running] = (), lora: LoraSet = ()
    ) -> Fetch | None:
        """Begin to read what only the disk has of `prompt`; None where that does not pay."""
        if self._disk is None:
            return None
        wanted = self._rules.reusable(prompt, lora)
        entries = [each for each in self._disk.candidates(wanted) if self._fits(each)]
        if not entries:
            return None
        best = max(entries, key=lambda each: self._lookup.in_copy(each.held, wanted))
        here = self._lookup.length_with(wanted, running)
        gain, size = self._lookup.in_copy(best.held, wanted) - here, best.header.size
        return self._disk.fetch(best) if self._lookup.pays(gain, copied=size, read=size) else None

    def _fits(self, entry: DiskEntry) -> bool:
        return entry.header.size <= self._budget

    def poll(self) -> None:
        """Take in what was read from disk meanwhile."""
        for fetch in self._disk.poll() if self._disk is not None else ():
            if fetch.data is not None:
                self._costs.observe_read(fetch.seconds, len(fetch.data))
                self._copies.add_read(fetch.entry.held, fetch.data)

    def wait(self, timeout: float) -> None:
        """Until something was read from disk, if anything is being read."""
        if self._disk is not None and self._disk.fetching:
            self._disk.wait(timeout)

    def learn(
        self,
        report: CopyReport,
        prompt_token: float | None = None,
        weights: float | None = None,
    ) -> None:
        """Take in what memory operations came to, what computing a token costs, and a pass over the
        weights."""
        self._costs.prompt_token, self._costs.weights = prompt_token, weights
        self._costs.observe_copies(report.seconds, report.n_bytes)
        if report.sizes:
            self._copies.learn_sizes(report.sizes)
        for handle, data in report.exported.items():
            held = self._copies.take_leaving(handle)
            if self._disk is not None:
                self._disk.store(held, data)

    def checkpoints(self, prompt: list[int], boundaries: Iterable[int]) -> list[int]:
        """As `PrefixRules.checkpoints`; none where no copy may be made."""
        return self._rules.checkpoints(prompt, boundaries) if self._budget else []

    def checkpoint(self, slot: int, held: Held) -> None:
        """Copy what a slot holds in the middle of its prompt."""
        self._copies.keep(slot, held)

    def _take(self, place: Place) -> int:
        """Have a place made ready; returns its slot."""
        if place.copy is not None:
            return self._restore(place.copy, place.length)
        if place.other is not None:
            return self._copy(place.other, place.length)
        self._reuse(place.slot, place.length)
        return place.slot

    def _copy(self, source: Running, length: int) -> int:
        """A slot with the first `length` tokens of another one."""
        n_held = len(source.held.tokens)
        if not self._rules.floor_of(n_held) and not source.more:
            return self._restore(self._copies.save(source.slot, source.held), length)
        slot = self._vacate()
        self._ops.append(Copy(source.slot, slot))
        self._idle.set_floor(slot, self._idle.floor(source.slot))
        self._trim(slot, length, n_held + source.more)
        return slot

    def _reuse(self, slot: int, length: int) -> None:
        """Take `slot` with its first `length` tokens; the rest is copied if it is worth it."""
        held = self._idle.take(slot)
        if len(held.tokens) >= length + WORTH_COPYING:
            self._keep(slot, held, stays=length)
        if length:
            self._trim(slot, length, len(held.tokens))
            return
        if held.tokens:
            self._ops.append(Clear(slot))
        self._idle.set_floor(slot, 0)

    def _restore(self, copy: HostCopy, length: int) -> int:
        """A slot with the first `length` tokens of `copy`."""
        self._copies.use(copy)
        slot = self._vacate(spare=copy)
        n_copied = len(copy.held.tokens)
        self._ops.append(Restore(slot, copy.handle))
        self._idle.set_floor(slot, self._rules.floor_of(n_copied))
        self._trim(slot, length, n_copied)
        self._copies.shrink()
        return slot

    def _vacate(self, spare: HostCopy | None = None) -> int:
        slot = self._idle.victim()
        self._keep(slot, self._idle.take(slot), spare)
        return slot

    def _keep(self, slot: int, held: Held, spare: HostCopy | None = None, stays: int = 0) -> None:
        """Copy a slot that is about to lose what it holds beyond the `stays` first tokens."""
        n_held = len(held.tokens)
        if not self._rules.floor_of(n_held):
            self._copies.keep(slot, held, spare)
            return
        for length in self._rules.ends(held, max(stays, self._idle.floor(slot))):
            cut = structs.replace(held, tokens=held.tokens[:length])
            self._copies.keep(slot, cut, spare, trim=length < n_held)

    def _trim(self, slot: int, length: int, held: int) -> None:
        if length < held:
            self._ops.append(Trim(slot, length))

    def release(self, slot: int, held: Held, *, more: bool = False) -> None:
        """Give a slot back with what it holds; if that is `more` than `held`, the rest goes."""
        if more:
            held = self._cut_back(slot, held)
        self._idle.put(slot, held if self._retain else EMPTY)
        if not self._retain:
            self._keep(slot, held)
            self._ops.append(Clear(slot))

    def _cut_back(self, slot: int, held: Held) -> Held:
        length = len(held.tokens)
        if self._rules.can_trim and length and length >= self._idle.floor(slot):
            self._ops.append(Trim(slot, length))
            return held
        self._ops.append(Clear(slot))
        self._idle.set_floor(slot, 0)
        return EMPTY

    def copy_seconds(self, n_tokens: int) -> float:
        """How long it takes to restore so many tokens, as far as is known."""
        return self._costs.copying(self._copies.size_of(n_tokens)) if n_tokens else 0.0

    def new_handle(self) -> int:
        """A number for a copy outside the cache, such as a fork's."""
        return self._copies.new_handle()

    def queue(self, op: MemoryOp) -> None:
        """Add an operation of the caller's to the next step's."""
        self._ops.append(op)

    def take_for(self, n_copied: int) -> int:
        """A slot to which a copy of so many tokens is about to be restored; KeyError if none is
        idle."""
        slot = self._vacate()
        self._idle.set_floor(slot, self._rules.floor_of(n_copied))
        return slot

    def close(self, run: Callable[[list[MemoryOp]], CopyReport], timeout: float) -> None:
        """Hand what is worth it to the disk, and wait until it is written; `run` executes."""
        if self._disk is None:
            return
        self.learn(run(self.take_ops()))
        for slot, held in self._idle.items():
            self._keep(slot, held)
        order = self._copies.export_all()
        exported = run(self.take_ops()).exported
        for age, handle in enumerate(sorted(exported, key=order.index)):
            held = self._copies.take_leaving(handle)
            self._disk.store(held, exported[handle], at_exit=True, age=age)
        self._disk.close(timeout)

    def forget(self) -> None:
        """The memory behind was reset: nothing holds anything, and nothing is left to do."""
        self._idle.empty()
        self._copies.forget()
        self._ops.clear()
        if self._disk is not None:
            self._disk.distrust()
