"""One step of the engine: schedule → run → sample → update. Single-threaded, no event loop."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from msgspec import structs

from engine import snapshot
from engine.batch import ALL, Batch, CopyReport, Logits, MemoryOp, Runner, Span, nothing
from engine.counters import CacheCounters, Counters
from engine.draft import Prediction
from engine.errors import RequestError
from engine.kv_cache import KVCache
from engine.logprobs import RawLogprobs
from engine.neighbours import ThreadGovernor
from engine.output import OutputText
from engine.prompt_rows import PromptRows
from engine.radix_cache import common_prefix
from engine.request import (
    Event,
    FinishReason,
    RequestFailed,
    TokenLogprob,
    TokenOutput,
)
from engine.scheduler import Scheduler, Step
from engine.sequence import Constraint, RequestState, Sequence
from engine.snapshot import Snapshot
from engine.vocab_math import LIKELY, Head, Row

_DISK_WAIT = 0.02
"""Seconds until the inbox is looked at again while all that could run waits for the disk."""
_FLUSH = 10.0
"""Seconds that the disk gets at the end."""

ROW_BUDGET = 32 << 20
"""160 prompts at 49k tokens, 30 at 262k."""

Outgoing = list[tuple[RequestState, Event]]
"""Events of one step with whom they are for."""


class Vocabulary(Protocol):
    """What the core needs of a tokenizer."""

    n_vocab: int
    control: frozenset[int]
    end_of_generation: frozenset[int]

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token."""
        ...


class EngineCore:
    """Requests in by `add`, events out of `step`. Raises only what makes a whole step fail."""

    def __init__(
        self,
        runner: Runner,
        vocabulary: Vocabulary,
        *,
        context: int,
        kv_cache: KVCache,
        batch_size: int,
        ubatch_size: int,
        max_stall: float,
        governor: ThreadGovernor | None = None,
        row_budget: int = ROW_BUDGET,
        deterministic: bool = False,
    ) -> None:
        """`row_budget` bytes keep the logits after prompts that may come again. `deterministic`
        as `ModelSettings` has it; it wants no `governor`."""
        self._runner = runner
        self._kv = kv_cache
        self._vocabulary = vocabulary
        self._context = context
        self._governor = governor
        self._rows = PromptRows(row_budget)
        self._can_draft = runner.can_trim and not deterministic
        self._eog = sorted(vocabulary.end_of_generation)
        self._scratch = np.empty(vocabulary.n_vocab, np.float32)
        self._copy = np.empty(vocabulary.n_vocab, np.float32)
        # A cycle would keep what an unloaded model had in memory until the collector comes by.
        core = weakref.proxy(self)
        self.scheduler = Scheduler(
            kv_cache,
            context=context,
            batch_size=batch_size,
            ubatch_size=ubatch_size,
            max_rows=runner.max_rows,
            max_stall=max_stall,
            new_choices=lambda state: core._new_choices(state),
            rows=self._rows,
            deterministic=deterministic,
        )
        self.states: dict[str, RequestState] = {}
        """Every request that is not over, by id."""
        self.counters = Counters()

    def add(self, state: RequestState) -> None:
        """Put a request in line."""
        self.states[state.request.id] = state
        self.scheduler.add(state)

    def abort(self, request_id: str) -> bool:
        """Forget a request; False if it is over already."""
        state = self.states.pop(request_id, None)
        if state is not None:
            self.scheduler.remove(state)
        return state is not None

    def _new_choices(self, state: RequestState) -> list[Sequence]:
        request = state.request
        hidden = self._vocabulary.control - request.special_tokens
        token_bytes = self._vocabulary.token_bytes
        if request.prediction and self._can_draft:
            state.prediction = Prediction(list(request.prediction))
        choices = []
        for index in range(request.n // state.n_alike):
            output = OutputText(token_bytes, hidden, request.stop, request.include_stop)
            constraint = state.constraint.fork() if state.constraint is not None else None
            choices.append(Sequence(state, index, output, constraint))
        return choices

    def rested(self, seconds: float) -> None:
        """There was no work for so long."""
        if self._governor is not None:
            self._governor.rested(seconds)

    def step(self, on_compute: Callable[[], None] = nothing) -> Outgoing:
        """Advance every running request; call while `scheduler.has_work`. `on_compute` as
        `Runner.run` has it."""
        out: Outgoing = []
        if self._governor is not None and self._governor.look():
            self._runner.set_threads(self._governor.threads)
        for sequence in self.scheduler.admit():
            assert sequence.group.prompt_row is not None
            self._sample(sequence, sequence.group.prompt_row.copy(), out)
        step = self.scheduler.schedule()
        began = time.monotonic()
        for sequence in (*step.sequences, *step.whole):
            sequence.group.started = sequence.group.started or began
        logits = self._runner.run(step.batch, on_compute)
        report = self._runner.take_report()
        ended = time.monotonic()
        seconds, n_prompt = ended - began - report.seconds, step.n_prompt
        costs = self.scheduler.costs
        if not step.n_drafted:
            costs.observe(seconds, step.n_decode, n_prompt)
        self.counters.step(ended, seconds, step.n_decode, n_prompt)
        self._kv.learn(report, costs.prompt_token, costs.decode)
        if not step.sequences and not step.whole:
            self._kv.wait(_DISK_WAIT)
        for sequence in step.whole:
            assert sequence.group.prompt_row is not None
            self._begin(sequence, sequence.group.prompt_row.copy(), out)
        for sequence, end in self._ready(step, logits):
            state, row = sequence.group, logits[end - 1]
            if sequence.n_waiting < 0:
                drafted = logits[end + sequence.n_waiting - 1 : end]
                self._sample(sequence, drafted[0], out, drafted)
            elif sequence.decoding:
                self._sample(sequence, row, out)
            else:
                self._rows.put(state.request.prompt, state.lora, row)
                self._begin(sequence, row, out)
        return out

    def _begin(self, sequence: Sequence, row: Row, out: Outgoing) -> None:
        """Draw the first token of a request from the logits after its prompt."""
        state = sequence.group
        if state.unstarted:
            state.prompt_row = row.copy()
            self.scheduler.fork(sequence)
        self._sample(sequence, row, out)

    def _ready(self, step: Step, logits: Logits) -> Iterator[tuple[Sequence, int]]:
        """The sequences that are to go on, and where the rows of their spans end."""
        end = 0
        for sequence, span in self.scheduler.update(step):
            start, end = end, end + span.n_rows
            if span.rows is ALL and not sequence.decoding:
                self._note_prompt(sequence, span, logits[start:end])
            if sequence.n_waiting <= 0:
                yield sequence, end

    def _note_prompt(self, sequence: Sequence, span: Span, rows: Logits) -> None:
        """Each row tells how likely the token after it was; the last one's is yet to be drawn."""
        state = sequence.group
        assert state.request.prompt_logprobs is not None
        following = sequence.tokens[span.start + 1 : span.start + 1 + len(rows)]
        for row, token in zip(rows, following, strict=False):
            raw = RawLogprobs(row, state.request.prompt_logprobs, self._scratch)
            state.prompt_logprobs.append(self._logprob(token, raw))

    def _sample(
        self, sequence: Sequence, row: Row, out: Outgoing, drafted: Logits | None = None
    ) -> None:
        """Draw the next token of `sequence` from `row`, which is overwritten; of `drafted` rows, of
        which it is the first, as many as tokens come true and one more."""
        state = sequence.group
        if state.request.id not in self.states:
            return  # Another choice of the request failed in this step.
        before = sequence.n_generated
        try:
            if drafted is None:
                stop_reason = self._advance(sequence, row)
            else:
                stop_reason = self._advance_drafted(sequence, drafted)
        except RequestError as error:
            self.abort(state.request.id)
            out.append((state, RequestFailed(error)))
            return
        state.first_token = state.first_token or time.monotonic()
        finished = sequence.finish_reason is not None
        text, logprobs = sequence.output.take(final=finished)
        event = TokenOutput(
            index=sequence.index,
            text=text,
            n_tokens=sequence.n_generated - before,
            logprobs=logprobs,
            finish_reason=sequence.finish_reason,
            stop_reason=stop_reason,
            prompt_logprobs=self._prompt_logprobs(sequence, before),
        )
        self.counters.generated_tokens += event.n_tokens * state.n_alike
        out.append((state, event))
        for index in range(1, state.n_alike):
            out.append((state, structs.replace(event, index=index, prompt_logprobs=())))
        if finished:
            self._finish(sequence, out)

    def _advance(self, sequence: Sequence, row: Row) -> str | int | None:
        """The next token, and those that must follow it; returns the stop that ended the choice."""
        if sequence.group.request.max_tokens == 0:
            sequence.finish_reason = FinishReason.LENGTH
            return None
        token, logprob = self._draw(sequence, row)
        stop_reason = self._append(sequence, token, logprob)
        if sequence.constraint is not None and sequence.finish_reason is None:
            stop_reason = self._append_forced(sequence, sequence.constraint)
        return stop_reason

    def _advance_drafted(self, sequence: Sequence, rows: Logits) -> str | int | None:
        """As `_advance`, row by row for as long as what is drawn is what was drafted."""
        draft = sequence.draft
        assert draft is not None
        start, n_right, n_new = len(sequence.tokens), 0, 0
        stop_reason: str | int | None = None
        try:
            while n_right == n_new and sequence.finish_reason is None:
                stop_reason = self._advance(sequence, rows[n_right])
                drawn = sequence.tokens[start:]
                n_right, n_new = common_prefix(drawn, draft.proposed), len(drawn)
        finally:
            n_right = common_prefix(sequence.tokens[start:], draft.proposed)
            self.counters.drafted(len(draft.proposed), n_right)
            draft.settle(n_right)
            self.scheduler.settle(sequence, start + n_right)
        return stop_reason

    def _prompt_logprobs(self, sequence: Sequence, before: int) -> tuple[TokenLogprob, ...]:
        """For the first output of the first choice."""
        first = before == 0 and sequence.index == 0
        return tuple(sequence.group.prompt_logprobs) if first else ()

    def _draw(self, sequence: Sequence, row: Row) -> tuple[int, TokenLogprob | None]:
        request, sampler = sequence.group.request, sequence.sampler
        head = raw = None
        if request.logprobs is not None:
            head = Head(row, max(LIKELY, sampler.reach(len(row))))
            # Whatever else changes the row only bans tokens: what is drawn keeps its logit.
            original = self._copied(row) if sampler.adjusts else row
            raw = RawLogprobs(original, request.logprobs, self._scratch, head)
        token = sequence.thought.next() if sequence.thought is not None else None
        if token is None:
            if self._restrict(sequence, row, head):
                head = None
            token = sampler.sample(row, row if raw is None else self._scratch, head)
        return token, self._logprob(token, raw) if raw is not None else None

    def _copied(self, row: Row) -> Row:
        np.copyto(self._copy, row)
        return self._copy

    def _restrict(self, sequence: Sequence, row: Row, head: Head | None) -> bool:
        """Change the logits as the request wants; whether `head` is out of date then."""
        stale = False
        if sequence.group.request.ignore_eos:
            bound = head.bound if head is not None else np.inf
            for token in self._eog:
                stale = stale or row.item(token) >= bound
                row[token] = -np.inf
        if sequence.sampler.adjusts:
            sequence.sampler.adjust(row)
            stale = True
        if sequence.constraint is not None:
            sequence.constraint.restrict(row)
            stale = True
        return stale

    def _logprob(self, token: int, raw: RawLogprobs) -> TokenLogprob:
        data = self._vocabulary.token_bytes
        return TokenLogprob(token, data(token), raw.of(token), raw.top, data)

    def _append(
        self, sequence: Sequence, token: int, logprob: TokenLogprob | None = None
    ) -> str | int | None:
        """Add `token` to the choice and see whether that ends it; returns the stop that did."""
        request = sequence.group.request
        sequence.tokens.append(token)
        sequence.sampler.accept(token)
        if token in self._vocabulary.end_of_generation:
            sequence.finish_reason = FinishReason.STOP
            return token
        sequence.output.push(token, logprob)
        if sequence.thought is not None:
            sequence.thought.push(self._vocabulary.token_bytes(token).decode("utf-8", "replace"))
        if sequence.output.stop_string is not None:
            sequence.finish_reason = FinishReason.STOP
            return sequence.output.stop_string
        full = len(sequence.tokens) >= self._context
        if full or sequence.n_generated >= request.max_tokens:
            sequence.finish_reason = FinishReason.LENGTH
        return None

    def _append_forced(self, sequence: Sequence, constraint: Constraint) -> str | int | None:
        """Tell the constraint of the last token, and add those it leaves no choice about."""
        constraint.accept(sequence.tokens[-1])
        # With log probabilities each token needs a row of its own, so it is drawn like any other.
        forced = constraint.forced() if sequence.group.request.logprobs is None else []
        for token in forced:
            stop_reason = self._append(sequence, token)
            if sequence.finish_reason is not None:
                return stop_reason
            constraint.accept(token)
        if constraint.finished:
            sequence.finish_reason = FinishReason.STOP
        return None

    def _finish(self, sequence: Sequence, out: Outgoing) -> None:
        state = sequence.group
        self.scheduler.finish(sequence)
        state.n_finished += state.n_alike
        if state.n_finished == state.request.n:
            del self.states[state.request.id]
            out.append((state, state.done(time.monotonic())))

    def snapshot(self, waiting: int, slots: int) -> Snapshot:
        """What is going on; from any thread."""
        governor = self._governor
        return snapshot.take(
            self.scheduler,
            self._kv,
            self.counters,
            waiting=waiting,
            cells=self._context * slots,
            threads=governor.threads if governor is not None else 0,
        )

    @property
    def cache_counters(self) -> CacheCounters:
        """What prompts found of themselves."""
        return self._kv.counters

    def close(self) -> None:
        """Hand the cache to the disk, if there is one; no step follows."""

        def run(ops: list[MemoryOp]) -> CopyReport:
            self._runner.run(Batch(ops, []))
            return self._runner.take_report()

        self._kv.close(run, _FLUSH)

    def fail_all(self) -> None:
        """Forget every request and everything in memory, so that a next step can work."""
        for request_id in list(self.states):
            self.abort(request_id)
        self.scheduler.reset()
        self._runner.reset()
