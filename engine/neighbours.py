"""Gives up threads while other processes need the cores, and takes them back after.

llama.cpp's threads wait for each other at every operation: one that shares its core with a busy
neighbour holds up all, and two threads on two cores beside one busy process are slower than one.
The neighbour may be another machine: what the host of a virtual one gives to others, or withholds
because of a quota, counts the same ("steal": two threads did half of what one did at 40 %).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

INTERVAL = 0.5
"""Seconds between two looks."""
BUSY, QUIET = 0.6, 0.45
"""Cores of others above which a thread gives way, and below which it comes back."""
TRIAL = 0.2
"""Seconds until the first look after a thread came back: long enough for the system's ticks."""
PROOF = 4.0
"""Seconds that a thread which came back must last, or the next waits twice as long."""
LONGEST = 4.0
"""Quiet seconds, at most, before a thread comes back: a trial that fails costs half of its time, a
fortieth; a host that has recovered is noticed soon."""
RECOVERY = 5.0
"""Seconds of rest after which a host's quota may be full again."""

COUNTED = (0, 2, 7)
"""Columns of a processor in /proc/stat: user, system, steal (which some sandboxes leave out)."""


class Usage(Struct, frozen=True):
    """Processor seconds since boot: of all processes but the niced ones, who give way by
    themselves, with those that the host withheld; and of this process."""

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
            ticks += sum(int(fields[column]) for column in COUNTED if column < len(fields))
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
        self._patience = INTERVAL
        self._calm = 0.0
        self._held = PROOF
        self.threads = threads

    def rested(self, seconds: float) -> None:
        """Nothing was computed for so long: what others did meanwhile took nothing from us."""
        if self._usage is not None and seconds > INTERVAL / 4:
            self._seen, self._usage = self._now(), self._read()
        if seconds > RECOVERY:
            self._patience = INTERVAL

    def look(self) -> bool:
        """Whether `threads` has changed; costs next to nothing between two intervals. What was not
        computing since the last look was `rested`."""
        moment = self._now()
        interval = INTERVAL if self._held else TRIAL
        if self._usage is None or moment - self._seen < interval:
            return False
        usage, before = self._read(), self._usage
        seconds, self._seen, self._usage = moment - self._seen, moment, usage
        if usage is None:
            return False
        others = (usage.all - before.all - (usage.own - before.own)) / seconds
        return self._choose(others, seconds)

    def _choose(self, others: float, seconds: float) -> bool:
        margin = BUSY if self.threads == self._wanted else QUIET
        taken = int(others + 1 - margin)
        chosen = max(1, min(self._wanted, self._cores - taken))
        self._held += seconds
        if chosen > self.threads:
            self._calm += seconds
            if self._calm < self._patience:
                return False
            self._held = 0.0
        elif chosen < self.threads:
            # A host with a quota looks quiet until we ask for more: ask ever more seldom.
            again = self._held < PROOF
            self._patience = min(2 * self._patience, LONGEST) if again else INTERVAL
        self._calm = 0.0
        changed, self.threads = chosen != self.threads, chosen
        return changed
