"""`python -m server --doctor`: what this machine and this build can do, and what slows them down.

Exit code 0: nothing to mend; 1: it works, but slower than it could; 2: it cannot serve.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from engine.errors import ModelLoadError
from engine.gguf_check import GGUFHeader
from engine.memory import available_memory, check_memory, gigabytes, kv_bytes
from engine.probe_cache import processor_name
from server.config import ModelConfig, ServerConfig, initial_models
from server.loader import Headers

if TYPE_CHECKING:
    from engine.llama.system import SystemReport
    from engine.probe import ProbeResult

Level = Literal["ok", "slow", "error"]
REBUILD = "python3 engine/install.py --force"
FEATURES = {
    "avx": "AVX",
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "bmi2": "BMI2",
    "avx512f": "AVX512",
    "avx512_vbmi": "AVX512_VBMI",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "avx_vnni": "AVX_VNNI",
    "amx_int8": "AMX_INT8",
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
}
"""/proc/cpuinfo's word → llama.cpp's."""
GPU_SIGNS = {
    "/proc/driver/nvidia/version": ("an NVIDIA GPU", "-DGGML_CUDA=on"),
    "/dev/kfd": ("an AMD GPU", "-DGGML_HIP=on"),
}
"""What a driver leaves → whose it is, and how llama.cpp is built for it."""

VERDICTS = {
    "ok": (0, "all is well"),
    "slow": (1, "it works, but could be faster"),
    "error": (2, "it cannot serve like this"),
}


class Finding(Struct, frozen=True):
    """One line of the report; `advice` says what would mend it."""

    level: Level
    topic: str
    text: str
    advice: str = ""


def examine(config: ServerConfig) -> int:
    """Prints the report; returns the exit code."""
    worst: Level = "ok"
    for finding in _findings(config):
        sys.stdout.write(line(finding) + "\n")
        sys.stdout.flush()
        worst = max(worst, finding.level, key=[*VERDICTS].index)
    code, verdict = VERDICTS[worst]
    sys.stdout.write(verdict + "\n")
    return code


def line(finding: Finding) -> str:
    """As people read it."""
    advice = f"\n{'':19}→ {finding.advice}" if finding.advice else ""
    return f"{finding.level:6} {finding.topic:12}{finding.text}{advice}"


def _findings(config: ServerConfig) -> Iterator[Finding]:
    from engine.llama.system import system_report

    report = system_report()
    flags = cpu_flags()
    yield from machine()
    yield build(report)
    yield from instructions(flags, report.features)
    yield from devices(report)
    yield from environment(os.environ)
    headers = Headers()
    for model in initial_models(config.models):
        yield from served(config, model, headers)


# The machine


def machine() -> Iterator[Finding]:
    """Processor, cores and memory."""
    from engine.llama.model import physical_cores, usable_cores
    from engine.probe import is_busy

    memory = available_memory()
    cores = f"{physical_cores()} cores ({usable_cores()} threads)"
    room = f", {gigabytes(memory)} of memory available" if memory is not None else ""
    yield Finding("ok", "machine", f"{processor_name()}, {cores}{room}")
    quota = cpu_quota()
    if quota is not None and quota < usable_cores():
        yield Finding(
            "slow",
            "machine",
            f"the container may use {quota:g} of {usable_cores()} processors",
            f"--threads {max(1, int(quota))}, or raise the limit",
        )
    if is_busy():
        yield Finding(
            "slow",
            "machine",
            "other processes keep the processor busy: what is measured now is noise",
            "start again when it is quiet",
        )


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The processor's instructions in the kernel's words; empty where it does not tell."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return frozenset()
    found = (
        row.partition(":")[2].split() for row in lines if row.startswith(("flags", "Features"))
    )
    return frozenset(next(found, []))


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Processors that version 2 of Linux's control groups allows; None is no limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


# The build


def build(report: SystemReport) -> Finding:
    """Which llama.cpp, and what it uses."""
    from importlib.metadata import version

    text = f"llama-cpp-python {version('llama-cpp-python')}: {' '.join(report.features)}"
    return Finding("ok", "build", text)


def instructions(flags: Iterable[str], features: Iterable[str]) -> Iterator[Finding]:
    """What the processor has and the build does not use, and the other way round."""
    has = {FEATURES[flag] for flag in flags if flag in FEATURES}
    uses = set(features) & set(FEATURES.values())
    if not has:
        return
    if unused := sorted(has - uses):
        yield Finding(
            "slow",
            "build",
            f"the processor has {', '.join(unused)}, which this build does not use",
            f"compile it here: {REBUILD}",
        )
    if missing := sorted(uses - has):
        yield Finding(
            "error",
            "build",
            f"this build needs {', '.join(missing)}, which the processor does not have",
            f"compile it here: {REBUILD}",
        )


def devices(
    report: SystemReport, signs: Mapping[str, tuple[str, str]] = GPU_SIGNS
) -> Iterator[Finding]:
    """What llama.cpp sees; a GPU that it does not see."""
    for device in report.devices:
        room = f", {gigabytes(device.free_bytes)} free" if device.free_bytes else ""
        yield Finding("ok", "device", f"{device.name} ({device.kind}): {device.description}{room}")
    if any(device.kind in ("gpu", "integrated gpu") for device in report.devices):
        return
    for path, (what, flag) in signs.items():
        if Path(path).exists():
            how = f'CMAKE_ARGS="{flag}" {REBUILD}'
            yield Finding("slow", "device", f"{what} is there, but llama.cpp does not use it", how)


def environment(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Variables and packages that cost speed."""
    if environ.get("OMP_WAIT_POLICY", "").lower() == "passive":
        yield Finding(
            "slow",
            "environment",
            "OMP_WAIT_POLICY is passive: alone on the machine, tokens take twice as long",
            "unset it",
        )
    if sys.platform != "win32":
        try:
            import uvloop  # noqa: F401
        except ImportError:
            yield Finding("slow", "environment", "uvloop is missing", "pip install uvloop")


# The models


def served(config: ServerConfig, model: ModelConfig, headers: Headers) -> Iterator[Finding]:
    """Whether a model can be served, and how it would be."""
    topic = "model"
    if model.hub is not None:
        yield Finding("ok", topic, f"{model.name}: fetched from its hub when the server starts")
        return
    try:
        header = headers.read(model.settings.path)
        check_memory(header, model.settings)
        yield Finding("ok", topic, f"{model.name}: {file_text(header, model)}")
        if config.probe:
            yield from probed(config, model, header)
    except ModelLoadError as error:
        yield Finding("error", topic, f"{model.name}: {error}")


def file_text(header: GGUFHeader, model: ModelConfig) -> str:
    """What the file is, and what it takes."""
    cache = gigabytes(kv_bytes(header, model.settings))
    return (
        f"{model.settings.path.name}, {header.architecture}, "
        f"{gigabytes(header.tensor_bytes)} of weights, {cache} of KV cache"
    )


def probed(config: ServerConfig, model: ModelConfig, header: GGUFHeader) -> Iterator[Finding]:
    """What would be chosen for it; raises ModelLoadError."""
    from engine.probe import probe

    result = probe(
        model.settings, header=header, cache_dir=config.cache_dir, on_step=lambda step, done: None
    )
    yield Finding("ok", "settings", choice_text(result))
    if result.busy:
        yield Finding(
            "slow",
            "settings",
            "they are defaults: others used the processor when the file was tried",
            "start the server once while the machine is quiet",
        )
    if result.warning:
        yield Finding("slow", "settings", result.warning)


def choice_text(result: ProbeResult) -> str:
    """The probe's answer in one line."""
    flash = "on" if result.flash_attention else "off"
    chosen = f"{result.threads} threads, flash attention {flash}, ubatch {result.ubatch_size}"
    speeds = [
        f"{name}: {1 / each.decode:.0f} tokens/s, prompts {1 / each.prefill_token:.0f}/s"
        for name, each in result.timings.items()
        if not result.busy and each.decode > 0 and each.prefill_token > 0
    ]
    return f"{chosen} (flash attention {'; '.join(speeds)})" if speeds else chosen
