"""Who may be in memory: a budget, a line of loads that wait for room, and who leaves for them.

Of the event loop. A model in use never leaves; one that must leave takes no new requests, so that
a load waits for no more than what runs when it comes.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from engine.errors import OutOfMemory
from engine.memory import gigabytes
from server.served_model import ServedModel


class Waiting(Struct, frozen=True):
    """A load in line; `need` in bytes."""

    model: ServedModel
    need: int
    room: asyncio.Future[None]


class Residency:
    """Counts bytes of weights and KV cache, from before a load to after the unload."""

    def __init__(
        self,
        budget: int | None,
        unload: Callable[[ServedModel], None],
        admit: Callable[[ServedModel], None],
    ) -> None:
        """`budget` in bytes, None is no limit. `unload` begins to, and ends with `release`;
        `admit` lets in who waits for a model that stays after all."""
        self.budget = budget
        self._unload = unload
        self._admit = admit
        self._taken: dict[ServedModel, int] = {}
        self._line: deque[Waiting] = deque()

    @property
    def residents(self) -> Sequence[ServedModel]:
        """Whoever has room: loaded, or on the way in or out."""
        return list(self._taken)

    @property
    def used(self) -> int:
        """Bytes taken."""
        return sum(self._taken.values())

    async def make_room(self, model: ServedModel, need: int) -> None:
        """Take `need` bytes for `model`, first come first served.

        Raises OutOfMemory at once where they can never be had.
        """
        if self.budget is not None and need > self.budget:
            raise OutOfMemory(
                f"{model.name} needs {gigabytes(need)} for weights and KV cache, but memory_budget"
                f" is {gigabytes(self.budget)}: lower context or parallel, or raise the budget"
            )
        waiting = Waiting(model, need, asyncio.get_running_loop().create_future())
        self._line.append(waiting)
        self.settle()
        try:
            await waiting.room
        except asyncio.CancelledError:
            if waiting in self._line:
                self._line.remove(waiting)
            self.release(model)
            raise

    def release(self, model: ServedModel) -> None:
        """`model` has given its memory back."""
        self._taken.pop(model, None)
        self.settle()

    def settle(self) -> None:
        """Serve the line. To be called when a model was loaded, lost a user or was retired."""
        while self._line and self._missing() <= 0:
            first = self._line.popleft()
            self._taken[first.model] = first.need
            first.room.set_result(None)
        leaving = self._who_leaves()
        for model in self.residents:
            model.leaving = model in leaving
            if model.idle and not model.available:
                self._unload(model)
            elif model.available and model.waiting:
                self._admit(model)

    def _missing(self) -> int:
        """Bytes that the first in line lacks."""
        if self.budget is None:
            return 0
        return self.used + self._line[0].need - self.budget

    def _who_leaves(self) -> set[ServedModel]:
        """The fewest that make room for the first in line, beside those that leave anyway."""
        if not self._line:
            return set()
        missing, chosen = self._missing(), set()
        for model in sorted(self._taken, key=_staying_power):
            if missing > 0 and (model.loaded or model.unloading):
                missing -= self._taken[model]
                chosen.add(model)
        return {model for model in chosen if model.loaded}


def _staying_power(model: ServedModel) -> tuple[bool, bool, bool, bool, float]:
    """First who leaves already, then the idle; those kept for ever last, else the longest unused.

    A choice that was made is kept, unless an idle one turns up: it must come to its end.
    """
    gone = model.unloading or model.retired
    return (
        not gone,
        not model.idle,
        not model.leaving,
        model.keep_alive == math.inf,
        model.last_used,
    )
