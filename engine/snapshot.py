"""What an engine is doing, as one value: for people who look, never for decisions."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from engine.counters import Counters
from engine.kv_cache import KVCache
from engine.scheduler import Scheduler
from engine.sequence import Sequence


class SlotState(Struct, frozen=True, kw_only=True):
    """One slot. `tokens` are those whose KV it holds; the request's fields are of a busy one."""

    slot: int
    state: Literal["idle", "prefill", "decode"]
    tokens: int
    request: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0


class CacheState(Struct, frozen=True, kw_only=True):
    """Prefixes beside the slots; `usage` is the part of all cells that running requests fill."""

    usage: float
    copies: int
    copied_tokens: int
    copied_bytes: int
    budget_bytes: int
    files: int
    queried_tokens: int
    hit_tokens: dict[str, int]


class Snapshot(Struct, frozen=True, kw_only=True):
    """Of one moment, give or take the step that was running."""

    running: int
    waiting: int
    slots: list[SlotState]
    cache: CacheState
    steps: int
    step_seconds: float
    prompt_tokens: int
    generated_tokens: int
    draft_tokens: int
    """Predicted tokens that were computed ahead."""
    accepted_tokens: int
    threads: int


def take(
    scheduler: Scheduler,
    kv_cache: KVCache,
    counters: Counters,
    *,
    waiting: int,
    cells: int,
    threads: int,
) -> Snapshot:
    """From any thread: the lists are copied before they are walked."""
    busy = [_busy(sequence) for sequence in list(scheduler.running.values())]
    idle = [SlotState(slot=s, state="idle", tokens=n) for s, n in kv_cache.idle_tokens().items()]
    return Snapshot(
        running=len(busy),
        waiting=waiting,
        slots=sorted(busy + idle, key=lambda each: each.slot),
        cache=_cache(kv_cache, sum(each.tokens for each in busy) / cells),
        steps=counters.steps.total,
        step_seconds=counters.steps.sum,
        prompt_tokens=counters.prompt_tokens,
        generated_tokens=counters.generated_tokens,
        draft_tokens=counters.draft_tokens,
        accepted_tokens=counters.accepted_tokens,
        threads=threads,
    )


def _busy(sequence: Sequence) -> SlotState:
    return SlotState(
        slot=sequence.slot,
        state="decode" if sequence.decoding else "prefill",
        tokens=sequence.n_computed,
        request=sequence.group.request.id,
        prompt_tokens=len(sequence.group.request.prompt),
        cached_tokens=sequence.group.cached_tokens,
        generated_tokens=sequence.n_generated,
    )


def _cache(kv_cache: KVCache, usage: float) -> CacheState:
    copies = kv_cache.copy_tokens()
    return CacheState(
        usage=round(usage, 6),
        copies=len(copies),
        copied_tokens=sum(copies),
        copied_bytes=kv_cache.size,
        budget_bytes=kv_cache.budget,
        files=kv_cache.n_files,
        queried_tokens=kv_cache.counters.queried_tokens,
        hit_tokens=dict(kv_cache.counters.hit_tokens),
    )
