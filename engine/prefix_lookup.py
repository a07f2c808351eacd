"""Where a prompt's prefix can be had from, and what each source costs; changes nothing.

An idle slot that still holds it, a copy in host memory, another slot: whichever saves more time
than it takes, what others lose by it included. A prefix counts only under the adapters that it
was computed with.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from engine.costs import SourceCosts
from engine.host_copies import HostCopies, HostCopy
from engine.idle_slots import EMPTY, IdleSlots
from engine.lora import LoraSet
from engine.prefix_index import Held
from engine.prefix_rules import WORTH_COPYING, Prefill, PrefixRules

WORTH_SPARING = 4
"""Tokens of another prompt below which it is not worth a copy that they stay where they are."""


class Running(Struct, frozen=True):
    """A slot at work and what it holds."""

    slot: int
    held: Held
    more: bool = False
    """It holds more than that, which is not for others."""


class Place(Struct, frozen=True):
    """A slot for a prompt, and where its first `length` tokens come from."""

    slot: int
    level: str
    """Of the cache, as it is counted."""
    held: Held
    """What they are the beginning of."""
    length: int
    copy: HostCopy | None = None
    """To be restored to the slot that gives way."""
    other: Running | None = None
    """To be copied to the slot that gives way."""


class PrefixLookup:
    """Reads what slots and copies hold."""

    def __init__(
        self, rules: PrefixRules, idle: IdleSlots, copies: HostCopies, costs: SourceCosts
    ) -> None:
        self._rules = rules
        self._idle = idle
        self._copies = copies
        self._costs = costs

    def length(self, wanted: Held) -> int:
        """Tokens that an idle slot or a copy could save."""
        in_slots = (self._idle.usable(slot, wanted) for slot in self._idle)
        return max(self._best_copy(wanted)[1], *in_slots, 0)

    def length_with(self, wanted: Held, running: Iterable[Running]) -> int:
        """The same, slots at work included."""
        return max(self.length(wanted), self._best_other(wanted, running)[1])

    def in_copy(self, held: Held, wanted: Held) -> int:
        """Tokens that a copy of `held` saves."""
        return self._rules.usable(held, wanted, self._rules.floor_of(len(held.tokens)))

    def place(self, prompt: list[int], wanted: Held, running: Iterable[Running]) -> Place:
        """An idle slot as it is, or the one that gives way with what is copied to it; `wanted` is
        what of `prompt` may come from elsewhere."""
        slot = self._best_idle(prompt, wanted)
        place = Place(slot, "slot", self._idle[slot], self._idle.usable(slot, wanted))
        spared = self._loss(slot, prompt) - self._loss(self._idle.victim(), prompt)
        copy, length = self._best_copy(wanted)
        if copy is not None and self._copy_pays(length - place.length, spared, copy.size):
            place, spared = Place(slot, copy.level, copy.held, length, copy=copy), 0.0
        other, length = self._best_other(wanted, running)
        size = 2 * self._copies.size_of(len(other.held.tokens))
        if self._copy_pays(length - place.length, spared, size):
            place = Place(slot, "running", other.held, length, other=other)
        return place

    def _best_idle(self, prompt: list[int], wanted: Held) -> int:
        """The well-placed slot that saves most, less what its own prompt loses; the one that gives
        way where none saves more than is lost."""
        worth = {
            slot: self._idle.usable(slot, wanted) - self._loss(slot, prompt)
            for slot in self._idle.well_placed()
        }
        slot = max(worth, key=lambda slot: worth[slot])
        return slot if worth[slot] > 0 else self._idle.victim()

    def _loss(self, slot: int, prompt: list[int]) -> float:
        """Tokens to be computed again if what an idle slot holds gives way to `prompt` and somebody
        returns to it; what is worth a copy will be copied instead."""
        n_lost = self._idle.at_stake(slot, prompt)
        if n_lost >= WORTH_COPYING:
            n_bytes = 2 * self._copies.size_of(len(self._idle[slot].tokens))
            n_lost = min(n_lost, self._costs.in_tokens(n_bytes)) if self._copies.budget else n_lost
        return n_lost * self._idle.recency(slot) if n_lost else 0.0

    def _copy_pays(self, gain: int, spared: float, copied: int) -> bool:
        """Whether to copy so many bytes for `gain` more tokens of the prompt, and so that `spared`
        tokens of somebody else's stay where they are."""
        if gain >= WORTH_COPYING:
            return self.pays(gain, copied)
        known = self._costs.prompt_token is not None
        return (
            known
            and spared >= WORTH_SPARING
            and self._costs.pays(int(gain + spared), copied=copied)
        )

    def pays(self, gain: int, copied: int, read: int = 0) -> bool:
        """Whether so many tokens are worth copying and reading so many bytes."""
        return gain >= WORTH_COPYING and self._costs.pays(gain, copied=copied, read=read)

    def _best_copy(self, wanted: Held) -> tuple[HostCopy | None, int]:
        best, length = None, 0
        for copy in self._copies.candidates(wanted):
            if (usable := self.in_copy(copy.held, wanted)) > length:
                best, length = copy, usable
        return best, length

    def _best_other(self, wanted: Held, running: Iterable[Running]) -> tuple[Running, int]:
        """The slot, at work or idle, with the longest prefix that another slot could be given."""
        target = self._idle.victim()
        idle = (Running(slot, held) for slot, held in self._idle.items() if slot != target)
        best, length = Running(-1, EMPTY), 0
        for each in (*running, *idle):
            usable = self._rules.usable(each.held, wanted, self._idle.floor(each.slot))
            if usable > length:
                best, length = each, usable
        return best, length

    def worth_waiting(self, wanted: Held, prefills: Iterable[Prefill], lora: LoraSet = ()) -> bool:
        """Whether a prefill under way will soon hold much more of it than can be had now: more
        than the copy takes, and one more pass over the weights."""
        coming = max(
            (self._rules.coming(each, wanted) for each in prefills if each.lora == lora), default=0
        )
        gain = coming - self.length(wanted) if coming >= WORTH_COPYING else 0
        return gain >= WORTH_COPYING and self._costs.pays(
            gain, copied=self._copies.size_of(coming), passes=1
        )
