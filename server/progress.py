"""What the terminal shows while models load: a bar for people, a line a step for logs."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Protocol, TextIO

from engine.memory import gigabytes
from engine.settings import ModelInfo

if TYPE_CHECKING:
    from rich.progress import Progress


class Display(Protocol):
    """Takes the steps of loading from any thread."""

    def show(self, model: str, step: str, fraction: float) -> None:
        """`fraction` of `step` is done (0–1)."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


def open_display(stream: TextIO | None = None) -> Display:
    """A bar on a terminal, lines elsewhere."""
    stream = stream or sys.stderr
    return Bar(stream) if stream.isatty() else Lines(stream)


class Lines:
    """One line when a step begins."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ("", "")

    def show(self, model: str, step: str, fraction: float) -> None:
        """See `Display`."""
        if (model, step) != self._last:
            self._last = (model, step)
            self._stream.write(f"{model}: {step}\n")
            self._stream.flush()

    def close(self) -> None:
        """See `Display`."""


class Bar:
    """A rich progress bar, one for all steps of a model; once closed, lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: Lines | None = None
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._task: tuple[str, int] = ("", 0)

    def show(self, model: str, step: str, fraction: float) -> None:
        """See `Display`."""
        with self._lock:
            if self._lines is not None:
                self._lines.show(model, step, fraction)
                return
            progress = self._progress = self._progress or self._start()
            if self._task[0] != model:
                self._task = (model, progress.add_task(model, total=1.0, step=step))
            progress.update(self._task[1], completed=fraction, step=step)  # type: ignore[arg-type]

    def _start(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[step]}"),
            TimeElapsedColumn(),
            console=Console(file=self._stream),
            transient=True,
        )
        progress.start()
        return progress

    def close(self) -> None:
        """See `Display`."""
        with self._lock:
            self._lines = Lines(self._stream)
            if self._progress is not None:
                self._progress.stop()


def ready_line(name: str, info: ModelInfo, url: str) -> str:
    """Model, quantization, context × parallel, memory, device, address."""
    return (
        f"ready: {name} ({info.description}) · {info.context} tokens × {info.parallel} parallel"
        f" · {gigabytes(info.file_bytes + info.kv_bytes)} ({gigabytes(info.file_bytes)} weights,"
        f" {gigabytes(info.kv_bytes)} KV cache) · {info.device} · {url}"
    )
