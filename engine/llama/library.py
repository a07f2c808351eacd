"""The llama.cpp library: loaded once, its log sent to Python's, its enums by name."""

from __future__ import annotations

import ctypes
import functools
import logging
from pathlib import Path
from types import ModuleType

from engine.llama.heap import keep_heap_small

log = logging.getLogger("ingle.llama")

KV_TYPES = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "iq4_nl": 20,
    "bf16": 30,
}
"""ggml_type of the KV cache's cells by their command-line name."""

SPLIT_MODES = {"none": 0, "layer": 1, "row": 2, "tensor": 3}

_ERROR = 4
_LEVELS = {3: logging.INFO, _ERROR: logging.WARNING}
"""ggml_log_level → Python's; whatever matters also comes back as a status, so nothing is louder."""


class LogTail:
    """Routes llama.cpp's log lines and keeps the last errors, the only reason a load ever gives."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def write(self, level: int, text: bytes, _user_data: object) -> None:
        """llama.cpp's callback: `level` is ggml_log_level, `text` may be part of a line."""
        line = text.decode("utf-8", "replace").strip()
        if len(line) < 2:
            return
        if level == _ERROR:
            self.errors = [*self.errors[-3:], line]
        log.log(_LEVELS.get(level, logging.DEBUG), line)


class Library:
    """llama.cpp's C API (`api`) with its log; one instance per process, from `library()`."""

    def __init__(self) -> None:
        import llama_cpp.llama_cpp as api

        keep_heap_small()
        self.api: ModuleType = api
        self.log = LogTail()
        # llama.cpp calls through this pointer for as long as the process lives.
        self._callback = api.llama_log_callback(self.log.write)
        api.llama_log_set(self._callback, ctypes.c_void_p(0))
        api.llama_backend_init()

    @property
    def path(self) -> Path:
        """The shared library's file."""
        return Path(str(self.api._lib._name))

    def take_error(self, default: str) -> str:
        """The first error logged since the last call, as one line."""
        errors, self.log.errors = self.log.errors, []
        return errors[0].split(": ", 1)[-1] if errors else default


@functools.cache
def library() -> Library:
    """Load llama.cpp, 0.3 s the first time. OpenMP reads its environment then, and never again."""
    return Library()
