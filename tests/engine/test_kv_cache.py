"""Where a prefix comes from, what is kept of an idle slot, and that the budget holds."""

from __future__ import annotations

import random

import pytest

from engine.batch import Clear, CopyReport, Drop, Restore, Save, Trim
from engine.kv_cache import KVCache
from engine.prefix_index import Held
from engine.prefix_lookup import Running
from engine.prefix_rules import Prefill
from engine.request import Request, RequestDone, SamplingParams
from tests.engine.fakes import FakeRunner, Harness, continuation, make_core

SYSTEM = [i % 60 + 1 for i in range(100)]


def release(kv: KVCache, slot: int, tokens: list[int], n_prompt: int = 0) -> None:
    kv.release(slot, Held(tokens, n_prompt=n_prompt))


def cache(slots: int = 2, **settings: object) -> KVCache:
    options: dict[str, object] = {"can_trim": True, "budget": 10_000, "bytes_per_token": 1}
    return KVCache(slots, **(options | settings))  # type: ignore[arg-type]


def test_the_next_turn_trims_its_own_slot() -> None:
    kv = cache()
    slot, cached = kv.acquire([1, 2, 3])
    assert (slot, cached) == (0, 0)
    release(kv, slot, [1, 2, 3, 9, 9])
    assert kv.acquire([1, 2, 3, 9, 7, 7]) == (0, 4)
    assert kv.take_ops() == [Trim(0, 4)]


def test_the_last_token_is_always_computed() -> None:
    kv = cache()
    release(kv, kv.acquire([1, 2, 3])[0], [1, 2, 3])
    assert kv.match_prefix([1, 2, 3]) == 2
    assert kv.acquire([1, 2, 3]) == (0, 2)
    far = cache(min_computed=64)
    release(far, far.acquire(SYSTEM)[0], SYSTEM)
    assert far.match_prefix(SYSTEM) == 36
    assert far.match_prefix(SYSTEM[:64]) == 0


def test_what_a_slot_held_moves_to_host_memory_and_back() -> None:
    kv = cache(slots=1)
    release(kv, kv.acquire(SYSTEM)[0], SYSTEM)
    release(kv, kv.acquire([7] * 50)[0], [7] * 50)
    assert kv.take_ops() == [Save(0, 1), Clear(0)]
    assert kv.acquire([*SYSTEM, 5]) == (0, 100)
    assert kv.take_ops() == [Save(0, 2), Restore(0, 1)]
    assert kv.size == 150


def test_a_better_slot_loses_nothing_worth_keeping() -> None:
    """A new conversation takes a slot for its system prompt; the old one is copied first."""
    kv = cache()
    release(kv, kv.acquire([*SYSTEM, *[7] * 50])[0], [*SYSTEM, *[7] * 50])
    assert kv.acquire([*SYSTEM, *[8] * 50]) == (0, 100)
    assert kv.take_ops() == [Save(0, 1), Trim(0, 100)]


def test_a_longer_copy_replaces_its_prefixes() -> None:
    kv = cache(slots=1)
    for end in (40, 70, 100):
        release(kv, kv.acquire(SYSTEM[:end])[0], SYSTEM[:end])
        release(kv, kv.acquire([end] * 3)[0], [])
    assert kv.size == 100
    drops = [op for op in kv.take_ops() if isinstance(op, Drop)]
    assert len(drops) == 2


def test_a_running_prefix_is_copied() -> None:
    kv = cache()
    slot, _ = kv.acquire(SYSTEM)
    running = [Running(slot, Held(SYSTEM[:90]))]
    assert kv.acquire([*SYSTEM[:80], 1, 2], running) == (1, 80)
    assert kv.take_ops() == [Save(0, 1), Restore(1, 1), Trim(1, 80)]


def test_who_waits_for_a_prefill_under_way() -> None:
    kv = cache()
    other = [*SYSTEM, 1, 2]
    assert kv.worth_waiting(other, [Prefill(SYSTEM, 10)])
    assert not kv.worth_waiting(other, [Prefill(SYSTEM, 100)]), "it can be copied now"
    assert not kv.worth_waiting(other, [Prefill([9, *SYSTEM], 10)])
    assert not kv.worth_waiting(SYSTEM[:20], [Prefill(SYSTEM, 0)]), "too short to wait for"
    release(kv, kv.acquire(SYSTEM)[0], SYSTEM[:90])
    assert not kv.worth_waiting(other, [Prefill(SYSTEM, 10)]), "most of it is there already"
    assert not cache(can_trim=False).worth_waiting(other, [Prefill(SYSTEM, 10)])


def test_the_budget_drops_the_least_recently_used() -> None:
    kv = cache(slots=1, budget=120)
    for token in (1, 2, 3):
        release(kv, kv.acquire([token] * 50)[0], [token] * 50)
    kv.acquire([9])
    assert kv.size == 100
    assert [op for op in kv.take_ops() if isinstance(op, Drop)] == [Drop(1)]
    assert kv.match_prefix([1] * 60) == 0
    assert kv.match_prefix([2] * 60) == 50


def chat(kv: KVCache, prompt: list[int], key: str = "") -> int:
    """A request with an answer of 10 tokens; returns how much of it was cached."""
    slot, cached = kv.acquire(prompt, key=key)
    held = Held([*prompt, *[61] * 10], n_prompt=len(prompt), key=key)
    kv.release(slot, held)
    return cached


def test_a_shared_prefix_outlives_what_only_one_conversation_can_use() -> None:
    kv = cache(slots=1, budget=500)
    for user in (1, 2):
        assert chat(kv, [*SYSTEM, *[user] * 50]) == (user - 1) * 100
    for other in range(3, 9):
        chat(kv, [other] * 120)
        assert kv.size <= 500
    assert kv.match_prefix([*SYSTEM, 9]) == 100
    assert kv.match_prefix([*SYSTEM, *[1] * 50]) == 100, "the tails are gone"
    assert kv.match_prefix([7] * 200) == 120, "the least recently used tail went first"
    assert kv.match_prefix([4] * 200) == 0


def test_the_next_turn_of_one_conversation_shares_nothing() -> None:
    kv = cache(slots=1, budget=500)
    chat(kv, [1] * 100)
    assert chat(kv, [*[1] * 100, *[62] * 40]) == 100, "the answer came back in other tokens"
    for other in range(3, 9):
        chat(kv, [other] * 120)
    assert kv.match_prefix([1] * 150) == 0


def test_shared_prefixes_take_at_most_half() -> None:
    kv = cache(slots=1, budget=500)
    for system in range(1, 7):
        for user in (40, 41):
            chat(kv, [*[system] * 80, *[user] * 40])
    assert kv.size <= 500
    kept = [system for system in range(1, 7) if kv.match_prefix([system] * 200) >= 80]
    assert 1 not in kept, "nobody began with it for long"
    assert kept[-2:] == [5, 6]
    chat(kv, [50] * 120)
    chat(kv, [51] * 120)
    assert kv.match_prefix([50] * 200) == 120, "a tail still has room"


def test_a_key_keeps_its_family() -> None:
    kv = cache(slots=1, budget=400)
    chat(kv, [1] * 100, key="mine")
    for other in range(2, 9):
        chat(kv, [other] * 100)
        chat(kv, [9, 8, 7], key="mine")
    assert kv.match_prefix([1] * 150) == 100
    assert kv.match_prefix([4] * 150) == 0


def test_what_costs_more_to_copy_than_to_compute_is_computed() -> None:
    kv = cache(slots=1)
    release(kv, kv.acquire(SYSTEM)[0], SYSTEM)
    release(kv, kv.acquire([7] * 50)[0], [7] * 50)
    slow = CopyReport(n_bytes=100, seconds=1.0)
    kv.learn(slow, prompt_token=0.02)
    assert kv.acquire([*SYSTEM, 5]) == (0, 100), "2 s of computing, 1 s of copying"
    release(kv, 0, [])
    kv.learn(slow, prompt_token=0.002)
    assert kv.acquire([*SYSTEM, 5]) == (0, 0)


def test_running_slots_stay_neighbours() -> None:
    kv = cache(slots=5)
    for prompt in ([1], [2], [3], SYSTEM):
        kv.acquire(prompt)
    release(kv, 3, SYSTEM)
    release(kv, 1, [2])
    release(kv, 2, [3] * 40)
    kv.take_ops()
    assert kv.acquire([8, 8]) == (1, 0), "slot 1 is beside slot 0, and has less to lose than 4"
    assert kv.acquire([*SYSTEM, 5]) == (2, 100), "slot 3 would leave a gap: its tokens move"
    assert kv.take_ops() == [Clear(1), Save(3, 1), Save(2, 2), Restore(2, 1)]


def test_without_a_budget_nothing_is_copied() -> None:
    kv = cache(slots=1, budget=0)
    release(kv, kv.acquire(SYSTEM)[0], SYSTEM)
    kv.acquire([7])
    assert kv.take_ops() == [Clear(0)]


def test_memory_that_cannot_be_trimmed_is_reused_whole_or_not() -> None:
    kv = cache(can_trim=False)
    release(kv, kv.acquire(SYSTEM)[0], SYSTEM)
    assert kv.match_prefix([*SYSTEM[:50], 1, 2]) == 0
    assert kv.match_prefix([*SYSTEM, 1, 2]) == 100
    assert kv.acquire([*SYSTEM[:50], 1, 2]) == (1, 0)
    assert kv.acquire([*SYSTEM, 1, 2]) == (0, 100)
    assert kv.take_ops() == []


def test_the_unified_layout_clears_idle_slots() -> None:
    kv = cache(retain=False)
    release(kv, kv.acquire(SYSTEM)[0], SYSTEM)
    assert kv.take_ops() == [Save(0, 1), Clear(0)]
    assert kv.acquire([*SYSTEM, 3])[1] == 100


def request(name: str, prompt: list[int], **fields: object) -> Request:
    greedy = SamplingParams(temperature=1e-5)
    options: dict[str, object] = {"max_tokens": 6, "sampling": greedy} | fields
    return Request(id=name, prompt=prompt, **options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("copying_pays")
def test_eight_users_with_one_new_system_prompt_compute_it_once() -> None:
    runner = FakeRunner(slots=8)
    harness = Harness(make_core(runner, ubatch_size=16))
    prompts = {f"u{i}": [*SYSTEM, i + 1, 5] for i in range(8)}
    answers = {name: harness.add(request(name, prompt)) for name, prompt in prompts.items()}
    harness.run()
    for name, prompt in prompts.items():
        assert answers[name].texts == {0: continuation(prompt, 6)}
    computed = sum(batch.n_tokens for batch in runner.batches)
    assert computed == 102 + 7 * 2 + 8 * 5
    ends = [answer.end for answer in answers.values()]
    cached = sorted(end.usage.cached_tokens for end in ends if isinstance(end, RequestDone))
    assert cached == [0] + [100] * 7


def test_an_aborted_leader_does_not_leave_its_followers_waiting() -> None:
    runner = FakeRunner(slots=4)
    harness = Harness(make_core(runner, ubatch_size=16))
    harness.add(request("leader", [*SYSTEM, 1]))
    followers = {f"f{i}": [*SYSTEM, i + 2] for i in range(3)}
    answers = {name: harness.add(request(name, prompt)) for name, prompt in followers.items()}
    harness.step()
    harness.core.abort("leader")
    harness.run()
    for name, prompt in followers.items():
        assert answers[name].texts == {0: continuation(prompt, 6)}


@pytest.mark.usefixtures("copying_pays")
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("can_trim", "window"), [(True, 0), (False, 0), (True, 40)])
def test_conversations_under_eviction_aborts_and_failures(
    seed: int, can_trim: bool, window: int
) -> None:
    """Every answer is the model's own continuation of exactly its prompt: no other's context."""
    rng = random.Random(seed)
    runner = FakeRunner(slots=3)
    runner.can_trim, runner.window = can_trim, window
    kv = KVCache(
        3,
        can_trim=can_trim,
        window=window,
        min_computed=2,
        align=4,
        budget=600,
        bytes_per_token=1,
    )
    harness = Harness(make_core(runner, ubatch_size=24, kv_cache=kv))
    systems = [[rng.randrange(1, 64) for _ in range(70)] for _ in range(3)]
    history = {user: list(rng.choice(systems)) for user in range(6)}
    expected: dict[str, str] = {}
    for turn in range(25):
        for user in rng.sample(range(6), 4):
            message = [rng.randrange(1, 64) for _ in range(rng.randrange(1, 30))]
            prompt = history[user] + message
            name = f"{turn}-{user}"
            expected[name] = continuation(prompt, 5)
            fields = {"n": rng.choice([1, 1, 2]), "checkpoints": (70, len(prompt) - 3)}
            harness.add(request(name, prompt, max_tokens=5, **fields))
            history[user] = prompt + [ord(letter) - 64 for letter in expected[name]]
            if len(history[user]) > 180:
                history[user] = list(rng.choice(systems))
        for _ in range(rng.randrange(1, 12)):
            if harness.core.scheduler.has_work:
                harness.step()
        if rng.random() < 0.3 and harness.core.states:
            gone = rng.choice(list(harness.core.states))
            harness.core.abort(gone)
            del expected[gone]
        if rng.random() < 0.1 and harness.core.scheduler.has_work:
            runner.fail_next = True
            with pytest.raises(RuntimeError):
                harness.step()
            for lost in harness.core.states:
                del expected[lost]
            harness.core.fail_all()
        assert kv.size <= 600
    harness.run()
    ends = [answer.end for answer in harness.answers.values()]
    cached = [end.usage.cached_tokens for end in ends if isinstance(end, RequestDone)]
    assert sum(each >= 64 for each in cached) >= len(cached) / 2
    for name, text in expected.items():
        assert set(harness.answers[name].texts.values()) == {text}
    assert kv.n_idle == 3


def test_a_reset_finds_every_slot_idle_again() -> None:
    kv = cache()
    kv.acquire(SYSTEM)  # for a request that failed before it had the slot
    assert kv.n_idle == 1
    kv.forget()
    assert kv.idle_tokens() == {0: 0, 1: 0}
