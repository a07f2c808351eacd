"""Executes a `Batch` on llama.cpp: arrays filled through NumPy, logits handed out uncopied."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import numpy as np

from engine.batch import (
    Batch,
    Clear,
    Copy,
    CopyReport,
    Drop,
    Export,
    Import,
    Logits,
    MemoryOp,
    Restore,
    Save,
    Span,
    Trim,
    nothing,
)
from engine.errors import StepFailed
from engine.exact import passes
from engine.llama.library import library
from engine.llama.model import Model
from engine.llama.token_batch import TokenBatch
from engine.lora import LoraSet


class LlamaRunner:
    """Implements `Runner` for one model; only the engine's thread may call it."""

    def __init__(self, model: Model) -> None:
        api = library().api
        self._api = api
        self._context = model.context
        self._memory = api.llama_get_memory(model.context)
        self._adapters = model.adapters
        self._lora: LoraSet = ()
        self._saved: dict[int, ctypes.Array[ctypes.c_uint8]] = {}
        self.n_vocab = model.tokenizer.n_vocab
        self.max_rows = model.max_rows(model.settings)
        self.n_slots = model.settings.parallel
        self.can_trim = model.info.can_trim
        self._report = CopyReport()
        self._deterministic = model.settings.deterministic
        self._gathered = np.empty((0, self.n_vocab), np.float32)
        self._n_batch: int = api.llama_n_batch(model.context)
        self._batch = TokenBatch(self._n_batch)
        # As a number: the pointer of the binding would be an object to make and to take apart.
        as_number = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)
        self._logits_address = as_number(
            ctypes.cast(api.llama_get_logits, ctypes.c_void_p).value or 0
        )
        self._address = 0
        self._room = np.empty((0, self.n_vocab), np.float32)
        """What begins at `_address`, where llama.cpp writes logits; it moves when it grows."""
        self._views: dict[int, Logits] = {}
        """Its first so many rows."""

    def run(self, batch: Batch, on_compute: Callable[[], None] = nothing) -> Logits:
        """See `Runner.run`; the view is valid until the next call."""
        if batch.ops or not batch.spans:
            on_compute()  # Copies take their time, too.
        began = time.monotonic()
        for op in batch.ops:
            self._apply(op)
        if batch.ops:
            self._report.seconds += time.monotonic() - began
        if not batch.spans:
            return np.empty((0, self.n_vocab), np.float32)
        if batch.lora != self._lora:
            self._apply_adapters(batch.lora)
        if self._deterministic:
            return self._run_apart(batch.spans, on_compute)
        return self._decode(batch.spans, on_compute)

    def _run_apart(self, spans: list[Span], on_compute: Callable[[], None]) -> Logits:
        """As `_decode`, each sequence on its own and prompts chunk by chunk."""
        end, n_rows = 0, sum(span.n_rows for span in spans)
        if n_rows > len(self._gathered):
            self._gathered = np.empty((n_rows, self.n_vocab), np.float32)
        for span in passes(spans):
            start, end = end, end + span.n_rows
            self._gathered[start:end] = self._decode([span], on_compute)
        return self._gathered[:end]

    def _decode(self, spans: list[Span], on_compute: Callable[[], None]) -> Logits:
        rows = self._fill(spans)
        on_compute()
        address = self._compute(rows)
        if not rows:
            return np.empty((0, self.n_vocab), np.float32)
        if address != self._address:
            self._address, self._room = address, self._view(address)
            self._views.clear()
        if rows not in self._views:
            self._views[rows] = self._room[:rows]
        return self._views[rows]

    def _compute(self, rows: int) -> int:
        """Let llama.cpp work; returns the address of the logits, if there are `rows` of them."""
        status = self._api.llama_decode(self._context, self._batch.native)
        if status != 0:
            raise StepFailed(f"llama_decode returned {status} for {self._batch.count} tokens")
        if rows == 0:
            self._api.llama_synchronize(self._context)
            return 0
        return int(self._logits_address(self._context))

    def _apply_adapters(self, lora: LoraSet) -> None:
        handles = [self._adapters[each.name] for each in lora]
        array = (self._api.llama_adapter_lora_p_ctypes * len(lora))(*handles)
        scales = (ctypes.c_float * len(lora))(*(each.scale for each in lora))
        if self._api.llama_set_adapters_lora(self._context, array, len(lora), scales) != 0:
            raise StepFailed("the LoRA adapters cannot be applied together")
        self._lora = lora

    def _fill(self, spans: list[Span]) -> int:
        """Write the spans into the batch; returns how many rows of logits will come."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        wanted: list[int] = []
        for span in spans:
            n_tokens, n_rows = len(span.tokens), span.n_rows
            tokens += span.tokens
            positions += range(span.start, span.start + n_tokens)
            slots += [span.slot] * n_tokens
            wanted += [0] * (n_tokens - n_rows) + [1] * n_rows
        if len(tokens) > self._n_batch:
            raise StepFailed(f"a step of more than {self._n_batch} tokens was scheduled")
        self._batch.fill(tokens, positions, slots, wanted)
        return sum(wanted)

    def _view(self, address: int) -> Logits:
        """As many rows as there ever are, from `address` on; only those of a step may be read."""
        floats = (ctypes.c_float * (self.max_rows * self.n_vocab)).from_address(address)
        rows = np.frombuffer(memoryview(floats), np.float32)
        return rows.reshape(self.max_rows, self.n_vocab)

    def _apply(self, op: MemoryOp) -> None:
        match op:
            case Clear(slot):
                self._api.llama_memory_seq_rm(self._memory, slot, -1, -1)
            case Trim(slot, length):
                if not self._api.llama_memory_seq_rm(self._memory, slot, length, -1):
                    raise StepFailed(f"this model's memory cannot be trimmed to {length} tokens")
            case Save(slot, handle):
                self._save(slot, handle)
            case Restore(slot, handle):
                self._restore(slot, handle)
            case Copy(source, slot):
                self._api.llama_memory_seq_rm(self._memory, slot, -1, -1)
                self._api.llama_memory_seq_cp(self._memory, source, slot, -1, -1)
            case Drop(handle):
                self._saved.pop(handle, None)
            case Export(handle):
                self._report.exported[handle] = memoryview(self._saved[handle])
            case Import(handle, data):
                self._saved[handle] = (ctypes.c_uint8 * len(data)).from_buffer(data)

    def _save(self, slot: int, handle: int) -> None:
        size = self._api.llama_state_seq_get_size(self._context, slot)
        data = (ctypes.c_uint8 * size)()
        if self._api.llama_state_seq_get_data(self._context, data, size, slot) == 0:
            raise StepFailed(f"the state of slot {slot} could not be saved")
        self._saved[handle] = data
        self._report.sizes[handle] = size
        self._report.n_bytes += size

    def _restore(self, slot: int, handle: int) -> None:
        data = self._saved[handle]
        self._api.llama_memory_seq_rm(self._memory, slot, -1, -1)
        if self._api.llama_state_seq_set_data(self._context, data, len(data), slot) == 0:
            raise StepFailed(f"the state of slot {slot} could not be restored")
        self._report.n_bytes += len(data)

    def take_report(self) -> CopyReport:
        """See `Runner.take_report`."""
        report, self._report = self._report, CopyReport()
        return report

    def set_threads(self, threads: int) -> None:
        """See `Runner.set_threads`."""
        self._api.llama_set_n_threads(self._context, threads, threads)

    def reset(self) -> None:
        """See `Runner.reset`."""
        self._api.llama_memory_clear(self._memory, True)
        self._saved.clear()
        self._report = CopyReport()
