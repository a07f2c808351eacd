"""Remembers what the probe found, per file, machine, build and the settings that matter."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.gguf_check import GGUFHeader
from engine.memory import native_libraries
from engine.settings import ModelSettings
from engine.whole_file import write_whole

log = logging.getLogger("ingle.probe")

T = TypeVar("T")

VERSION = 1
"""Raised when the probe measures differently."""
IRRELEVANT = (
    *("path", "context", "parallel", "max_queue", "max_stall", "lora"),
    *("prefix_cache_mib", "prefix_cache_dir", "prefix_cache_disk_mib"),
)
TUNING_PREFIXES = ("GGML_", "GOMP_", "OMP_")


def cache_directory(chosen: Path | None) -> Path:
    """The chosen directory, or the user's own for this program."""
    if chosen is not None:
        return chosen
    import platformdirs

    return Path(platformdirs.user_cache_dir("ingle", appauthor=False))


def cache_file(directory: Path, settings: ModelSettings, header: GGUFHeader) -> Path:
    """Where the answer for this combination lies."""
    inputs = [
        VERSION,
        file_identity(settings.path, header.header_bytes),
        [file_identity(adapter.path, 4096) for adapter in settings.lora],
        machine_identity(),
        build_identity(),
        relevant_settings(settings),
    ]
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    return directory / "probe" / f"{settings.path.stem[:40]}-{digest[:24]}.json"


def file_identity(path: Path, header_bytes: int) -> list[Any]:
    """Size, time and the hash of the header; the data itself may be many gigabytes."""
    stat = path.stat()
    with path.open("rb") as file:
        header = hashlib.sha256(file.read(header_bytes)).hexdigest()
    return [stat.st_size, stat.st_mtime_ns, header]


def machine_identity() -> list[Any]:
    """Processor, usable cores and memory."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return [platform.system(), platform.machine(), processor_name(), cores, memory]


def processor_name() -> str:
    """Linux's model name, else what the platform says."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            names = (line.partition(":")[2].strip() for line in file if "model name" in line)
            return next(names, "") or platform.processor()
    except OSError:
        return platform.processor()


def build_identity() -> list[Any]:
    """The installed llama-cpp-python, by its libraries; and what the environment tunes."""
    libraries = [(path, path.stat()) for path in native_libraries()]
    return [
        [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in libraries],
        sorted(item for item in os.environ.items() if item[0].startswith(TUNING_PREFIXES)),
    ]


def relevant_settings(settings: ModelSettings) -> dict[str, Any]:
    """Those that change speed or whether the file loads."""
    names = (name for name in settings.__struct_fields__ if name not in IRRELEVANT)
    return {name: getattr(settings, name) for name in names}


def read_entry(path: Path, kind: type[T]) -> T | None:
    """The remembered answer; a damaged one is dropped."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("the probe's entry %s is unreadable and dropped: %s", path, error)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return None


def write_entry(path: Path, entry: object) -> None:
    """Atomic: a reader sees the old or the new entry. A cache that cannot be written is a pity."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, msgspec.json.encode(entry))
    except OSError as error:
        log.warning("the probe's answer cannot be kept: %s", error)
