"""What a worker's death leaves behind: which requests were in it, and how often each has been.

The parent makes the shared memory before it forks; the worker writes what is in flight, and only
the parent reads it, once the worker is dead.
"""

from __future__ import annotations

import hashlib
import mmap
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import CrashedBefore

DIGEST = 16
"""Bytes by which a request is known again."""
PLACES = 4096
"""Requests in flight that can be remembered; what is beyond goes unrecorded."""
CRASHES_REFUSED = 3
"""A request that was in flight in this many crashes is not tried again."""


class Crash(Struct, frozen=True):
    """One death of a worker."""

    cause: str
    """The signal, such as SIGSEGV."""
    at: float
    """Seconds since the epoch."""
    lived: float
    """Seconds the worker ran."""
    requests: int
    """Requests in flight."""


def digest(path: str, body: bytes) -> bytes:
    """What a request is known by: its route and its body's bytes."""
    return hashlib.blake2b(path.encode() + b"\0" + body, digest_size=DIGEST).digest()


class CrashRecord:
    """The history of a server's workers. `track` is the worker's, `add_crash` the parent's."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, DIGEST * (PLACES + 1))
        """The last place says whether the worker became ready."""
        self._free = list(range(PLACES))
        self._counts: Counter[bytes] = Counter()
        self.crashes: list[Crash] = []

    @contextmanager
    def track(self, request: bytes) -> Iterator[None]:
        """The request of this digest is in flight meanwhile."""
        if not self._free:
            yield
            return
        place = self._free.pop()
        start = place * DIGEST
        self._memory[start : start + DIGEST] = request
        try:
            yield
        finally:
            self._memory[start : start + DIGEST] = bytes(DIGEST)
            self._free.append(place)

    def mark_ready(self) -> None:
        """The worker has loaded its first models."""
        self._memory[-1] = 1

    @property
    def was_ready(self) -> bool:
        """Whether the worker has loaded its first models; `add_crash` forgets it."""
        return self._memory[-1] == 1

    def refuses(self, request: bytes) -> bool:
        """Whether the request of this digest was there whenever too many workers died."""
        return self._counts[request] >= CRASHES_REFUSED

    def add_crash(self, cause: str, lived: float) -> Crash:
        """Note the death of a worker and who was in it, and make room for the next worker."""
        present = set(self._in_flight())
        self._counts.update(present)
        self._memory[:] = bytes(len(self._memory))
        crash = Crash(cause, time.time(), lived, len(present))
        self.crashes.append(crash)
        return crash

    def _in_flight(self) -> Iterator[bytes]:
        everything, nobody = self._memory[:], bytes(DIGEST)
        for start in range(0, DIGEST * PLACES, DIGEST):
            if (request := everything[start : start + DIGEST]) != nobody:
                yield request


class CrashGuard:
    """ASGI: gives every request its `flight`, which the reader of its body enters."""

    def __init__(self, app: ASGIApp, record: CrashRecord) -> None:
        self._app = app
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        flight = scope["flight"] = Flight(self._record, scope["path"])
        try:
            await self._app(scope, receive, send)
        finally:
            flight.leave()


class Flight:
    """One request's way through a worker; on the event loop."""

    def __init__(self, record: CrashRecord, path: str) -> None:
        self._record = record
        self._path = path
        self._stack = ExitStack()

    def enter(self, body: bytes) -> None:
        """The body is known: remember it until `leave`. Raises CrashedBefore."""
        request = digest(self._path, body)
        if self._record.refuses(request):
            raise CrashedBefore(
                f"this request was running {CRASHES_REFUSED} times when the server was killed; "
                "it is not tried again"
            )
        self._stack.enter_context(self._record.track(request))

    def leave(self) -> None:
        """The request is over."""
        self._stack.close()
