"""Predicted answers as drafts: where in its prediction an answer is, and what should come next.

A drafted token is computed in the same pass as the token before it and taken if the choice's own
sampler draws it, so that a prediction changes what an answer costs but not what it says.
"""

from __future__ import annotations

from bisect import bisect_left

GRAM = 3
"""Tokens of an answer that must stand in the prediction for its place there to be known again."""
LEAST_DRAFT, MOST_DRAFT = 2, 15
"""Tokens at a time: as many as have come true in a row, within these. The most makes a pass of 16
rows, of which kernels work on groups."""

MOST_REST = 64


class Prediction:
    """The tokens that a request expects of its answers; the choices share it."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self._ends: dict[tuple[int, ...], list[int]] | None = None
        """Every `GRAM` tokens in a row → where they end, in order."""

    def find(self, gram: tuple[int, ...], place: int) -> int | None:
        """Where `gram` ends: first at or behind `place`, else last before it, if anywhere."""
        if self._ends is None:
            self._ends = self._index()
        ends = self._ends.get(gram)
        if ends is None:
            return None
        return ends[min(bisect_left(ends, place), len(ends) - 1)]

    def _index(self) -> dict[tuple[int, ...], list[int]]:
        """Made when an answer first differs: most never need it."""
        ends: dict[tuple[int, ...], list[int]] = {}
        shifted = [self.tokens[start:] for start in range(GRAM)]
        for end, gram in enumerate(zip(*shifted, strict=False), start=GRAM):
            ends.setdefault(gram, []).append(end)
        return ends


class Draft:
    """Follows one choice through the prediction."""

    def __init__(self, prediction: Prediction, n_prompt: int) -> None:
        """The choice's tokens begin with `n_prompt` of a prompt."""
        self._prediction = prediction
        self._n_prompt = n_prompt
        self._n_seen = n_prompt
        self._place = 0
        """Of the token that is expected next; where it was lost, if `_run` is None."""
        self._run: int | None = 0
        """Tokens in a row that came as expected; None where the place is not known."""
        self._n_misled = 0
        """Places in a row that were found and where nothing came true."""
        self._rest = 0
        """Tokens for which no place is looked for."""
        self.proposed: list[int] = []
        """Of the step that is being computed."""
        self.n_accepted = 0
        self.n_rejected = 0

    def propose(self, tokens: list[int], most: int, least: int = 1) -> list[int]:
        """Up to `most` tokens that should follow `tokens`, all of the choice so far; none if it
        would be fewer than `least`."""
        for at in range(self._n_seen, len(tokens)):
            self._follow(tokens, at)
        self._n_seen = len(tokens)
        self.proposed = []
        if self._run is not None:
            length = min(most, MOST_DRAFT, max(LEAST_DRAFT, self._run))
            proposed = self._prediction.tokens[self._place : self._place + max(0, length)]
            self.proposed = proposed if len(proposed) >= least else []
        return self.proposed

    def _follow(self, tokens: list[int], at: int) -> None:
        expected = self._prediction.tokens[self._place : self._place + 1]
        if self._run is not None and expected == [tokens[at]]:
            self._place += 1
            self._run += 1
            return
        self._lose()
        self._rest -= 1
        if self._rest >= 0 or at - GRAM + 1 < self._n_prompt:
            return
        # Where nothing followed before, nothing will: the next place like it may be the one.
        least = self._place + (self._n_misled > 0)
        place = self._prediction.find(tuple(tokens[at - GRAM + 1 : at + 1]), least)
        if place is not None:
            self._place, self._run = place, 0

    def _lose(self) -> None:
        """What looks like the prediction again and again, and is not, is looked for less often."""
        if self._run is None:
            return
        self._n_misled = self._n_misled + 1 if self._run == 0 else 0
        self._rest = min(2**self._n_misled, MOST_REST) if self._n_misled > 1 else 0
        self._run = None

    def settle(self, n_accepted: int) -> None:
        """Of what was proposed, so many tokens came true."""
        self.n_accepted += n_accepted
        self.n_rejected += len(self.proposed) - n_accepted
        self.proposed = []
