"""Steps of one shape, for answers that have the same bits whatever else the server does.

A kernel is chosen by the number of rows, and rows that share a pass can meet other kernels than
alone: measured on SmolLM2 and Gemma 3, company moves logits by up to 1.7. So with
`ModelSettings.deterministic` every sequence has its passes to itself: decoded tokens one by one,
prompts in chunks that begin at multiples of `CHUNK`, and of what a slot holds only whole chunks
of a prompt are ever taken up by others, since only those were computed in the shape in which
anybody would compute them. With flash attention the number of threads counts too: it is fixed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from msgspec.structs import replace

from engine.batch import Rows, Span
from engine.prefix_index import Held
from engine.sequence import Sequence
from engine.settings import ModelSettings

CHUNK = 64
"""Tokens of a prompt in one pass: the fewest that flash attention on the CPU computes fast."""


def conflict(settings: ModelSettings) -> str | None:
    """Why these settings cannot be deterministic, if they are to be."""
    if not settings.deterministic:
        return None
    if settings.kv_unified:
        return "deterministic needs a stream for each sequence: not with kv_unified"
    if min(settings.batch_size, settings.ubatch_size or CHUNK) < CHUNK:
        return f"deterministic needs batch_size and ubatch_size of at least {CHUNK}"
    return None


def passes(spans: list[Span]) -> Iterator[Span]:
    """`spans` cut at multiples of `CHUNK`: each result is a pass of its own."""
    for span in spans:
        end = span.start + len(span.tokens)
        cuts = [span.start, *range((span.start // CHUNK + 1) * CHUNK, end, CHUNK), end]
        for start, stop in itertools.pairwise(cuts):
            rows = Rows.NONE if span.rows is Rows.LAST and stop < end else span.rows
            tokens = span.tokens[start - span.start : stop - span.start]
            yield Span(span.slot, start, tokens, rows)


def whole_chunks(sequence: Sequence) -> Held:
    """Of what the slot of `sequence` holds, what anybody would compute bit by bit the same. A
    further choice's slot was restored from a copy, which may have moved its cells: nothing."""
    held = sequence.held
    length = min(len(held.tokens), len(sequence.group.request.prompt)) // CHUNK * CHUNK
    return replace(held, tokens=held.tokens[: 0 if sequence.index else length])
