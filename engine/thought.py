"""A thought that may take so many tokens and is then closed in the model's own words."""

from __future__ import annotations

from engine.request import ThoughtBudget


class ThoughtLimit:
    """Watches the text of one choice. While the thought is open and its tokens are spent, `next`
    gives the tokens that close it, one a step, so that each has logits of its own."""

    def __init__(self, budget: ThoughtBudget) -> None:
        self._budget = budget
        self._lead = ""
        """The text so far, without space before it, until it is known whether a thought opens."""
        self._begun = not budget.open
        self._tail = ""
        """The end of the text, in which the marker may have begun."""
        self._spent = 0
        self._closing = list(budget.close)
        self._open = True

    def next(self) -> int | None:
        """The token that must come now, if the thought has to close."""
        closing = len(self._closing) < len(self._budget.close)
        if not self._closing or not (closing or self._is_spent()):
            return None
        return self._closing.pop(0)

    def _is_spent(self) -> bool:
        # Before its opening marker is complete nobody knows whether there is a thought at all.
        return self._open and self._begun and self._spent >= self._budget.tokens

    def push(self, text: str) -> None:
        """A token with this text has come."""
        if not self._open:
            return
        self._spent += 1
        if not self._begun:
            self._begin(text)
        self._tail += text
        if self._budget.marker in self._tail:
            self._open = False
        keep = len(self._budget.marker) - 1
        self._tail = self._tail[-keep:] if keep else ""

    def _begin(self, text: str) -> None:
        self._lead = (self._lead + text).lstrip()
        self._begun = self._lead.startswith(self._budget.open)
        self._open = self._begun or self._budget.open.startswith(self._lead)
