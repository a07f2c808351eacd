"""Decides who runs and how many tokens of each make up the next step. Never sees a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from engine.batch import Batch, Clear, Drop, MemoryOp, Restore, Rows, Save, Span
from engine.costs import StepCosts
from engine.sequence import RequestState, Sequence
from engine.slots import Slots
from engine.waiting import WaitingQueue

_SMALLEST_CHUNK = 16


class Step(Struct):
    """A batch and, span by span, whose it is."""

    batch: Batch
    sequences: list[Sequence]
    n_decode: int

    @property
    def n_prompt(self) -> int:
        """Tokens of prompts in the batch."""
        return self.batch.n_tokens - self.n_decode


class Scheduler:
    """Owns the waiting queue, the slots and the running sequences."""

    def __init__(
        self,
        n_slots: int,
        *,
        batch_size: int,
        ubatch_size: int,
        max_stall: float,
        new_choices: Callable[[RequestState], list[Sequence]],
    ) -> None:
        """`max_stall` is the time, in seconds, a step may take while anyone is decoding."""
        self.waiting = WaitingQueue()
        self.running: dict[int, Sequence] = {}
        """Slot → sequence."""
        self.costs = StepCosts()
        self._slots = Slots(n_slots)
        self._batch_size = batch_size
        self._ubatch_size = ubatch_size
        self._max_stall = max_stall
        self._new_choices = new_choices
        self._forking: list[RequestState] = []
        self._ops: list[MemoryOp] = []

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.running or self._forking or len(self.waiting))

    def add(self, state: RequestState) -> None:
        """Put a new request in line."""
        self.waiting.push(state)

    def start_forks(self) -> Iterator[Sequence]:
        """Give free slots to choices whose prompt is computed; each can draw its first token."""
        for state in list(self._forking):
            while state.unstarted and self._slots.n_free:
                sequence = state.unstarted.pop(0)
                assert state.saved is not None
                self._start(sequence)
                self._ops.append(Restore(sequence.slot, state.saved))
                sequence.n_computed = len(state.request.prompt)
                yield sequence
            if not state.unstarted:
                self._end_fork(state)

    def _start(self, sequence: Sequence) -> None:
        sequence.slot = self._slots.acquire()
        self.running[sequence.slot] = sequence

    def _end_fork(self, state: RequestState) -> None:
        self._forking.remove(state)
        if state.saved is not None:
            self._ops.append(Drop(state.saved))
        state.saved = state.prompt_row = None

    def schedule(self) -> Step:
        """Admit who fits, then take every decoding token and as much of the prompts as is due."""
        self._admit()
        decoding = [each for each in self.running.values() if each.decoding and each.n_waiting == 1]
        shares = dict.fromkeys((each.slot for each in decoding), 1)
        budget = self._prompt_budget(len(decoding))
        prompts = (each for each in self.running.values() if each.slot not in shares)
        for sequence in sorted(prompts, key=lambda each: each.group.submitted):
            shares[sequence.slot] = min(sequence.n_waiting, budget)
            budget -= shares[sequence.slot]
        step = Step(Batch(self._ops, []), [], n_decode=len(decoding))
        self._ops = []
        for slot, n_tokens in sorted(shares.items()):
            if n_tokens:
                step.sequences.append(self.running[slot])
                step.batch.spans.append(self._span(self.running[slot], n_tokens))
        return step

    def _admit(self) -> None:
        while self._slots.n_free and len(self.waiting) and not self._forking:
            state = self.waiting.pop()
            state.choices = self._new_choices(state)
            state.unstarted = state.choices[1:]
            self._start(state.choices[0])

    def _prompt_budget(self, n_decode: int) -> int:
        """Tokens of prompts in this step: one pass of the graph while nobody waits for a token."""
        room = self._batch_size - n_decode
        if not n_decode:
            return min(room, self._ubatch_size)
        due = self.costs.affordable(self._max_stall, default=_SMALLEST_CHUNK * 4)
        return min(room, max(_SMALLEST_CHUNK, min(due, self._ubatch_size)))

    def _span(self, sequence: Sequence, n_tokens: int) -> Span:
        start, end = sequence.n_computed, sequence.n_computed + n_tokens
        rows = Rows.LAST if end == len(sequence.tokens) else Rows.NONE
        return Span(sequence.slot, start, sequence.tokens[start:end], rows)

    def update(self, step: Step) -> list[Sequence]:
        """Note what the step computed; returns the sequences that have a row, in its order."""
        ready = []
        for sequence, span in zip(step.sequences, step.batch.spans, strict=True):
            sequence.n_computed = span.start + len(span.tokens)
            if span.rows is Rows.LAST:
                ready.append(sequence)
        return ready

    def fork(self, leader: Sequence) -> None:
        """The leader's prompt is computed: keep its state for the other choices of the request."""
        state = leader.group
        state.saved = self._slots.new_handle()
        self._ops.append(Save(leader.slot, state.saved))
        self._forking.append(state)

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out; the next step begins with clearing its slot."""
        if self.running.get(sequence.slot) is sequence:
            del self.running[sequence.slot]
            self._slots.release(sequence.slot)
            self._ops.append(Clear(sequence.slot))

    def remove(self, state: RequestState) -> None:
        """Forget a request wherever it is: waiting, in prefill, decoding or partly started."""
        self.waiting.remove(state)
        if state in self._forking:
            state.unstarted.clear()
            self._end_fork(state)
        for sequence in state.choices:
            self.finish(sequence)

    def reset(self) -> None:
        """Forget everything that runs; the memory behind it is reset elsewhere."""
        for sequence in list(self.running.values()):
            self.finish(sequence)
        self._forking.clear()
        self._ops.clear()
