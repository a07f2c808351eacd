"""How many predicted tokens a step computes ahead, and of whom."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from engine.costs import StepCosts
from engine.draft import MOST_DRAFT
from engine.sequence import Sequence

WORTH_A_PASS = 8
"""Tokens of a draft from which one is computed while others decode: streams of unequal length take
one more pass over the weights, in which only the longer ones gain."""


class DraftBudget(Struct, frozen=True):
    """The bounds of a step that drafts keep to."""

    context: int
    """Tokens of one sequence."""
    batch_size: int
    """Tokens that are computed at once."""
    max_rows: int
    max_stall: float
    """Seconds of a step in which others decode."""
    costs: StepCosts

    def drafts(
        self, active: list[Sequence], shares: dict[int, int], *, stalls: bool
    ) -> dict[int, list[int]]:
        """Slot → tokens to compute ahead, beside `shares` (slot → tokens) of those of the `active`
        sequences that decode; `stalls`: answers without a prediction wait meanwhile."""
        # A run that a grammar forces may be too long for one step: nothing follows it yet.
        whole = [each for each in active if shares.get(each.slot) == each.n_waiting]
        drafting = [each for each in whole if each.draft is not None]
        if not drafting or any(_wants_rows(active)):
            return {}
        rows = self.max_rows - len(active) - sum(shares[each.slot] for each in drafting)
        most = min(rows, self.batch_size - sum(shares.values()))
        if stalls:
            most = min(most, self.costs.affordable(self.max_stall, MOST_DRAFT))
        each_most, least = most // len(drafting), WORTH_A_PASS if stalls else 1
        drafts = {each.slot: self._draft(each, each_most, least) for each in drafting}
        return {slot: draft for slot, draft in drafts.items() if draft}

    def _draft(self, sequence: Sequence, most: int, least: int) -> list[int]:
        assert sequence.draft is not None
        # One token is drawn after those that come true.
        until_limit = sequence.group.request.max_tokens - sequence.n_generated - 1
        until_end = self.context - len(sequence.tokens) - 1
        return sequence.draft.propose(sequence.tokens, min(most, until_limit, until_end), least)


def _wants_rows(active: Iterable[Sequence]) -> Iterable[bool]:
    """A prompt whose every token has logits takes all rows that there are."""
    return (each.wants_prompt_rows and not each.decoding for each in active)
