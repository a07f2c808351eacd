"""The logits after whole prompts, so that one that comes again is not computed at all."""

from __future__ import annotations

from collections import OrderedDict

from engine.vocab_math import Row


class PromptRows:
    """Rows by the prompt they follow, within a budget of bytes, least recently used out first."""

    def __init__(self, budget: int) -> None:
        self._rows: OrderedDict[tuple[int, ...], Row] = OrderedDict()
        self._budget = budget
        self.size = 0
        """Bytes of the rows."""

    def put(self, prompt: list[int], row: Row) -> None:
        """Keep a copy of `row`, the logits after the last token of `prompt`."""
        key = tuple(prompt)
        if key in self._rows:
            self._rows.move_to_end(key)
            return
        if row.nbytes > self._budget:
            return
        self._rows[key] = row.copy()
        self.size += row.nbytes
        while self.size > self._budget:
            _, dropped = self._rows.popitem(last=False)
            self.size -= dropped.nbytes

    def get(self, prompt: list[int]) -> Row | None:
        """The row, to be copied before anything is written to it."""
        row = self._rows.get(tuple(prompt))
        if row is not None:
            self._rows.move_to_end(tuple(prompt))
        return row
