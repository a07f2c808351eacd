"""The queue of requests without a slot: by priority, then one request of each user in turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from engine.request import Priority
from engine.sequence import RequestState


class WaitingQueue:
    """First come, first served within a user; users take turns within a priority."""

    def __init__(self) -> None:
        self._users: dict[Priority, OrderedDict[str, deque[RequestState]]] = {
            priority: OrderedDict() for priority in Priority
        }

    def __len__(self) -> int:
        return sum(len(queue) for users in self._users.values() for queue in users.values())

    def push(self, state: RequestState) -> None:
        """Add at the end of its user's line."""
        users = self._users[state.request.priority]
        users.setdefault(state.request.user, deque()).append(state)

    def pop(self, can_start: Callable[[RequestState], bool]) -> RequestState | None:
        """The next request that can start; its user goes to the end of the round."""
        for users in self._users.values():
            for user, queue in users.items():
                if can_start(queue[0]):
                    state = queue.popleft()
                    users.move_to_end(user)
                    if not queue:
                        del users[user]
                    return state
        return None

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
