"""Loads a model: what the probe found, then the engine; before the server needs it, if told so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.gguf_check import GGUFHeader
from engine.memory import has_gpu_library
from engine.settings import ModelSettings, Task
from server.config import ModelConfig, ServerConfig
from server.progress import Display

if TYPE_CHECKING:
    from server.served_model import AnyEngine

log = logging.getLogger("ingle.server")

Report = Callable[[str, float], None]


class Loader:
    """Called in a loading thread, once per model; raises ModelLoadError."""

    def __init__(
        self, config: ServerConfig, headers: Mapping[Path, GGUFHeader], display: Display
    ) -> None:
        self._config = config
        self._headers = headers
        self._display = display
        self._begun: dict[str, Future[AnyEngine]] = {}
        self._reports: dict[str, Report] = {}

    def begin(self, model: ModelConfig) -> None:
        """Load in a thread of its own: native code runs beside the main thread's imports."""
        future: Future[AnyEngine] = Future()
        self._begun[model.name] = future

        def run() -> None:
            try:
                future.set_result(self._load(model))
            except BaseException as error:  # noqa: BLE001, it is raised where the result is taken
                future.set_exception(error)

        threading.Thread(target=run, name="load-first", daemon=True).start()

    def __call__(self, model: ModelConfig, report: Report) -> AnyEngine:
        """The loaded engine, its steps told to `report`."""
        self._reports[model.name] = report
        begun = self._begun.pop(model.name, None)
        return begun.result() if begun else self._load(model)

    def _load(self, model: ModelConfig) -> AnyEngine:
        settings = self._probed(model) if self._config.probe else unprobed(model.settings)
        self._show(model, "loading", 0.0)
        load = engine_class(self._headers[model.settings.path].task).load
        return load(settings, lambda done: self._show(model, "loading", done))

    def _probed(self, model: ModelConfig) -> ModelSettings:
        from engine.probe import probe

        result = probe(
            model.settings,
            header=self._headers[model.settings.path],
            cache_dir=self._config.cache_dir,
            on_step=lambda step, fraction: self._show(model, step, fraction),
        )
        if result.warning:
            log.warning(result.warning)
        return result.apply(model.settings)

    def _show(self, model: ModelConfig, step: str, fraction: float) -> None:
        self._display.show(model.name, step, fraction)
        report = self._reports.get(model.name)
        if report is not None:
            report(step, fraction)


def engine_class(task: Task) -> type[AnyEngine]:
    """By what the file is made for. NumPy and llama.cpp take a third of a second to import."""
    if task == "generate":
        from engine.engine import Engine

        return Engine
    from engine.embedding_engine import EmbeddingEngine

    return EmbeddingEngine


def unprobed(settings: ModelSettings) -> ModelSettings:
    """Defaults that are never bad: flash attention only pays where a GPU does the work."""
    if settings.flash_attention is not None:
        return settings
    on_gpu = settings.n_gpu_layers != 0 and has_gpu_library()
    return replace(settings, flash_attention=on_gpu)
