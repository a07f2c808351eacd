"""Times passes through one model under several context settings; the weights are loaded once."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from msgspec.structs import replace

from engine.errors import StepFailed
from engine.llama.library import library
from engine.llama.model import Model, physical_cores, usable_cores
from engine.settings import ModelSettings

MAX_DEPTH = 1024
CELLS = 2 * MAX_DEPTH
"""Context of a measurement: the deepest prompt and the passes after it."""


class Bench:
    """One sequence on one context at a time; for the probe's process only."""

    def __init__(self, settings: ModelSettings) -> None:
        """Loads the file; raises ModelLoadError's kinds."""
        self._settings = replace(settings, context=CELLS, parallel=1, max_queue=0)
        self._model = Model(self._settings)
        self._api = library().api
        self._context = self._model.context
        self._owned: Any = None
        """A context of ours; the first one belongs to the model."""
        n_vocab = self._model.tokenizer.n_vocab
        # Spread over the vocabulary, so that a mixture of experts does not stay with a few.
        self._tokens = (ctypes.c_int32 * CELLS)(*((i * 7919 + 17) % n_vocab for i in range(CELLS)))
        self._depth = 0
        self.has_gpu = bool(
            self._api.llama_supports_gpu_offload() and self._settings.n_gpu_layers != 0
        )
        self.max_depth = min(MAX_DEPTH, self._model.info.context_trained // 2)

    @staticmethod
    def thread_choices() -> tuple[int, ...]:
        """Physical cores, and all hardware threads where there are more."""
        return tuple(dict.fromkeys((physical_cores(), usable_cores())))

    def configure(self, *, flash_attention: bool, threads: int, ubatch_size: int) -> None:
        """An empty context with these settings; raises OutOfMemory where it cannot be had."""
        self._free()
        settings = replace(
            self._model.settings,
            flash_attention=flash_attention,
            threads=threads,
            ubatch_size=ubatch_size,
            batch_size=CELLS,
        )
        self._owned = self._context = self._model.create_context(settings)
        self._depth = 0

    def _free(self) -> None:
        if self._owned:
            self._api.llama_free(self._owned)
        self._owned = None

    def set_threads(self, threads: int) -> None:
        """For the passes that follow."""
        self._api.llama_set_n_threads(self._context, threads, threads)

    def run(self, n_tokens: int) -> float:
        """Seconds of one pass over the next `n_tokens` tokens."""
        pointer = ctypes.cast(
            ctypes.byref(self._tokens, self._depth * ctypes.sizeof(ctypes.c_int32)),
            ctypes.POINTER(ctypes.c_int32),
        )
        batch = self._api.llama_batch_get_one(pointer, n_tokens)
        start = time.perf_counter()
        status = self._api.llama_decode(self._context, batch)
        self._api.llama_synchronize(self._context)
        elapsed = time.perf_counter() - start
        if status != 0:
            raise StepFailed(f"llama_decode returned {status} for {n_tokens} tokens")
        self._depth += n_tokens
        return elapsed

    def rewind(self, depth: int) -> bool:
        """Forget the tokens from `depth` on; False where the model's memory cannot."""
        memory = self._api.llama_get_memory(self._context)
        if not self._api.llama_memory_seq_rm(memory, 0, depth, -1):
            return False
        self._depth = depth
        return True

    @property
    def depth(self) -> int:
        """Tokens in the context."""
        return self._depth
