"""Slots that nobody computes in: what each still holds, which is well placed, who gives way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from engine.prefix_index import Held
from engine.prefix_rules import PrefixRules
from engine.radix_cache import common_prefix

EMPTY = Held([])


class IdleSlots:
    """Least recently used first. A slot that is taken keeps its floor: it is about its cells."""

    def __init__(self, n_slots: int, rules: PrefixRules) -> None:
        self._rules = rules
        self._n_slots = n_slots
        self._held: OrderedDict[int, Held] = OrderedDict()
        self._floors: dict[int, int] = {}
        """Slot → length below which it cannot be trimmed."""
        self._outside = {-1, n_slots}
        self.empty()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, slot: int) -> bool:
        return slot in self._held

    def __iter__(self) -> Iterator[int]:
        return iter(self._held)

    def __getitem__(self, slot: int) -> Held:
        return self._held[slot]

    def items(self) -> Iterable[tuple[int, Held]]:
        """Slot and what it holds; from any thread."""
        return list(self._held.items())

    def put(self, slot: int, held: Held) -> None:
        """Nobody computes in it any more."""
        assert slot not in self._held, f"slot {slot} was released twice"
        self._held[slot] = held

    def take(self, slot: int) -> Held:
        """Somebody is about to compute in it; returns what it holds."""
        return self._held.pop(slot)

    def empty(self) -> None:
        """The memory behind was reset, and nobody computes. A slot that was taken for a request
        which failed before it began is idle again, too."""
        self._held.clear()
        self._held.update((slot, EMPTY) for slot in range(self._n_slots))
        self._floors.clear()

    def floor(self, slot: int) -> int:
        """Length below which a slot, idle or not, cannot be trimmed."""
        return self._floors.get(slot, 0)

    def set_floor(self, slot: int, floor: int) -> None:
        """What the slot holds came from somewhere else, or was cleared."""
        self._floors[slot] = floor

    def usable(self, slot: int, wanted: Held) -> int:
        """Tokens of `wanted` that an idle slot gives when it is trimmed in place."""
        return self._rules.usable(self._held[slot], wanted, self.floor(slot))

    def holding(self, slots: Iterable[int], wanted: Held) -> int | None:
        """The first of some idle slots that holds all that is wanted."""
        for slot in slots:
            if self._rules.holds(self._held[slot], wanted, self.floor(slot)):
                return slot
        return None

    def well_placed(self) -> list[int]:
        """llama.cpp runs neighbours in one pass, and each gap costs another pass over the weights:
        idle slots between two busy ones; if there is none, beside one; else all."""
        by_neighbours: dict[int, list[int]] = {}
        for slot in self._held:
            busy = {slot - 1, slot + 1} - self._held.keys() - self._outside
            by_neighbours.setdefault(len(busy), []).append(slot)
        return by_neighbours[max(by_neighbours)]

    def victim(self) -> int:
        """The well-placed slot with the least to lose: the lowest empty one, else the oldest."""
        placed = self.well_placed()
        empty = [slot for slot in placed if not self._held[slot].tokens]
        return min(empty) if empty else placed[0]

    def at_stake(self, slot: int, prompt: list[int]) -> int:
        """Tokens of a prompt that an idle slot loses to `prompt`; answers are not counted, since
        few requests go on with one that another request did not go on with."""
        held = self._held[slot]
        n_prompt = min(held.n_prompt, len(held.tokens))
        return max(0, n_prompt - common_prefix(held.tokens, prompt))

    def recency(self, slot: int) -> float:
        """From nearly 0, the least recently used, to 1: how likely somebody returns to it."""
        return (list(self._held).index(slot) + 1) / len(self._held)
