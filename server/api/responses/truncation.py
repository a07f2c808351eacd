"""truncation: auto. The oldest turns make room, found by bisection: one rendering per halving."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from engine.errors import ContextLengthExceeded
from server.api.responses.items import Turn

T = TypeVar("T")


async def longest_fitting(
    turns: Sequence[Turn], attempt: Callable[[list[Turn]], Awaitable[T]]
) -> tuple[T, int]:
    """What `attempt` makes of as many of the newest turns as fit, and how many were dropped.

    System messages stay, and so does the last turn. Raises ContextLengthExceeded if these alone
    do not fit.
    """
    old = [index for index, turn in enumerate(turns[:-1]) if turn.message.role not in KEPT]
    refused: ContextLengthExceeded | None = None
    made: tuple[T, int] | None = None
    low, high = 1, len(old)
    while low <= high:
        middle = (low + high) // 2
        left = without(turns, set(old[:middle]))
        try:
            made = await attempt(left), len(turns) - len(left)
            high = middle - 1
        except ContextLengthExceeded as error:
            refused = error
            low = middle + 1
    if made is None:
        raise refused or await _refusal(turns, attempt)
    return made


KEPT = ("system", "developer")


def without(turns: Sequence[Turn], dropped: set[int]) -> list[Turn]:
    """The turns that stay; a result goes with its call."""
    calls: set[str | None] = set()
    left = []
    for index, turn in enumerate(turns):
        message = turn.message
        if index in dropped or (message.role == "tool" and message.tool_call_id not in calls):
            continue
        calls.update(call.id for call in message.tool_calls or ())
        left.append(turn)
    return left


async def _refusal(
    turns: Sequence[Turn], attempt: Callable[[list[Turn]], Awaitable[T]]
) -> ContextLengthExceeded:
    """The error of a conversation that has nothing to drop."""
    try:
        await attempt(list(turns))
    except ContextLengthExceeded as error:
        return error
    raise AssertionError("it fits after all")
