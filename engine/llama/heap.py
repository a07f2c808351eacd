"""Gives memory that was freed back to the system."""

from __future__ import annotations

import ctypes


def return_freed_memory() -> None:
    """glibc keeps what is freed in many small pieces; elsewhere there is nothing to do.

    Takes some milliseconds: not for the event loop.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(ctypes.c_size_t(0))
