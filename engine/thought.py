"""A thought that may take so many tokens and is then closed in the model's own words."""

from __future__ import annotations

from engine.request import ThoughtBudget


class ThoughtLimit:
    """Watches the text of one choice. While the thought is open and its tokens are spent, `next`
    gives the tokens that close it, one a step, so that each has logits of its own."""

    def __init__(self, budget: ThoughtBudget) -> None:
        self._budget = budget
        self._text = ""
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
        begun = self._text.lstrip().startswith(self._budget.open)
        return self._open and begun and self._spent >= self._budget.tokens

    def push(self, text: str) -> None:
        """A token with this text has come."""
        if not self._open:
            return
        self._text += text
        self._spent += 1
        begins = self._text.lstrip()[: len(self._budget.open)]
        if not self._budget.open.startswith(begins) or self._budget.marker in self._text:
            self._open = False
