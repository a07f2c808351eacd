"""Log probabilities of the raw distribution of a row of logits."""

from __future__ import annotations

from engine.vocab_math import Row, largest, log_sum_exp


class RawLogprobs:
    """log-softmax of one row, read before the sampler changes it: only what is asked is computed."""

    def __init__(self, row: Row, top: int, scratch: Row) -> None:
        """`row` and `scratch` have shape (n_vocab,); `top` likeliest tokens are kept."""
        self._normaliser = log_sum_exp(row, scratch)
        self._row = row
        self.top: list[tuple[int, float]] = []
        """(token, log probability), likeliest first."""
        if top:
            self.top = [(int(token), self.of(token)) for token in largest(row, top)]

    def of(self, token: int) -> float:
        """The log probability of `token`; only before the row is changed."""
        return float(self._row[token]) - self._normaliser
