"""Damaged model files at start-up: refused in one line or served, never a dead server.

INGLE_FUZZ=2000 runs the long form; INGLE_FUZZ_FROM=700 begins with number 700.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from engine.errors import ModelLoadError
from engine.gguf_check import check_gguf
from engine.probe import ProbeResult, probe_now
from engine.settings import ModelSettings
from tests.engine import tiny_models

FILES = int(os.environ.get("INGLE_FUZZ", "12"))
FROM = int(os.environ.get("INGLE_FUZZ_FROM", "0"))
KINDS = ("attention", "window", "recurrent", "hybrid")
NUMBERS = (0, 1, 2, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, int]]:
    """Files, and how many bytes of each come before the tensors' data."""
    folder = tmp_path_factory.mktemp("originals")
    paths = [tiny_models.write(folder / f"{kind}.gguf", kind) for kind in KINDS]
    return [(path.read_bytes(), check_gguf(path).header_bytes) for path in paths]


def damaged(rng: random.Random, original: bytes, header_bytes: int) -> bytes:
    """Somewhere else than it was; mostly in the header, where it hurts."""
    data = bytearray(original)
    for _ in range(rng.choice((1, 1, 2, 6))):
        end = header_bytes if rng.random() < 0.9 else len(data)
        at = rng.randrange(end - 8)
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at : at + 4] = (rng.choice(NUMBERS) & 0xFFFFFFFF).to_bytes(4, "little")
            case 2:
                data[at : at + 8] = rng.choice(NUMBERS).to_bytes(8, "little")
            case 3:
                size = rng.randrange(1, 64)
                data[at : at + size] = rng.randbytes(size)
    if rng.random() < 0.05:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


def test_damaged_files_end_in_one_line_or_load(
    originals: list[tuple[bytes, int]], tmp_path: Path
) -> None:
    outcomes: Counter[str] = Counter()
    for number in range(FROM, FILES):
        rng = random.Random(f"gguf/{number}")
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(damaged(rng, *rng.choice(originals)))
        try:
            outcomes[start(path)] += 1
        except BaseException as error:
            error.add_note(f"file {number}")
            raise
        path.unlink()
    assert outcomes["InvalidModelFile"] > outcomes.total() / 4, outcomes
    assert outcomes["loads"], outcomes


def start(path: Path) -> str:
    """What becomes of a server on this file, without the server."""
    settings = ModelSettings(path=path, context=64, parallel=1, threads=1)
    try:
        result = probe_now(settings, check_gguf(path), lambda step, fraction: None, budget=0.0)
    except ModelLoadError as error:
        assert "\n" not in str(error)
        assert str(error)
        return type(error).__name__
    assert isinstance(result, ProbeResult)
    return "loads"
