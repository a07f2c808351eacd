"""Gives up threads while other processes need the cores, and takes them back after.

llama.cpp's threads wait for each other at every operation: one that shares its core with a busy
neighbour holds up all, and two threads on two cores beside one busy process are slower than one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

INTERVAL = 0.5
"""Seconds between two looks."""
BUSY, QUIET = 0.6, 0.3
"""Cores of others above which a thread gives way, and below which it comes back."""


class Usage(Struct, frozen=True):
    """Processor seconds since boot: of all processes but the niced ones, who give way by
    themselves, and of this process."""

    all: float
    own: float


def read_usage(stat: Path = Path("/proc/stat")) -> Usage | None:
    """On the processors this process may use, which a container shares with fewer neighbours than
    its host has; None where the system does not tell (other than Linux)."""
    try:
        lines = stat.read_text().splitlines()
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return None
    ticks = 0
    for line in lines:
        name, *fields = line.split()
        if name in mine:
            user, _nice, system = (int(field) for field in fields[:3])
            ticks += user + system
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), time.process_time())


class ThreadGovernor:
    """Watches what others take, and says how many threads are best."""

    def __init__(
        self,
        threads: int,
        cores: int,
        read: Callable[[], Usage | None] = read_usage,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`threads` of `cores` are wanted where nobody else is busy."""
        self._wanted = threads
        self._cores = cores
        self._read = read
        self._now = now
        self._seen = now()
        self._usage = read()
        self.threads = threads

    def rested(self, seconds: float) -> None:
        """Nothing was computed for so long: what others did meanwhile took nothing from us."""
        if self._usage is not None and seconds > INTERVAL / 4:
            self._seen, self._usage = self._now(), self._read()

    def look(self) -> bool:
        """Whether `threads` has changed; costs next to nothing between two intervals."""
        moment = self._now()
        if self._usage is None or moment - self._seen < INTERVAL:
            return False
        usage, before = self._read(), self._usage
        seconds, self._seen, self._usage = moment - self._seen, moment, usage
        if usage is None or seconds > 4 * INTERVAL:
            return False  # Idle in between: the average says nothing of this moment.
        others = (usage.all - before.all - (usage.own - before.own)) / seconds
        return self._choose(others)

    def _choose(self, others: float) -> bool:
        margin = BUSY if self.threads == self._wanted else QUIET
        taken = int(others + 1 - margin)
        chosen = max(1, min(self._wanted, self._cores - taken))
        changed, self.threads = chosen != self.threads, chosen
        return changed
