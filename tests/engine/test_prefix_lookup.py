"""Which source a prompt's prefix comes from, and whose tokens give way for it."""

from __future__ import annotations

import pytest

from engine.batch import Clear, CopyReport, Restore, Save, Trim
from engine.kv_cache import KVCache
from engine.prefix_index import Held
from engine.prefix_rules import Prefill
from engine.request import Request, SamplingParams
from tests.engine.fakes import FakeRunner, Harness, continuation, make_core

SHARED = list(range(1, 33))
"""What a chat template begins every short prompt with."""


def short(name: int) -> list[int]:
    """A prompt of 43 tokens that shares 32 with the others."""
    return [*SHARED, *[name] * 11]


def cache(slots: int, prompt_token: float | None = 0.001, copied_byte: float = 1e-6) -> KVCache:
    """Copies a thousand times as fast as it computes, unless told otherwise."""
    kv = KVCache(slots, can_trim=True, budget=10_000, bytes_per_token=1)
    kv.learn(CopyReport(n_bytes=1_000, seconds=1_000 * copied_byte), prompt_token)
    return kv


def hold(kv: KVCache, prompt: list[int], n_answer: int = 0) -> int:
    """A request that came and went; returns its slot."""
    slot, _ = kv.acquire(prompt)
    kv.release(slot, Held([*prompt, *[61] * n_answer], n_prompt=len(prompt)))
    return slot


def test_a_short_prompt_is_not_trimmed_away_while_a_slot_is_empty() -> None:
    kv = cache(slots=3)
    hold(kv, short(40))
    kv.take_ops()
    assert kv.acquire(short(41)) == (1, 32)
    assert kv.take_ops() == [Save(0, 1), Restore(1, 1), Trim(1, 32)]
    assert kv.acquire(short(42)) == (2, 32), "from the copy there is by now"
    assert kv.take_ops() == [Restore(2, 1), Trim(2, 32)]
    assert kv.take_whole(short(40)) == 0


@pytest.mark.parametrize(
    ("prompt_token", "copied_byte"), [(None, 1e-6), (0.001, 1.0)], ids=["unknown", "slow"]
)
def test_it_is_where_a_copy_takes_longer(prompt_token: float | None, copied_byte: float) -> None:
    kv = cache(3, prompt_token, copied_byte)
    hold(kv, short(40))
    assert kv.acquire(short(41)) == (0, 32)
    assert kv.take_ops() == [Trim(0, 32)]


def test_the_next_turn_stays_in_its_slot_though_the_answer_goes() -> None:
    kv = cache(slots=3)
    hold(kv, short(40), n_answer=20)
    assert kv.acquire([*short(40), *[9] * 30]) == (0, 43)
    assert kv.take_ops() == [Trim(0, 43)]


def test_a_few_tokens_in_common_move_nobody() -> None:
    kv = cache(slots=2)
    talk = [*SHARED[:4], *[50] * 20]
    hold(kv, talk)
    assert kv.acquire([*SHARED[:4], *[51] * 20]) == (1, 0)
    assert kv.take_ops() == []
    assert kv.match_prefix([*talk, 1]) == len(talk)


def test_where_all_slots_are_taken_the_oldest_gives_way() -> None:
    kv = cache(slots=3)
    for name in (40, 41, 42):
        hold(kv, [name] * 30)
    hold(kv, [40] * 31)
    kv.take_ops()
    assert kv.acquire([60] * 30) == (1, 0)
    assert kv.take_ops() == [Clear(1)]


def test_a_gap_between_slots_at_work_is_filled_first() -> None:
    kv = cache(slots=5)
    for name in range(4):
        kv.acquire([name] * 3)
    kv.release(1, Held([1] * 3))
    assert kv.acquire([8] * 3) == (1, 0), "slot 4 is beside a busy one, slot 1 between two"


@pytest.mark.parametrize(("weights", "waits"), [(0.02, True), (0.2, False)])
def test_nobody_waits_longer_than_it_takes_to_compute(weights: float, waits: bool) -> None:
    kv = cache(slots=2)
    kv.learn(CopyReport(), 0.001, weights)
    prompt = [*SHARED, *SHARED, *[7] * 11]
    assert kv.worth_waiting(prompt, [Prefill([*SHARED, *SHARED, *[8] * 11], 0)]) is waits


@pytest.mark.usefixtures("copying_pays")
@pytest.mark.parametrize("users", [4, 16])
def test_users_with_a_short_prompt_each_compute_it_once(users: int) -> None:
    runner = FakeRunner(slots=16)
    harness = Harness(make_core(runner, batch_size=256, ubatch_size=256))
    computed = []
    for turn in range(5):
        for user in range(users):
            harness.add(
                Request(
                    id=f"{turn}-{user}",
                    prompt=short(40 + user),
                    max_tokens=1,
                    sampling=SamplingParams(temperature=0),
                    user=f"{user}",
                )
            )
        runner.batches.clear()
        harness.run()
        computed.append(sum(batch.n_tokens for batch in runner.batches))
        for user in range(users):
            text = harness.answers[f"{turn}-{user}"].texts[0]
            assert text == continuation(short(40 + user), 1)
    assert computed == [43 + 11 * (users - 1), 0, 0, 0, 0]
