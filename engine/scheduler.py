"""Decides who runs and how many tokens of each make up the next step. Never sees a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter

from msgspec import Struct

from engine.batch import Batch, Drop, Restore, Rows, Save, Span, Trim
from engine.costs import StepCosts
from engine.draft_budget import DraftBudget
from engine.exact import CHUNK, whole_chunks
from engine.kv_cache import KVCache
from engine.lora import LoraSet, LoraTurns
from engine.prefix_lookup import Running
from engine.prefix_rules import Prefill
from engine.prompt_rows import PromptRows
from engine.sequence import RequestState, Sequence
from engine.waiting import WaitingQueue

PROMPT_ALIGNMENT = 16
"""Prompts are computed in pieces of multiples of this: kernels work on groups of rows."""

MIN_ROWS = 8
"""Fewer rows in a pass take other kernels (measured on Gemma 3: up to 7, on SmolLM2: 1): no prompt
ends in such a piece, or its bits would depend on where it was cut."""


MOST_BRANCHING = 4
"""Requests whose further choices wait at a time: each keeps a copy of its prompt's state."""


LONGEST_STEP = 1.0
"""Seconds of computing a prompt between two looks at the inbox."""


class Step(Struct):
    """A batch and, span by span, whose it is."""

    batch: Batch
    sequences: list[Sequence]
    n_decode: int
    n_drafted: int = 0
    """Tokens that were only predicted."""
    whole: list[Sequence] = []
    """Admitted with nothing to compute: the logits after their prompt are known."""

    @property
    def n_prompt(self) -> int:
        """Tokens of prompts in the batch."""
        if self.n_decode == len(self.sequences):
            return 0
        pairs = zip(self.sequences, self.batch.spans, strict=True)
        return sum(len(span.tokens) for sequence, span in pairs if not sequence.decoding)


class Scheduler:
    """Owns the waiting queue and the running sequences."""

    def __init__(
        self,
        kv_cache: KVCache,
        *,
        context: int,
        batch_size: int,
        ubatch_size: int,
        max_rows: int,
        max_stall: float,
        new_choices: Callable[[RequestState], list[Sequence]],
        rows: PromptRows,
        deterministic: bool = False,
    ) -> None:
        """`max_stall` is the time, in seconds, a step may take while anyone is decoding.
        `deterministic` cuts prompts and reuses prefixes as `engine.exact` says."""
        self.waiting = WaitingQueue()
        self.running: dict[int, Sequence] = {}
        """Slot → sequence."""
        self.costs = StepCosts()
        self._kv = kv_cache
        self._draft_budget = DraftBudget(
            context, min(batch_size, ubatch_size), max_rows, max_stall, self.costs
        )
        self._batch_size = batch_size
        self._ubatch_size = ubatch_size
        self._max_rows = max_rows
        self._max_stall = max_stall
        self._new_choices = new_choices
        self._rows = rows
        self._whole: list[Sequence] = []
        self._deterministic = deterministic
        self._alignment = CHUNK if deterministic else PROMPT_ALIGNMENT
        self._copying = 0.0
        """Seconds that the copies of this step will take."""
        self._branching: set[RequestState] = set()
        """Admitted, but not with all their choices."""
        self._turns = LoraTurns()

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.running or self.waiting)

    def add(self, state: RequestState) -> None:
        """Put a new request in line."""
        self.waiting.push(state)

    def admit(self) -> Iterator[Sequence]:
        """Give free slots to who is next in line. Yields further choices of a request whose prompt
        is computed: each can draw its first token, and may be over with it. While anyone decodes
        the copies of one step are bounded by `max_stall`, but for one."""
        self._kv.poll()
        self._copying = 0.0
        while self.waiting and self._kv.n_idle:
            if self._copying >= self._max_stall and self._anyone_decodes():
                return
            state = self.waiting.pop(self._can_start)
            if state is None:
                return
            if state.saved is not None:
                self._copying += self._kv.copy_seconds(len(state.request.prompt))
                yield self._start_choice(state, state.saved)
                self._queue_choices(state)
                continue
            state.choices = self._new_choices(state)
            state.unstarted = state.choices[1:]
            if state.unstarted:
                self._branching.add(state)
            self._place(state)
            self._copying += self._kv.copy_seconds(state.cached_tokens)

    def _anyone_decodes(self) -> bool:
        return any(each.decoding for each in self.running.values())

    def _start_choice(self, state: RequestState, saved: int) -> Sequence:
        sequence = state.unstarted.pop(0)
        n_computed = len(state.request.prompt)
        self._start(sequence, self._kv.take_for(n_computed), n_computed)
        self._kv.queue(Restore(sequence.slot, saved))
        return sequence

    def _queue_choices(self, state: RequestState) -> None:
        """Choices that want a slot stand in line like requests."""
        if state.unstarted:
            self.waiting.push_choices(state)
            return
        self._branching.discard(state)
        if state.saved is not None:
            self._kv.queue(Drop(state.saved))
            state.saved = state.prompt_row = None

    def _start(self, sequence: Sequence, slot: int, n_computed: int) -> None:
        sequence.slot, sequence.n_computed = slot, n_computed
        self.running[slot] = sequence

    def schedule(self) -> Step:
        """Take every decoding token and as much of the prompts as is due; after `admit`."""
        lora, active = self._whose_turn()
        return self._plain_step(lora, active) or self._mixed_step(lora, active)

    def _plain_step(self, lora: LoraSet, active: list[Sequence]) -> Step | None:
        """One token of each, if that is all there can be to do."""
        if len(active) > self._batch_size:
            return None
        spans = []
        for each in sorted(active, key=attrgetter("slot")):
            start = each.n_computed
            if len(each.tokens) != start + 1 or not each.decoding or each.draft is not None:
                return None
            spans.append(Span(each.slot, start, each.tokens[start:], Rows.LAST))
        sequences = [self.running[span.slot] for span in spans]
        whole, self._whole = self._whole, []
        return Step(Batch(self._kv.take_ops(), spans, lora), sequences, len(spans), whole=whole)

    def _mixed_step(self, lora: LoraSet, active: list[Sequence]) -> Step:
        decoding = [each for each in active if each.decoding]
        shares = self._decode_shares(decoding)
        watched = any(each.decoding and each.draft is None for each in self.running.values())
        drafts = self._draft_budget.drafts(active, shares, stalls=watched)
        n_drafted = sum(map(len, drafts.values()))
        n_decode = sum(shares.values()) + n_drafted
        budget = self._prompt_budget(n_decode, stalls=self._anyone_decodes())
        # Every other sequence may want one row.
        rows = self._max_rows - (len(active) - 1)
        prompts = (each for each in active if not each.decoding)
        for sequence in sorted(prompts, key=lambda each: each.group.submitted):
            if sequence.wants_prompt_rows:
                share = self._share(sequence, min(budget, rows))
                rows -= share
            else:
                share = self._share(sequence, budget)
            shares[sequence.slot] = share
            budget -= share
        batch = Batch(self._kv.take_ops(), [], lora)
        step = Step(batch, [], len(decoding), n_drafted, self._whole)
        self._whole = []
        for slot, n_tokens in sorted(shares.items()):
            if n_tokens:
                step.sequences.append(self.running[slot])
                span = self._span(self.running[slot], n_tokens, drafts.get(slot))
                step.batch.spans.append(span)
        return step

    def _decode_shares(self, decoding: list[Sequence]) -> dict[int, int]:
        """Slot → tokens: one each, and those that a grammar forces as far as there is room."""
        shares = {each.slot: min(each.n_waiting, self._ubatch_size) for each in decoding}
        excess = sum(shares.values()) - self._batch_size
        for slot, share in shares.items() if excess > 0 and not self._deterministic else ():
            shares[slot] = max(1, share - excess)
            excess -= share - shares[slot]
        return shares

    def _share(self, sequence: Sequence, most: int) -> int:
        """Up to `most` tokens of a prompt, cut where every prompt is cut."""
        if sequence.n_until_pause <= most:
            return sequence.n_until_pause
        if not self._deterministic and most < self._alignment:
            return most  # A tiny batch is slow, but must not stop.
        share = most // self._alignment * self._alignment
        if sequence.n_until_pause - share < MIN_ROWS and not self._deterministic:
            share -= self._alignment if share > self._alignment else MIN_ROWS
        return share

    def _whose_turn(self) -> tuple[LoraSet, list[Sequence]]:
        """A step has one set of adapters: who runs with it."""
        by_set: dict[LoraSet, list[Sequence]] = {}
        for each in self.running.values():
            by_set.setdefault(each.group.lora, []).append(each)
        if not by_set:
            return (), []
        lora = self._turns.next(by_set)
        return lora, by_set[lora]

    def _place(self, state: RequestState) -> None:
        """Give a request the slot where the most of its prompt can be had."""
        request, leader = state.request, state.choices[0]
        if self._place_whole(state):
            return
        slot, state.cached_tokens = self._kv.acquire(
            _reusable(state), self._holders(), state.lora, request.cache_key
        )
        leader.pauses = [
            length
            for length in self._kv.checkpoints(request.prompt, request.checkpoints)
            if length > state.cached_tokens
        ]
        self._start(leader, slot, state.cached_tokens)

    def _place_whole(self, state: RequestState) -> bool:
        """Whether the same prompt was here before, its logits are kept, and a slot has the rest."""
        prompt = _reusable(state)
        if self._deterministic and len(prompt) % CHUNK:
            return False  # Its last tokens may be there as part of another one's whole chunk.
        row = self._rows.get(prompt, state.lora)
        slot = None
        if row is not None:
            slot = self._kv.take_whole(prompt, state.lora, state.request.cache_key)
        if slot is None:
            return False
        state.prompt_row, state.cached_tokens = row, len(prompt)
        self._start(state.choices[0], slot, len(prompt))
        self._whole.append(state.choices[0])
        return True

    def _holders(self) -> list[Running]:
        running = self.running.values()
        if not self._deterministic:
            return [Running(each.slot, each.held) for each in running]
        if not self._kv.can_trim:
            return []
        return [Running(each.slot, whole_chunks(each), more=True) for each in running]

    def _can_start(self, state: RequestState) -> bool:
        """Not while its prefix is read from disk, nor while another request computes a long
        prefix of the same prompt: then copy that."""
        if state.saved is not None:
            return True
        if state.request.n > state.n_alike and len(self._branching) >= MOST_BRANCHING:
            return False
        if not state.asked_disk:
            state.asked_disk = True
            state.fetch = self._kv.fetch(_reusable(state), self._holders(), state.lora)
        if state.fetch is not None and state.fetch.pending:
            return False
        prefills = [
            Prefill(each.group.request.prompt, each.n_computed, each.group.lora, each.pauses)
            for each in self.running.values()
            if not each.decoding
        ]
        return not self._kv.worth_waiting(_reusable(state), prefills, state.lora)

    def _prompt_budget(self, n_decode: int, stalls: bool) -> int:
        """Tokens of prompts in this step, at most one pass through the graph. While nobody waits
        for a token (`stalls`), only that someone who hangs up is noticed bounds it."""
        room = self._batch_size - (0 if self._deterministic else n_decode)
        stall = self._max_stall if stalls else max(self._max_stall, LONGEST_STEP)
        # Of a machine that is not known yet, the least that tells how fast it is.
        default = PROMPT_ALIGNMENT if stalls else 16 * PROMPT_ALIGNMENT
        due = self.costs.affordable(stall - self._copying, default)
        due = min(due, self._ubatch_size, room) // self._alignment * self._alignment
        # Alone, no fewer rows than flash attention's fast path needs.
        least = self._alignment if stalls else max(self._alignment, 4 * PROMPT_ALIGNMENT)
        return max(min(least, self._ubatch_size, room), due)

    def _span(self, sequence: Sequence, n_tokens: int, draft: list[int] | None = None) -> Span:
        start, end = sequence.n_computed, sequence.n_computed + n_tokens
        if draft:
            return Span(sequence.slot, start, sequence.tokens[start:end] + draft, Rows.ALL)
        rows = Rows.LAST if end == len(sequence.tokens) else Rows.NONE
        if sequence.wants_prompt_rows and not sequence.decoding:
            rows = Rows.ALL
        return Span(sequence.slot, start, sequence.tokens[start:end], rows)

    def update(self, step: Step) -> list[tuple[Sequence, Span]]:
        """Note what the step computed; returns the spans that have rows, in its order."""
        ready = []
        for sequence, span in zip(step.sequences, step.batch.spans, strict=True):
            sequence.n_computed = span.start + len(span.tokens)
            if sequence.pauses and sequence.pauses[0] == sequence.n_computed:
                sequence.pauses.pop(0)
                self._kv.checkpoint(sequence.slot, sequence.held)
            if span.n_rows:
                ready.append((sequence, span))
        return ready

    def settle(self, sequence: Sequence, n_right: int) -> None:
        """Of what was computed the first `n_right` tokens are the choice's: the rest goes."""
        if n_right < sequence.n_computed:
            self._kv.queue(Trim(sequence.slot, n_right))
            sequence.n_computed = n_right

    def fork(self, leader: Sequence) -> None:
        """The leader's prompt is computed: keep its state for the other choices of the request."""
        state = leader.group
        state.saved = self._kv.new_handle()
        self._kv.queue(Save(leader.slot, state.saved))
        self._queue_choices(state)

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out; its slot keeps what it holds until somebody else needs it."""
        if self.running.get(sequence.slot) is sequence:
            del self.running[sequence.slot]
            if self._deterministic:
                self._kv.release(sequence.slot, whole_chunks(sequence), more=True)
            else:
                drafted = sequence.n_waiting < 0
                self._kv.release(sequence.slot, sequence.held, more=drafted)

    def remove(self, state: RequestState) -> None:
        """Forget a request wherever it is: waiting, in prefill, decoding or partly started."""
        self.waiting.remove(state)
        state.unstarted = []
        self._queue_choices(state)
        for sequence in state.choices:
            self.finish(sequence)

    def reset(self) -> None:
        """Forget everything that runs or is cached; the memory behind it is reset elsewhere."""
        for sequence in list(self.running.values()):
            self.finish(sequence)
        self._whole.clear()
        self._branching.clear()
        self._kv.forget()


def _reusable(state: RequestState) -> list[int]:
    """Of the prompt, what may come from elsewhere: memory keeps no logits."""
    return state.request.prompt if state.request.prompt_logprobs is None else []
