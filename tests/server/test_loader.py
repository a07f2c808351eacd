"""What is loaded while the server itself still starts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

from msgspec.structs import replace

from engine.settings import ModelSettings
from server.config import ModelConfig, ServerConfig
from server.loader import Headers, Loader
from server.progress import Lines
from tests.server.fakes import FakeEngine

MODEL = ModelConfig(name="m", settings=ModelSettings(path=Path("m.gguf")))


class FakeLoader(Loader):
    """Loads no file; waits for `proceed`."""

    def __init__(self) -> None:
        super().__init__(ServerConfig(models=(MODEL,)), Headers(), cast(Lines, None))
        self.proceed = threading.Event()
        self.engines: list[FakeEngine] = []

    def _load(self, model: ModelConfig) -> Any:
        engine = FakeEngine()
        self.engines.append(engine)
        if len(self.engines) == 1:
            assert self.proceed.wait(10)
        return engine


def silent(step: str, fraction: float) -> None:
    pass


def test_what_was_begun_early_is_taken() -> None:
    loader = FakeLoader()
    loader.begin(MODEL)
    loader.proceed.set()
    assert [loader(MODEL, silent)] == loader.engines
    assert not loader.engines[0].closed


def test_what_was_begun_under_another_configuration_is_closed() -> None:
    loader = FakeLoader()
    loader.begin(MODEL)
    while not loader.engines:
        loader.proceed.wait(0.001)
    other = loader(replace(MODEL, aliases=("n",)), silent)
    ended = threading.Event()
    first = loader.engines[0]
    first.close = lambda: (FakeEngine.close(first), ended.set())  # type: ignore[assignment]
    loader.proceed.set()
    assert ended.wait(10)
    assert first.closed
    assert other is loader.engines[1] and not loader.engines[1].closed
