"""How often each token has come, as arrays that NumPy can index with."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class TokenCounts:
    """Grows by one token in constant time; the arrays are views, in order of first coming."""

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        """Each of `tokens` counts once, however often it comes."""
        distinct = dict.fromkeys(tokens)
        self._places = {token: place for place, token in enumerate(distinct)}
        self._tokens = np.zeros(2 * len(distinct) + 64, np.intp)
        self._counts = np.zeros(len(self._tokens), np.float32)
        self._tokens[: len(distinct)] = list(distinct)
        self._counts[: len(distinct)] = 1
        self._view()

    def _view(self) -> None:
        # Storing through these costs a tenth of NumPy's way, cold as the caches are after a step.
        self._token_at, self._count_at = self._tokens.data, self._counts.data

    def add(self, token: int) -> None:
        """`token` has come once more."""
        place = self._places.setdefault(token, len(self._places))
        if place == len(self._tokens):
            self._tokens = np.concatenate([self._tokens, np.zeros_like(self._tokens)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
            self._view()
        self._token_at[place] = token
        self._count_at[place] += 1

    @property
    def tokens(self) -> NDArray[np.intp]:
        """Distinct ids."""
        return self._tokens[: len(self._places)]

    @property
    def counts(self) -> NDArray[np.float32]:
        """How often each of `tokens` has come."""
        return self._counts[: len(self._places)]
