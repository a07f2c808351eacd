"""Whose turn it is: users in turn, priorities first, nobody starves."""

from __future__ import annotations

import pytest

from engine.request import Priority
from engine.sequence import RequestState
from engine.waiting import PATIENCE, WaitingQueue
from tests.engine.fakes import FakeRunner, Harness, continuation, make_core, request


def test_users_take_turns_and_priorities_come_first() -> None:
    harness = Harness(make_core(FakeRunner(slots=1)))
    for i in range(3):
        harness.add(request(f"hog{i}", [1, i + 1], 1, user="hog"))
    harness.add(request("guest", [2, 1], 1, user="guest"))
    harness.add(request("flex", [2, 2], 1, priority=Priority.FLEX))
    harness.add(request("first", [2, 3], 1, priority=Priority.HIGH))
    ended: list[str] = []
    while harness.core.scheduler.has_work:
        harness.step()
        ended += [
            name for name, answer in harness.answers.items() if answer.end and name not in ended
        ]
    assert ended == ["first", "hog0", "guest", "hog1", "hog2", "flex"]


def order_of_ends(harness: Harness) -> list[str]:
    """Names in the order in which requests end."""
    ended: list[str] = []
    while harness.core.scheduler.has_work:
        harness.step()
        ended += [name for name, each in harness.answers.items() if each.end and name not in ended]
    return ended


def test_a_user_with_fifty_requests_holds_up_nobody() -> None:
    harness = Harness(make_core(FakeRunner(slots=2)))
    for i in range(50):
        harness.add(request(f"hog{i}", [1, i + 1], 2, user="hog"))
    harness.step()
    for i in range(5):
        harness.add(request(f"guest{i}", [2, i + 1], 2, user=f"guest{i}"))
    ended = order_of_ends(harness)
    last = max(ended.index(f"guest{i}") for i in range(5))
    assert last <= 2 + 6 + 1, "those at work, and one round of six users"


def test_choices_of_a_big_n_stand_in_line_like_requests() -> None:
    harness = Harness(make_core(FakeRunner(slots=2)))
    big = harness.add(request("big", [9, 8, 7], 3, n=128, user="big"))
    harness.step()
    harness.step()
    for i in range(6):
        harness.add(request(f"other{i}", [2, i + 1], 3, user=f"user{i % 3}"))
    while not all(harness.answers[f"other{i}"].end for i in range(6)):
        harness.step()
    assert len(big.texts) <= 8, "of four users in turn, six admissions of the others leave few"
    harness.run()
    assert big.texts == dict.fromkeys(range(128), continuation([9, 8, 7], 3))


@pytest.mark.parametrize("low", [Priority.FLEX, Priority.NORMAL])
def test_a_low_priority_gets_its_turn_beside_endless_traffic(low: Priority) -> None:
    harness = Harness(make_core(FakeRunner(slots=1)))
    for i in range(60):
        harness.add(request(f"busy{i}", [1, 1 + i], 1, priority=Priority.HIGH, user=f"{i % 7}"))
    for i in range(3):
        harness.add(request(f"low{i}", [2, 1 + i], 1, priority=low))
    ended = order_of_ends(harness)
    places = [ended.index(f"low{i}") for i in range(3)]
    assert places == [PATIENCE, 2 * PATIENCE + 1, 3 * PATIENCE + 2]


def test_its_length_follows_whoever_comes_and_goes() -> None:
    queue = WaitingQueue()
    hogs = [RequestState(request(f"hog{i}", [1], 1, user="hog"), 0.0) for i in range(3)]
    guest = RequestState(request("guest", [1], 1, user="guest"), 0.0)
    for state in (*hogs, guest):
        queue.push(state)
    assert queue
    assert len(queue) == 4
    assert queue.remove(hogs[1])
    assert not queue.remove(hogs[1])
    assert len(queue) == 3
    assert queue.pop(lambda _: False) is None
    assert len(queue) == 3
    first = queue.pop(lambda _: True)
    assert first is hogs[0]
    queue.push_choices(first)
    assert [queue.pop(lambda _: True) for _ in range(4)] == [guest, hogs[0], hogs[2], None]
    assert not queue
    assert len(queue) == 0
