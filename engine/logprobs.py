"""Log probabilities of the raw distribution of a row of logits."""

from __future__ import annotations

import math

from engine.vocab_math import LIKELY, Head, Row, exponentials, total


class RawLogprobs:
    """log-softmax of one row, taken before the sampler changes it: only what is asked."""

    def __init__(self, row: Row, top: int, scratch: Row, head: Head | None = None) -> None:
        """`row` has shape (n_vocab,) and stays in use until the last call of `of`; `scratch`, as
        long, is overwritten. `head` may be given if the row's is known. The `top` likeliest
        tokens are kept."""
        head = head or Head(row, LIKELY)
        self._row = row
        weights = exponentials(row, head.highest, 1.0, scratch)
        log_total = head.highest + math.log(total(weights) / weights.item(head.best))
        self._log_total = log_total
        self.top: list[tuple[int, float]] = []
        """(token, log probability), likeliest first, of equal ones the lowest id first."""
        if top:
            self.top = [(token, logit - log_total) for token, logit in head.ranked(row, top)]

    def of(self, token: int) -> float:
        """The natural logarithm of the probability of `token`."""
        return self._row.item(token) - self._log_total
