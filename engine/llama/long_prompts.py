"""Long prompts that are computed alone get flash attention, short passes do without it.

On a CPU flash attention is fast from 64 rows up and slow below: decoding wants it off, deep
prefills want it on. A context has it or not, so such a prompt is computed on a context of its own,
and its state is handed over to its slot before anything else happens.
"""

from __future__ import annotations

import ctypes
import logging
from typing import Any

from msgspec.structs import replace

from engine.batch import Batch, Copy, Rows, Span
from engine.errors import OutOfMemory, StepFailed
from engine.llama.kv_state import KVState, UnknownLayout, read_state, write_state
from engine.llama.library import library
from engine.llama.model import Model
from engine.memory import available_memory
from engine.settings import ModelSettings

log = logging.getLogger("ingle.engine")

LEAST_ROWS = 64
"""Rows of a pass from which flash attention on the CPU is fast."""
WORTH_IT = 768
"""Tokens to compute from which a context of one's own pays."""
TRANSPOSABLE = ("f16", "f32", "bf16")


def wanted(settings: ModelSettings) -> bool:
    """Whether prompts are to be computed in another way than answers."""
    plain = not settings.flash_attention and not settings.deterministic
    return bool(settings.flash_prefill) and plain


def has_layout(model: Model) -> bool:
    """Whether states of this model can move between the two kinds of context."""
    settings, info = model.settings, model.info
    types = settings.type_k in TRANSPOSABLE and settings.type_v in TRANSPOSABLE
    return types and info.can_trim and not info.window


class LongPrompts:
    """The context beside the model's own; it lives from a prompt's first step to its hand-over."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._api = library().api
        self._context: Any = None
        self._span: Span | None = None
        """The last one that was computed here."""
        self._usable = wanted(model.settings) and has_layout(model)
        self._threads = model.settings.threads
        model.before_close.append(self.close)

    @property
    def at_work(self) -> bool:
        """Whether a prompt is here and not yet in its slot."""
        return self._span is not None

    def takes(self, batch: Batch) -> bool:
        """Whether `batch`, whose operations are done, is to be computed here."""
        if not self._usable or batch.lora or len(batch.spans) != 1:
            return False
        if any(isinstance(op, Copy) for op in batch.ops):
            return False  # Its data moves with the next pass of the model's own context.
        span = batch.spans[0]
        if span.rows is Rows.ALL or len(span.tokens) < LEAST_ROWS:
            return False
        return self.continues(batch) or (batch.alone >= WORTH_IT and self._begin(batch))

    def continues(self, batch: Batch) -> bool:
        """Whether `batch` is no more than the next piece of the prompt that is here."""
        last = self._span
        if last is None or batch.ops or len(batch.spans) != 1 or not batch.alone:
            return False
        span = batch.spans[0]
        goes_on = span.slot == last.slot and span.start == last.start + len(last.tokens)
        return goes_on and len(span.tokens) >= LEAST_ROWS

    def _begin(self, batch: Batch) -> bool:
        """Make the context and bring what the slot holds; False where that cannot be."""
        span = batch.spans[0]
        settings = self._model.settings
        cells = span.start + batch.alone
        own = replace(
            settings,
            context=-(-cells // 256) * 256,
            parallel=1,
            flash_attention=True,
            threads=self._threads,
        )
        room = available_memory()
        all_cells = (settings.context or 1) * settings.parallel
        if room is not None and 2 * self._model.info.kv_bytes * cells > room * all_cells:
            return False
        try:
            held = self._read(self._model.context, span.slot) if span.start else None
            self._context = self._model.create_context(own)
        except (UnknownLayout, OutOfMemory) as error:
            log.warning("long prompts are computed without flash attention: %s", error)
            self._usable = False
            return False
        if held is not None:
            self._write(self._context, 0, held, n_streams=1, transposed=False)
        return True

    def begin_pass(self, span: Span) -> Any:
        """Note that `span` is computed now, and return the context for it; its sequence is 0."""
        self._span = span
        return self._context

    def hand_over(self) -> int:
        """Put the prompt into its slot and free the context; returns the bytes that moved."""
        assert self._span is not None
        slot = self._span.slot
        settings = self._model.settings
        n_streams = 1 if settings.kv_unified else settings.parallel
        try:
            state = self._read(self._context, 0)
            return self._write(self._model.context, slot, state, n_streams, transposed=True)
        except UnknownLayout as error:
            self._usable = False
            raise StepFailed(f"a long prompt cannot be handed over: {error}") from error
        finally:
            self.close()

    def _read(self, context: Any, slot: int) -> KVState:
        size = self._api.llama_state_seq_get_size(context, slot)
        data = (ctypes.c_uint8 * size)()
        if self._api.llama_state_seq_get_data(context, data, size, slot) == 0:
            raise StepFailed(f"the state of slot {slot} could not be read")
        return read_state(memoryview(data).cast("B"))

    def _write(
        self, context: Any, slot: int, state: KVState, n_streams: int, *, transposed: bool
    ) -> int:
        raw = write_state(state, n_streams=n_streams, transposed=transposed)
        data = (ctypes.c_uint8 * len(raw)).from_buffer(raw)
        if self._api.llama_state_seq_set_data(context, data, len(raw), slot) == 0:
            raise StepFailed(f"the state of slot {slot} could not be written")
        return len(raw)

    def set_threads(self, threads: int) -> None:
        """From the next pass on."""
        self._threads = threads
        if self._context:
            self._api.llama_set_n_threads(self._context, threads, threads)

    def close(self) -> None:
        """Forget the prompt that is here, if there is one."""
        if self._context:
            self._api.llama_free(self._context)
        self._context = self._span = None
