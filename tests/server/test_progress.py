"""What the terminal shows while a model loads, and the line at the end."""

from __future__ import annotations

import io
import os
import pty
from pathlib import Path

import pytest

from engine.settings import ModelInfo, ModelSettings
from server.loader import unprobed
from server.progress import Bar, Lines, open_display, ready_line


def test_logs_get_a_line_a_step():
    out = io.StringIO()
    display = open_display(out)
    for fraction in (0.0, 0.5, 1.0):
        display.show("m", "loading", fraction)
    display.show("m", "measuring", 0.0)
    display.show("n", "measuring", 0.0)
    display.close()
    assert isinstance(display, Lines)
    assert out.getvalue() == "m: loading\nm: measuring\nn: measuring\n"


def test_a_terminal_gets_a_bar_that_vanishes(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    reading, writing = pty.openpty()
    with os.fdopen(writing, "w") as terminal, os.fdopen(reading, "rb", buffering=0) as screen:
        display = open_display(terminal)
        assert isinstance(display, Bar)
        display.show("some-model", "measuring", 0.2)
        display.show("some-model", "loading", 0.9)
        display.close()
        terminal.write("\0")
        terminal.flush()
        data = b""
        while not data.endswith(b"\0"):
            data += screen.read(65536)  # On a busy machine it comes in pieces.
    shown = data.rstrip(b"\0").decode()
    assert "some-model" in shown
    assert "loading" in shown
    # The cursor comes back, and the bar's line is erased at the end.
    assert "\x1b[?25h" in shown
    assert shown.rstrip().endswith("\x1b[2K")


def test_a_bar_that_never_started_closes():
    display = Bar(io.StringIO())
    display.close()


def test_the_ready_line():
    info = ModelInfo(
        architecture="llama",
        description="llama 8B Q4_K - Medium",
        quantization="Q4_K",
        n_params=8_000_000_000,
        file_bytes=4_900_000_000,
        kv_bytes=536_000_000,
        context=8192,
        context_trained=131072,
        parallel=4,
        n_vocab=128256,
        chat_template=None,
        bos_token="",
        eos_token="",
        device="CUDA0",
        fingerprint="fp",
    )
    assert ready_line("name", info, "http://127.0.0.1:8080/v1") == (
        "ready: name (llama 8B Q4_K - Medium) · 8192 tokens × 4 parallel · 5.4 GB (4.9 GB weights,"
        " 536 MB KV cache) · CUDA0 · http://127.0.0.1:8080/v1"
    )


@pytest.mark.parametrize(
    ("gpu", "layers", "chosen", "expected"),
    [
        (False, -2, None, False),
        (True, -2, None, True),
        (True, 0, None, False),
        (False, -2, True, True),
        (True, -1, False, False),
    ],
)
def test_without_a_probe_flash_attention_is_for_gpus(monkeypatch, gpu, layers, chosen, expected):
    monkeypatch.setattr("server.loader.has_gpu_library", lambda: gpu)
    settings = ModelSettings(path=Path("m"), n_gpu_layers=layers, flash_attention=chosen)
    assert unprobed(settings).flash_attention is expected
