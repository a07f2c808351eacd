"""Does a model fit this machine? Said before anything is allocated, since Linux overcommits."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from engine.errors import OutOfMemory
from engine.gguf_check import GGUFHeader
from engine.settings import KVType, ModelSettings

CELL_BYTES: dict[KVType, float] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
"""Bytes of one element of the KV cache."""

DEFAULT_CONTEXT_LIMIT = 8192
DEFAULT_EMBEDDING_LIMIT = 2048
"""An input is computed in one pass: llama.cpp keeps a row of logits for each of its tokens."""
ENCODERS = frozenset(
    {
        *("bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert"),
        *("eurobert", "modern-bert", "gemma-embedding", "t5encoder"),
    }
)
"""Architectures without a KV cache."""
CELL_PADDING = 256
"""llama.cpp rounds the cells of a sequence up to this."""
CPU_LIBRARIES = ("ggml", "ggml-base", "ggml-cpu", "llama", "llama-common", "mtmd")


def check_memory(header: GGUFHeader, settings: ModelSettings) -> None:
    """Raises OutOfMemory where weights and KV cache certainly exceed what is available.

    Says nothing where a GPU may hold part of them, or where the machine does not tell.
    """
    available = available_memory()
    if available is None or has_gpu_library():
        return
    cache = kv_bytes(header, settings)
    if header.tensor_bytes + cache > available:
        context = context_of(header, settings)
        raise OutOfMemory(
            f"{settings.path.name} needs {gigabytes(header.tensor_bytes + cache)} "
            f"({gigabytes(header.tensor_bytes)} of weights, {gigabytes(cache)} for a context of "
            f"{context} tokens × {settings.parallel} parallel), but {gigabytes(available)} is "
            "available: lower context or parallel"
        )


def context_of(header: GGUFHeader, settings: ModelSettings) -> int:
    """Tokens of one request, as the engine will choose them."""
    trained = int(header.hyperparameter("context_length", DEFAULT_CONTEXT_LIMIT))
    if header.task != "generate":
        return min(settings.context or DEFAULT_EMBEDDING_LIMIT, trained)
    return padded(settings.context or min(trained, DEFAULT_CONTEXT_LIMIT))


def padded(context: int) -> int:
    """What becomes of a context: whole blocks of cells."""
    return -(-context // CELL_PADDING) * CELL_PADDING


def cells_of(header: GGUFHeader, settings: ModelSettings) -> int:
    """Cells of KV cache; an embedding model has one pool for all inputs of a pass, or none."""
    if header.task == "generate":
        return context_of(header, settings) * settings.parallel
    return 0 if header.architecture in ENCODERS else context_of(header, settings)


def kv_bytes(header: GGUFHeader, settings: ModelSettings) -> int:
    """Of all layers at full length: a sliding window's cache is kept whole, so that a prefix
    can be reused."""
    cells = cells_of(header, settings)
    k_bytes, v_bytes = CELL_BYTES[settings.type_k], CELL_BYTES[settings.type_v]
    latent = header.hyperparameter("attention.kv_lora_rank")
    layers = int(header.hyperparameter("block_count", 0))
    if latent:
        width = latent + header.hyperparameter("rope.dimension_count", 0)
        return int(layers * width * k_bytes * cells)
    heads = per_layer(header.hyperparameter("attention.head_count", 0), layers)
    kv_heads = per_layer(header.hyperparameter("attention.head_count_kv", heads), layers)
    width = header.hyperparameter("embedding_length", 0) // max(*heads, 1) if heads else 0
    key = header.hyperparameter("attention.key_length", width)
    value = header.hyperparameter("attention.value_length", width)
    return int(sum(kv_heads) * (key * k_bytes + value * v_bytes) * cells)


def per_layer(value: Any, layers: int) -> list[int]:
    return [int(x) for x in value] if isinstance(value, list) else [int(value)] * layers


def available_memory() -> int | None:
    """Bytes that can be taken without swapping, within the control group's limit; None: unknown."""
    machine = linux_available() if Path("/proc/meminfo").exists() else physical_memory()
    limits = [size for size in (machine, control_group_available()) if size is not None]
    return min(limits, default=None)


def linux_available() -> int | None:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def total_memory() -> int | None:
    """Bytes of the machine, or of the control group where that is less; None: unknown."""
    sizes = (physical_memory(), control_group_limit())
    return min((size for size in sizes if size is not None), default=None)


def physical_memory() -> int | None:
    """macOS and the BSDs; they do not say how much is free in a way that means anything."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def control_group_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What version 2 of Linux's control groups allows; None without a limit."""
    try:
        limit = (root / "memory.max").read_text().strip()
        return None if limit == "max" else int(limit)
    except (OSError, ValueError):
        return None


def control_group_available(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What version 2 of Linux's control groups leaves, not counting the file cache as used."""
    limit = control_group_limit(root)
    if limit is None:
        return None
    try:
        used = int((root / "memory.current").read_text())
        lines = (root / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    cache = next((int(line.split()[1]) for line in lines if line.startswith("file ")), 0)
    return max(limit - used + cache, 0)


def has_gpu_library() -> bool:
    """True where llama-cpp-python was built with more than the CPU."""
    names = {path.name.removeprefix("lib").partition(".")[0] for path in native_libraries()}
    return bool(names - set(CPU_LIBRARIES))


def native_libraries() -> list[Path]:
    """Shared libraries of the installed llama-cpp-python, found without loading it."""
    spec = importlib.util.find_spec("llama_cpp")
    roots = spec.submodule_search_locations if spec else None
    files = [path for root in roots or () for path in (Path(root) / "lib").glob("*")]
    return sorted(path for path in files if {".so", ".dylib", ".dll"} & set(path.suffixes))


def gigabytes(size: int) -> str:
    """Such as `1.2 GB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
