"""Log probabilities of the raw distribution of a row of logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.vocab_math import Row, largest


class RawLogprobs:
    """log-softmax of one row, taken before the sampler changes it: only what is asked."""

    def __init__(self, row: Row, top: int, scratch: NDArray[np.float32]) -> None:
        """`row` has shape (n_vocab,). `scratch` (2, n_vocab) is overwritten and stays in use
        until the last call of `of`. The `top` likeliest tokens are kept."""
        self._shifted, weights = scratch
        np.subtract(row, row.max(), out=self._shifted)
        np.exp(self._shifted, out=weights)
        self._log_total = float(np.log(weights.sum(dtype=np.float32)))
        self.top: list[tuple[int, float]] = []
        """(token, log probability), likeliest first, of equal ones the lowest id first."""
        if top:
            self.top = [(int(token), self.of(int(token))) for token in largest(row, top)]

    def of(self, token: int) -> float:
        """The natural logarithm of the probability of `token`."""
        return float(self._shifted[token]) - self._log_total
