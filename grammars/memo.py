"""Results kept between compilations, as many as weigh no more than a bound together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
LARGEST = 8  # a result heavier than this part of the bound is not kept


class Memo(Generic[P, R]):
    """A function whose results are kept, the least recently used dropped first.

    An `lru_cache` counts results, but one automaton can be a million times another, and clients
    choose which. `weigh(result, *arguments)` is about the bytes that both take. Two threads may
    both make the same result.
    """

    def __init__(self, make: Callable[P, R], weigh: Callable[..., int], bound: int) -> None:
        self._make, self._weigh, self._bound = make, weigh, bound
        self._entries: OrderedDict[tuple[Hashable, ...], tuple[R, int]] = OrderedDict()
        self._lock = Lock()
        self.weight = 0

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        key = (*args, *sorted(kwargs.items())) if kwargs else args
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
                return found[0]
        made = self._make(*args, **kwargs)
        weight = self._weigh(made, *args)
        if weight * LARGEST <= self._bound:
            self._keep(key, made, weight)
        return made

    def _keep(self, key: tuple[Hashable, ...], made: R, weight: int) -> None:
        with self._lock:
            replaced = self._entries.pop(key, None)
            self._entries[key] = (made, weight)
            self.weight += weight - (replaced[1] if replaced else 0)
            while self.weight > self._bound:
                self.weight -= self._entries.popitem(last=False)[1][1]


def memo(weigh: Callable[..., int], bound: int) -> Callable[[Callable[P, R]], Memo[P, R]]:
    """The decorator; `bound` in bytes."""
    return lambda make: Memo(make, weigh, bound)
