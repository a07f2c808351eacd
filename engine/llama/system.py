"""What this build of llama.cpp can do, and which devices it sees."""

from __future__ import annotations

import ctypes
import re
from typing import Any

from msgspec import Struct

from engine.llama.library import library

KINDS = ("cpu", "gpu", "integrated gpu", "accelerator")
"""By ggml_backend_dev_type."""
_FEATURE = re.compile(r"(\w+) = (\w+)")


class Device(Struct, frozen=True):
    """One device; bytes of its memory, 0 where it does not tell."""

    name: str
    description: str
    kind: str
    free_bytes: int
    total_bytes: int


class SystemReport(Struct, frozen=True):
    """`features` are the instructions that the build uses, such as AVX2 or AMX_INT8."""

    library: str
    features: tuple[str, ...]
    gpu_offload: bool
    devices: tuple[Device, ...]


def system_report() -> SystemReport:
    """Loads the library, if it is not loaded yet."""
    loaded = library()
    info: bytes = loaded.api.llama_print_system_info()
    return SystemReport(
        library=str(loaded.path),
        features=read_features(info.decode("utf-8", "replace")),
        gpu_offload=bool(loaded.api.llama_supports_gpu_offload()),
        devices=_devices(loaded.api._lib),
    )


def read_features(text: str) -> tuple[str, ...]:
    """`CPU : AVX2 = 1 | OPENMP = 1 | …` → what is not 0."""
    return tuple(dict.fromkeys(name for name, value in _FEATURE.findall(text) if value != "0"))


def _devices(lib: ctypes.CDLL) -> tuple[Device, ...]:
    """ggml's registry; its functions are reached through the library that links them."""
    count, get = lib.ggml_backend_dev_count, lib.ggml_backend_dev_get
    count.restype, get.restype, get.argtypes = ctypes.c_size_t, ctypes.c_void_p, [ctypes.c_size_t]
    return tuple(_device(lib, get(index)) for index in range(count()))


def _device(lib: ctypes.CDLL, handle: int) -> Device:
    pointer = ctypes.c_void_p(handle)
    kind = lib.ggml_backend_dev_type
    kind.restype, kind.argtypes = ctypes.c_int, [ctypes.c_void_p]
    number = int(kind(pointer))
    size = ctypes.c_size_t
    free, total = size(), size()
    memory = lib.ggml_backend_dev_memory
    memory.restype, memory.argtypes = None, [ctypes.c_void_p, *[ctypes.POINTER(size)] * 2]
    memory(pointer, ctypes.byref(free), ctypes.byref(total))
    named = KINDS[number] if number < len(KINDS) else str(number)
    name = _text(lib.ggml_backend_dev_name, pointer)
    description = _text(lib.ggml_backend_dev_description, pointer)
    return Device(name, description, named, free.value, total.value)


def _text(function: Any, pointer: ctypes.c_void_p) -> str:
    function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    return bytes(function(pointer) or b"").decode("utf-8", "replace")
