"""Will this file load here, and which settings are fastest? Found out in a child process.

A file or a build that aborts native code takes only the child down. The child is
`python -m engine.probe SETTINGS BUDGET`: it prints a line of JSON a step, and ends with its answer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

import engine.errors
from engine.errors import ModelLoadError, NativeCrash, OutOfMemory
from engine.gguf_check import GGUFHeader, check_gguf
from engine.measure import BUDGET, Choice, OnStep, Timings, measure
from engine.probe_cache import cache_directory, cache_file, read_entry, write_entry
from engine.settings import ModelSettings

CHECKOUT = Path(__file__).resolve().parent.parent
REBUILD = "python3 engine/install.py --force"
START_TIMEOUT = 60.0
SLOWEST_READ = 20e6
"""Bytes per second of the slowest disk that is waited for."""


class ProbeResult(Struct, frozen=True, kw_only=True):
    """What was found; the fields of `ModelSettings` that it can fill, and a warning to repeat."""

    flash_attention: bool
    threads: int
    ubatch_size: int
    use_extra_bufts: bool | None = None
    warning: str | None = None
    timings: dict[str, Timings] = {}
    """By flash attention, `on` and `off`."""
    busy: bool = False
    """Others were using the processor: measured anew when they are not."""

    def apply(self, settings: ModelSettings) -> ModelSettings:
        """Fill what is None; what was chosen stays."""
        found = {
            "flash_attention": self.flash_attention,
            "threads": self.threads,
            "ubatch_size": self.ubatch_size,
            "use_extra_bufts": self.use_extra_bufts,
        }
        return replace(
            settings,
            **{name: value for name, value in found.items() if getattr(settings, name) is None},
        )


class Message(Struct, omit_defaults=True):
    """A line of the child: a step, the answer, or the error that ended it."""

    step: str | None = None
    fraction: float = 0.0
    choice: Choice | None = None
    error: str | None = None
    """The class in `engine.errors`."""
    reason: str = ""


def probe(
    settings: ModelSettings,
    *,
    on_step: OnStep,
    header: GGUFHeader | None = None,
    cache_dir: Path | None = None,
) -> ProbeResult:
    """The remembered or newly measured answer; raises ModelLoadError where it cannot be served."""
    header = header or check_gguf(settings.path)
    entry = cache_file(cache_directory(cache_dir), settings, header)
    remembered = read_entry(entry, ProbeResult)
    busy = is_busy()
    if remembered is not None and (busy or not remembered.busy):
        return remembered
    on_step("probing", 0.0)
    # Beside others a measurement is noise: the file is tried, the defaults are taken.
    found = probe_now(settings, header, on_step, 0.0 if busy else BUDGET)
    result = replace(found, busy=busy)
    write_entry(entry, result)
    return result


def is_busy() -> bool:
    """True where other processes kept more than a quarter of the cores during the last minute."""
    try:
        return os.getloadavg()[0] > 0.25 * (os.cpu_count() or 1)
    except (AttributeError, OSError):
        return False


def probe_now(
    settings: ModelSettings, header: GGUFHeader, on_step: OnStep, budget: float = BUDGET
) -> ProbeResult:
    """Run the child; once more without extra buffer types if it met an illegal instruction."""
    timeout = START_TIMEOUT + header.tensor_bytes / SLOWEST_READ
    try:
        return to_result(run_child(settings, budget, timeout, on_step))
    except NativeCrash as crash:
        if crash.signal != signal.SIGILL or settings.use_extra_bufts is not None:
            raise
    on_step("probing without extra buffers", 0.0)
    choice = run_child(replace(settings, use_extra_bufts=False), budget, timeout, on_step)
    warning = (
        "this build of llama.cpp crashes with its fastest weight layout (illegal instruction); "
        f"the slower one is used. Rebuild it with: {REBUILD}"
    )
    return replace(to_result(choice), use_extra_bufts=False, warning=warning)


def to_result(choice: Choice) -> ProbeResult:
    return ProbeResult(
        flash_attention=choice.flash_attention,
        threads=choice.threads,
        ubatch_size=choice.ubatch_size,
        timings=choice.timings,
    )


# The parent's side


def command(settings: ModelSettings, budget: float) -> list[str]:
    """The child's; its paths are absolute because it runs in the checkout."""
    lora = tuple(replace(adapter, path=adapter.path.absolute()) for adapter in settings.lora)
    absolute = replace(settings, path=settings.path.absolute(), lora=lora)
    return [sys.executable, "-m", "engine.probe", encode(absolute).decode(), str(budget)]


def run_child(settings: ModelSettings, budget: float, timeout: float, on_step: OnStep) -> Choice:
    """Raises the child's ModelLoadError, or NativeCrash, or ModelLoadError after `timeout`."""
    process = subprocess.Popen(
        command(settings, budget),
        cwd=CHECKOUT,
        # ggml would start a debugger to print a backtrace of an abort.
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    timed_out = threading.Event()

    def stop() -> None:
        timed_out.set()
        process.kill()

    timer = threading.Timer(timeout, stop)
    timer.daemon = True
    timer.start()
    stderr: list[str] = []
    with process:
        assert process.stdout and process.stderr
        reader = threading.Thread(target=lambda e: stderr.extend(e), args=(process.stderr,))
        reader.start()
        try:
            last = follow(process.stdout, on_step)
        finally:
            if sys.exc_info()[0] is not None:
                process.kill()
            process.wait()
            timer.cancel()
            reader.join()
    if timed_out.is_set():
        raise ModelLoadError(
            f"{settings.path} did not load within {timeout:.0f} s; --no-probe leaves this check out"
        )
    return outcome(settings, process.returncode, last, stderr)


def follow(lines: Iterable[str], on_step: OnStep) -> Message:
    """Report the steps; returns the last message. What native code prints is passed over."""
    last = Message()
    for line in lines:
        try:
            last = msgspec.json.decode(line, type=Message)
        except msgspec.DecodeError:
            continue
        if last.step is not None:
            on_step(last.step, last.fraction)
    return last


def outcome(settings: ModelSettings, code: int, last: Message, stderr: list[str]) -> Choice:
    """The child's answer, or its end as an exception."""
    if last.choice is not None:
        return last.choice
    if last.error is not None:
        kind: type[ModelLoadError] = getattr(engine.errors, last.error)
        raise kind(last.reason)
    why = reason_in(stderr)
    if code == -signal.SIGKILL:
        raise OutOfMemory(
            f"loading {settings.path} was killed, most likely for want of memory: "
            "lower context or parallel"
        )
    if code < 0:
        name = signal.Signals(-code).name
        hint = f"; rebuild it with: {REBUILD}" if -code == signal.SIGILL else ""
        raise NativeCrash(
            -code, f"llama.cpp crashed ({name}) on {settings.path}{': ' if why else ''}{why}{hint}"
        )
    raise ModelLoadError(f"probing {settings.path} failed: {why or f'exit code {code}'}")


def reason_in(stderr: list[str]) -> str:
    """The failed assertion, else the last line."""
    lines = [line.strip() for line in stderr if line.strip()]
    asserted = [line for line in lines if "GGML_ASSERT" in line or "ggml_abort" in line]
    return (asserted or lines[-1:] or [""])[0]


def encode(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=str)


def decode_settings(text: str) -> ModelSettings:
    def hook(kind: type, value: Any) -> Any:
        return kind(value)

    return msgspec.json.decode(text, type=ModelSettings, dec_hook=hook)


# The child's side


def main() -> None:
    """Load, measure, answer on stdout; ends with the process that started it."""
    settings = decode_settings(sys.argv[1])
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        answer = Message(choice=measure_file(settings, float(sys.argv[2])))
    except ModelLoadError as error:
        answer = Message(error=type(error).__name__, reason=str(error))
    say(answer)
    # Freeing a large model takes time that nobody needs to wait for.
    os._exit(0)


def measure_file(settings: ModelSettings, budget: float) -> Choice:
    say(Message(step="probing", fraction=0.1))
    if check_gguf(settings.path).task != "generate":
        from engine.llama.embedding_bench import measure_embedding

        return measure_embedding(settings, budget)
    from engine.llama.bench import Bench

    bench = Bench(settings)
    return measure(
        bench,
        settings,
        Bench.thread_choices(),
        lambda step, fraction: say(Message(step=step, fraction=0.3 + 0.7 * fraction)),
        budget=budget,
    )


def end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def say(message: Message) -> None:
    sys.stdout.write(encode(message).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
