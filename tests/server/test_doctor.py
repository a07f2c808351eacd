"""The doctor: each finding on made-up machines, and the whole report of this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from engine.llama.system import Device, SystemReport, read_features, system_report
from engine.measure import Timings
from engine.probe import ProbeResult
from server import doctor
from server.doctor import Finding

ROOT = Path(__file__).parents[2]
CPU = Device("CPU", "Some CPU", "cpu", 0, 0)
GPU = Device("CUDA0", "Some GPU", "gpu", 8_000_000_000, 9_000_000_000)


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def test_features_are_what_is_not_zero() -> None:
    text = "CPU : AVX2 = 1 | AVX512 = 0 | SVE_CNT = 16 | CUDA : ARCHS = 860 | "
    assert read_features(text) == ("AVX2", "SVE_CNT", "ARCHS")


def test_unused_instructions_are_slow_and_missing_ones_fatal() -> None:
    (unused,) = doctor.instructions({"avx2", "amx_int8", "sse4_1"}, ["AVX2", "OPENMP"])
    assert (unused.level, unused.advice) == ("slow", f"compile it here: {doctor.REBUILD}")
    assert "AMX_INT8" in unused.text
    (missing,) = doctor.instructions({"avx2"}, ["AVX2", "AVX512"])
    assert missing.level == "error"
    assert "AVX512" in missing.text
    assert not list(doctor.instructions({"avx2"}, ["AVX2"]))
    assert not list(doctor.instructions((), ["AVX2"])), "unknown is not missing"


def test_a_gpu_that_is_not_used(tmp_path: Path) -> None:
    sign = tmp_path / "version"
    signs = {str(sign): ("a GPU", "-DGPU=on")}
    report = SystemReport("lib", (), False, (CPU,))
    assert levels(list(doctor.devices(report, signs))) == ["ok"]
    sign.touch()
    seen, unused = doctor.devices(report, signs)
    assert (seen.level, unused.level) == ("ok", "slow")
    assert "-DGPU=on" in unused.advice
    with_gpu = SystemReport("lib", (), True, (CPU, GPU))
    assert levels(list(doctor.devices(with_gpu, signs))) == ["ok", "ok"]


def test_cpu_flags_and_quota(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags\t\t: fpu avx2\nprocessor : 1\nflags : other\n")
    assert doctor.cpu_flags(info) == {"fpu", "avx2"}
    assert doctor.cpu_flags(tmp_path / "none") == frozenset()
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert doctor.cpu_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert doctor.cpu_quota(tmp_path) is None


def test_passive_waiting_is_slow() -> None:
    (finding,) = doctor.environment({"OMP_WAIT_POLICY": "PASSIVE"})
    assert finding.level == "slow"
    assert not list(doctor.environment({}))


def test_the_choice_in_one_line() -> None:
    timings = {"off": Timings(256, 0.002, 0.1, 0.1, 0.01, 0.01)}
    result = ProbeResult(flash_attention=False, threads=3, ubatch_size=512, timings=timings)
    assert doctor.choice_text(result) == (
        "3 threads, flash attention off, ubatch 512 "
        "(flash attention off: 100 tokens/s, prompts 500/s)"
    )


def test_this_build_sees_its_processor() -> None:
    report = system_report()
    assert [device.kind for device in report.devices].count("cpu") == 1
    assert Path(report.library).is_file()
    assert report.features


def run_doctor(*flags: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("INGLE_")}
    return subprocess.run(
        [sys.executable, "-m", "server", "--doctor", "--no-probe", *flags],
        cwd=ROOT,
        env=environ | {"OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_report_and_exit_code() -> None:
    ran = run_doctor("--context", "256")
    assert not ran.stderr
    topics = {row.split()[1] for row in ran.stdout.splitlines() if row.startswith(("ok", "slow"))}
    assert {"machine", "build", "device", "environment", "model"} <= topics
    assert ran.returncode == 1


def test_what_cannot_be_served(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    ran = run_doctor("--model", str(broken))
    assert "error  model" in ran.stdout
    assert "it cannot serve like this" in ran.stdout
    assert ran.returncode == 2
