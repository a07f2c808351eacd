"""Which llama.cpp sequence belongs to whom; pure bookkeeping, no model."""

from __future__ import annotations

import heapq
import itertools


class Slots:
    """A fixed number of slots, and handles for copies kept in host memory."""

    def __init__(self, count: int) -> None:
        self.count = count
        # Lowest first keeps the running ones dense: llama.cpp runs neighbours in one pass.
        self._free = list(range(count))
        self._handles = itertools.count(1)

    @property
    def n_free(self) -> int:
        """Slots nobody holds."""
        return len(self._free)

    def acquire(self) -> int:
        """The lowest free slot; IndexError if there is none."""
        return heapq.heappop(self._free)

    def release(self, slot: int) -> None:
        """Give a slot back."""
        assert slot not in self._free, f"slot {slot} was released twice"
        heapq.heappush(self._free, slot)

    def new_handle(self) -> int:
        """A number no other saved copy has."""
        return next(self._handles)
