"""The logits after whole prompts: one that comes again is not computed at all."""

from __future__ import annotations

from collections import OrderedDict

from engine.lora import LoraSet
from engine.vocab_math import Row


class PromptRows:
    """Rows by the prompt they follow, within a budget of bytes, least recently used out first."""

    def __init__(self, budget: int) -> None:
        self._rows: OrderedDict[tuple[LoraSet, tuple[int, ...]], Row] = OrderedDict()
        self._budget = budget
        self.size = 0
        """Bytes of the rows."""

    def put(self, prompt: list[int], lora: LoraSet, row: Row) -> None:
        """Keep a copy of `row`, the logits after the last token of `prompt`."""
        key = (lora, tuple(prompt))
        if row.nbytes > self._budget or key in self._rows:
            return
        self._rows[key] = row.copy()
        self.size += row.nbytes
        while self.size > self._budget:
            _, dropped = self._rows.popitem(last=False)
            self.size -= dropped.nbytes

    def get(self, prompt: list[int], lora: LoraSet) -> Row | None:
        """The row, to be copied before anything is written to it."""
        key = (lora, tuple(prompt))
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
        return row
