"""Gives memory that was freed back to the system: glibc keeps it otherwise, for the next request.

On other C libraries nothing here does anything.
"""

from __future__ import annotations

import ctypes
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""From malloc.h."""
LARGE_BLOCK = 4 << 20
"""Bytes from which a block is mapped on its own. Caches and buffers are above it; rows of logits
of large vocabularies, which come and go with every step, are not."""


def keep_heap_small() -> None:
    """Large blocks go back when they are freed: without a fixed limit glibc raises its own up to
    32 MB. What is smaller comes from one heap for all threads: each thread's own would keep what
    models that were unloaded left in it (10 MB and more over some tens of swaps)."""
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, LARGE_BLOCK)
        mallopt(_M_ARENA_MAX, 1)


def return_freed_memory() -> None:
    """The rest, in small pieces. Takes some milliseconds: not for the event loop."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _function(name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
