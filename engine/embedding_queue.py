"""Which inputs share a pass: those of all requests in turn, as many as fit. Pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from engine.embedding import EmbeddingRequest, Rows


class Job:
    """A request and how far it has come."""

    def __init__(self, request: EmbeddingRequest, submitted: float) -> None:
        self.request = request
        self.submitted = submitted
        self.started: float | None = None
        self.rows: Rows = np.empty((0, 0), np.float32)
        self._next = 0
        self._left = len(request.inputs)

    @property
    def next_length(self) -> int:
        """Tokens of the input that is to be computed next."""
        return len(self.request.inputs[self._next])

    @property
    def packed(self) -> bool:
        """Every input is in a pass, or through it."""
        return self._next == len(self.request.inputs)

    @property
    def done(self) -> bool:
        """Every row is there."""
        return self._left == 0

    def take(self) -> int:
        """The index of the next input."""
        self._next += 1
        return self._next - 1

    def put(self, index: int, row: Rows) -> None:
        """The result of one input."""
        if not self.rows.size:
            self.rows = np.empty((len(self.request.inputs), len(row)), np.float32)
        self.rows[index] = row
        self._left -= 1


class Place(NamedTuple):
    """One input of a pass."""

    job: Job
    number: int

    @property
    def tokens(self) -> list[int]:
        """Its tokens."""
        return self.job.request.inputs[self.number]


class EmbeddingQueue:
    """Requests in line. One with thousands of inputs does not hold up one with a single input."""

    def __init__(self, pack_tokens: int, max_inputs: int) -> None:
        """An input of more than `pack_tokens` tokens gets a pass of its own."""
        self._pack_tokens = pack_tokens
        self._max_inputs = max_inputs
        self._jobs: deque[Job] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Put a request in line."""
        self._jobs.append(job)

    def remove(self, request_id: str) -> None:
        """Forget what is left of a request."""
        self._jobs = deque(job for job in self._jobs if job.request.id != request_id)

    def clear(self) -> list[Job]:
        """Forget everything; returns what was in line."""
        left = list(self._jobs)
        self._jobs.clear()
        return left

    def next_pack(self) -> list[Place]:
        """Inputs for one pass, an input of each request in turn; empty where nobody waits."""
        pack: list[Place] = []
        room = self._pack_tokens
        # What does not fit comes first in the next pass, which is empty: nothing waits forever.
        skipped: list[Job] = []
        while self._jobs and len(pack) < self._max_inputs:
            job = self._jobs.popleft()
            if pack and job.next_length > room:
                skipped.append(job)
                continue
            room -= job.next_length
            pack.append(Place(job, job.take()))
            if not job.packed:
                self._jobs.append(job)
        self._jobs.extendleft(reversed(skipped))
        return pack
