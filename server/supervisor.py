"""A parent that keeps the socket and starts a new worker when native code kills the old one.

It forks before anything heavy is imported, so that it stays small and a new worker starts from
a clean process. uvicorn's own supervisor would start workers by pickling the application, answer
for them without the cause of a death, and has no exit code for a model that cannot be loaded.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

from server.crashes import CrashRecord

log = logging.getLogger("ingle.supervisor")

CRASHES, PERIOD = 5, 120.0
"""So many deaths within so many seconds, and the parent gives up."""
LOAD_FAILED, GAVE_UP = 2, 70
"""Exit codes: the first worker died while loading; too many have died."""

OUT_OF_MEMORY = "; if nobody sent it, the kernel did, which was out of memory"


def can_supervise() -> bool:
    """Whether the system has fork."""
    return hasattr(os, "fork")


class Supervisor:
    """`run` returns twice, like fork: None in every worker, an exit code in the parent."""

    def __init__(self, record: CrashRecord) -> None:
        self._record = record
        self._worker = 0
        self._stopping = False
        self._deaths: list[float] = []
        """On the monotonic clock: the other one may jump."""

    def run(self) -> int | None:
        """Start a worker; another whenever one is killed by a signal that nobody sent for."""
        forwarded = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        previous = {number: signal.signal(number, self._forward) for number in forwarded}
        while True:
            # One that came while there is no worker, or none that is known yet, would be lost.
            signal.pthread_sigmask(signal.SIG_BLOCK, forwarded)
            if self._stopping:
                return 128 + signal.SIGTERM
            alive, lifeline = os.pipe()
            self._worker = os.fork()
            if self._worker == 0:
                os.close(lifeline)
                for number, handler in previous.items():
                    signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, forwarded)
            if self._worker == 0:
                _become_worker(alive)
                return None
            os.close(alive)
            code = self._watch()
            os.close(lifeline)
            if code is not None:
                return code

    def _watch(self) -> int | None:
        """Wait for the worker's end: its exit code, or None where another is to be started."""
        began = time.monotonic()
        _, status = os.waitpid(self._worker, 0)
        self._worker = 0
        if not os.WIFSIGNALED(status):
            return os.waitstatus_to_exitcode(status)
        number = os.WTERMSIG(status)
        if self._stopping or number in (signal.SIGINT, signal.SIGTERM):
            return 128 + number
        was_ready = self._record.was_ready
        crash = self._record.add_crash(signal.Signals(number).name, time.monotonic() - began)
        log.error(
            "the worker was killed by %s after %.1f s with %d requests in flight%s",
            crash.cause,
            crash.lived,
            crash.requests,
            OUT_OF_MEMORY if number == signal.SIGKILL else "",
        )
        if not was_ready and len(self._record.crashes) == 1:
            sys.stderr.write(f"error: loading the model was ended by {crash.cause}\n")
            return LOAD_FAILED
        self._deaths.append(time.monotonic())
        if self._too_many():
            log.error("%d workers died within %.0f s: giving up", CRASHES, PERIOD)
            return GAVE_UP
        return None

    def _too_many(self) -> bool:
        now = time.monotonic()
        return sum(now - death < PERIOD for death in self._deaths) >= CRASHES

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGHUP:
            self._stopping = True
        if self._worker:
            with suppress(ProcessLookupError):  # It has just ended.
                os.kill(self._worker, number)


def _become_worker(alive: int) -> None:
    # A group of its own: the terminal's Ctrl-C comes by way of the parent, once and not twice.
    os.setpgid(0, 0)
    faulthandler.enable()
    threading.Thread(target=_end_with_parent, args=(alive,), name="parent", daemon=True).start()


def _end_with_parent(alive: int) -> None:
    """Whatever ends the parent, its end of the pipe closes; nobody else would stop the worker."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)
