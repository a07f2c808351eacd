"""The queue for a slot: by priority, then one request of each user in turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from engine.request import Priority
from engine.sequence import RequestState

PATIENCE = 8
"""Admissions of higher priorities after which a lower one gets its turn."""


class WaitingQueue:
    """Requests without a slot, and those of which further choices want one.

    Users take turns within a priority, and within a user it is first come, first served: with U
    users waiting, the k-th in a user's line is admitted after at most k × U admissions of its
    priority, however many requests the others have, or choices: each choice after the first stands
    in line by itself, where its request stood. Nobody starves below a busy priority: of
    PATIENCE + 1 admissions at most PATIENCE pass over a lower one that could start (one more where
    two lower ones wait).
    """

    def __init__(self) -> None:
        self._users: dict[Priority, OrderedDict[str, deque[RequestState]]] = {
            priority: OrderedDict() for priority in Priority
        }
        self._passed: dict[Priority, int] = dict.fromkeys(Priority, 0)
        """How often somebody with a higher priority came first since its last turn."""

    def __len__(self) -> int:
        return sum(len(queue) for users in self._users.values() for queue in users.values())

    def __bool__(self) -> bool:
        # Asked every step: a user without requests is not kept, so no line needs a look.
        return any(self._users.values())

    def push(self, state: RequestState) -> None:
        """Add at the end of its user's line."""
        self._line(state).append(state)

    def push_choices(self, state: RequestState) -> None:
        """Add a request, admitted before, that has further choices to start."""
        self._line(state).appendleft(state)

    def _line(self, state: RequestState) -> deque[RequestState]:
        users = self._users[state.request.priority]
        return users.setdefault(state.request.user, deque())

    def pop(self, can_start: Callable[[RequestState], bool]) -> RequestState | None:
        """The next request that can start; its user goes to the end of the round."""
        for priority in self._order():
            users = self._users[priority]
            for user, queue in users.items():
                if can_start(queue[0]):
                    self._note_turn(priority)
                    users.move_to_end(user)
                    return self._take(users, user)
        return None

    def _order(self) -> Iterator[Priority]:
        """Who was passed over often enough, then by priority."""
        yield from (each for each in Priority if self._passed[each] >= PATIENCE)
        yield from Priority

    def _note_turn(self, taken: Priority) -> None:
        self._passed[taken] = 0
        for each in Priority:
            if each > taken:
                self._passed[each] = self._passed[each] + 1 if self._users[each] else 0

    def _take(self, users: OrderedDict[str, deque[RequestState]], user: str) -> RequestState:
        state = users[user].popleft()
        if not users[user]:
            del users[user]
        return state

    def remove(self, state: RequestState) -> bool:
        """Take a request out of the line; False if it is not in it."""
        users = self._users[state.request.priority]
        queue = users.get(state.request.user)
        if queue is None or state not in queue:
            return False
        queue.remove(state)
        if not queue:
            del users[state.request.user]
        return True
