"""The values that cross between a front end and an embedding engine: frozen, plain, complete."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Rows = NDArray[np.float32]
"""[inputs, width]: what the model's pooling makes of each input, as it comes out of it."""


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """Inputs to be computed, each on its own."""

    id: str
    inputs: tuple[list[int], ...]
    """Token ids, special tokens included; 1 ≤ length ≤ context each."""


class Embeddings(Struct, frozen=True):
    """One row an input, in the order of the request."""

    rows: Rows
    queued: float
    """Seconds from submission to the first pass with this request in it."""
    computed: float
    """Seconds from there to the last."""


class Embedder(Protocol):
    """Computes a pack of inputs in one pass; `engine.llama.embedder.LlamaEmbedder` but in tests."""

    width: int
    """Floats of one row."""
    max_tokens: int
    """Most tokens of one pass; no input may be longer."""
    pack_tokens: int
    """Most tokens of a pass with several inputs."""
    max_inputs: int

    def embed(self, inputs: list[list[int]]) -> Rows:
        """One row an input, the caller's to keep. Raises StepFailed."""
        ...

    def set_threads(self, threads: int) -> None:
        """For the passes that follow."""
        ...
