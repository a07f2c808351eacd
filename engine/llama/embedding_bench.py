"""Times passes of an embedding model: one that crashes does so in the probe's process."""

from __future__ import annotations

import math
import time

from msgspec.structs import replace

from engine.llama.embedder import PACK_TOKENS, EmbeddingModel, LlamaEmbedder
from engine.llama.model import physical_cores
from engine.measure import NOTICEABLE, Choice
from engine.settings import ModelSettings

INPUT_TOKENS = 64
"""A sentence or two."""


def measure_embedding(settings: ModelSettings, budget: float) -> Choice:
    """Flash attention or not, by a pass of each kind; without a budget the model only runs once.

    Raises ModelLoadError's kinds.
    """
    chosen = settings.flash_attention
    seconds: dict[bool, float] = {}
    kinds = (True, False)[: 2 if budget else 1] if chosen is None else (chosen,)
    deadline = time.monotonic() + budget
    for flash in kinds:
        if seconds and time.monotonic() > deadline:
            break
        seconds[flash] = _seconds(replace(settings, flash_attention=flash), budget)
    without = seconds.get(False, math.inf)
    flash = not without < NOTICEABLE * seconds.get(True, math.inf)
    threads = settings.threads or physical_cores()
    return Choice(flash, threads, settings.ubatch_size or PACK_TOKENS, {})


def _seconds(settings: ModelSettings, budget: float) -> float:
    """Of a pass that is full or lasts a good part of the budget; the first one warms up."""
    model = EmbeddingModel(settings)
    embedder = LlamaEmbedder(model)
    length = min(INPUT_TOKENS, model.settings.context or 1)
    tokens = [(i * 7919 + 17) % model.tokenizer.n_vocab for i in range(length)]
    first = _timed(embedder, [tokens])
    if budget:
        fits = max(1, min(embedder.pack_tokens // length, embedder.max_inputs))
        inputs = max(1, min(fits, int(budget / 8 / first)))
        first = _timed(embedder, [tokens] * inputs) / inputs
    model.close()
    return first


def _timed(embedder: LlamaEmbedder, inputs: list[list[int]]) -> float:
    start = time.perf_counter()
    embedder.embed(inputs)
    return time.perf_counter() - start
