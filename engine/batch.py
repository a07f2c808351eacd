"""What one step asks of the model: memory operations first, then spans of tokens.

Pure data. A prompt chunk, a single decoded token, a forced or a drafted run are all a `Span`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from enum import Enum
from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from engine.lora import LoraSet

Logits = NDArray[np.float32]
"""Shape (rows, n_vocab), natural units of the model; a view that the next step overwrites."""


class Rows(Enum):
    """Which tokens of a span want logits."""

    NONE = 0
    LAST = 1
    ALL = 2


LAST, ALL = Rows.LAST, Rows.ALL
"""Looking up a member of an Enum runs Python, and each span of each step is asked."""


class Span(Struct, frozen=True):
    """Consecutive tokens of one slot, from position `start` on."""

    slot: int
    start: int
    tokens: Seq[int]
    rows: Rows

    @property
    def n_rows(self) -> int:
        """Rows of logits that it brings."""
        if self.rows is LAST:
            return 1
        return len(self.tokens) if self.rows is ALL else 0


class Clear(Struct, frozen=True, tag=True):
    """Forget everything in a slot."""

    slot: int


class Trim(Struct, frozen=True, tag=True):
    """Forget the positions from `length` on."""

    slot: int
    length: int


class Save(Struct, frozen=True, tag=True):
    """Keep a copy of a slot in host memory under `handle`."""

    slot: int
    handle: int


class Restore(Struct, frozen=True, tag=True):
    """Replace what is in a slot by the copy under `handle`, which stays."""

    slot: int
    handle: int


class Copy(Struct, frozen=True, tag=True):
    """Replace what is in a slot by all that `source` holds; between streams the data moves with
    the next pass. Nothing is lost, where a sliding window's `Save` keeps only the window."""

    source: int
    slot: int


class Drop(Struct, frozen=True, tag=True):
    """Free the copy under `handle`."""

    handle: int


class Export(Struct, frozen=True, tag=True):
    """Hand out the copy under `handle`, which stays."""

    handle: int


class Import(Struct, frozen=True, tag=True):
    """Take `data`, a copy that was handed out once, under `handle`."""

    handle: int
    data: bytearray


MemoryOp = Clear | Trim | Save | Restore | Copy | Drop | Export | Import


class CopyReport(Struct):
    """What a runner's memory operations came to since the last report."""

    sizes: dict[int, int] = {}
    """Handle → bytes, of every copy that was saved."""
    exported: dict[int, memoryview] = {}
    """Handle → the copy that was asked for; it stays valid while it is held."""
    n_bytes: int = 0
    """Saved and restored."""
    seconds: float = 0.0


class Batch(Struct):
    """One step. Operations run in order, before the spans; spans are in order of their slots."""

    ops: list[MemoryOp]
    spans: list[Span]
    lora: LoraSet = ()
    """The adapters that every span is computed with."""

    @property
    def n_tokens(self) -> int:
        """Tokens over all spans."""
        return sum(len(span.tokens) for span in self.spans)


def nothing() -> None:
    """Where nobody wants to know."""


class Runner(Protocol):
    """Executes batches on a model; the scheduler never sees more of it."""

    n_vocab: int
    max_rows: int
    """Most rows of logits of one batch."""
    can_trim: bool
    """Whether `Trim` works: not in recurrent memory."""

    def run(self, batch: Batch, on_compute: Callable[[], None] = nothing) -> Logits:
        """The rows that the spans asked for, in order; raises StepFailed. `on_compute` is called,
        once or more, when nothing is left to do but what native code does without the interpreter
        lock."""
        ...

    def take_report(self) -> CopyReport:
        """What the memory operations came to since the last call."""
        ...

    def set_threads(self, threads: int) -> None:
        """Compute with so many CPU threads from the next batch on."""
        ...

    def reset(self) -> None:
        """Forget every slot and every saved copy."""
        ...
