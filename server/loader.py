"""Loads a model: where its file is, what the probe found, then the engine."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.errors import ModelFileNotFound, ModelLoadError
from engine.gguf_check import GGUFHeader, check_gguf
from engine.memory import check_memory, has_gpu_library, kv_bytes
from engine.settings import ModelSettings, Task
from server.config import ModelConfig, ServerConfig
from server.hub import fetch, find_cached
from server.located import Located
from server.progress import Display

if TYPE_CHECKING:
    from engine.probe import ProbeResult
    from server.served_model import AnyEngine

log = logging.getLogger("ingle.server")

Report = Callable[[str, float], None]


class Headers:
    """The headers of model files, each read once while the file stays as it is; for any thread."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, int, GGUFHeader]] = {}

    def read(self, path: Path) -> GGUFHeader:
        """Raises ModelFileNotFound and InvalidModelFile."""
        try:
            stat = path.stat()
        except OSError:
            return check_gguf(path)
        known = self._known.get(path)
        if known is None or known[:2] != (stat.st_size, stat.st_mtime_ns):
            known = self._known[path] = (stat.st_size, stat.st_mtime_ns, check_gguf(path))
        return known[2]

    def check(self, model: ModelConfig) -> Located:
        """What a model whose file is here takes; raises ModelLoadError."""
        settings = model.settings
        header = self.read(settings.path)
        for adapter in settings.lora:
            if not adapter.path.is_file():
                raise ModelFileNotFound(f"no such LoRA file: {adapter.path}")
            self.read(adapter.path)
        weights = header.tensor_bytes + sum(each.path.stat().st_size for each in settings.lora)
        return Located(model, header, weights, kv_bytes(header, settings))


class Loader:
    """Called in loading threads; raises ModelLoadError."""

    def __init__(self, config: ServerConfig, headers: Headers, display: Display) -> None:
        self._config = config
        self.headers = headers
        self._display = display
        self._begun: dict[str, tuple[ModelConfig, Future[AnyEngine]]] = {}
        self._reports: dict[str, Report] = {}

    def begin(self, model: ModelConfig) -> None:
        """Load in a thread of its own: native code runs beside the main thread's imports."""
        if model.hub is not None:
            return
        future: Future[AnyEngine] = Future()
        self._begun[model.name] = model, future

        def run() -> None:
            try:
                future.set_result(self._load(model))
            except BaseException as error:  # noqa: BLE001, it is raised where the result is taken
                future.set_exception(error)

        threading.Thread(target=run, name="load-first", daemon=True).start()

    def locate(self, model: ModelConfig, report: Report) -> Located:
        """The file, after a download if need be, and what it will take."""
        self._reports[model.name] = report
        if model.hub is not None:
            path = fetch(model.hub, lambda step, done: self._show(model, step, done))
            model = replace(model, settings=replace(model.settings, path=path))
        return self.headers.check(model)

    def survey(self, model: ModelConfig) -> Located | None:
        """The same of a file that is here; None where it is not, or is no model."""
        try:
            if model.hub is not None:
                path = find_cached(model.hub)
                if path is None:
                    return None
                model = replace(model, settings=replace(model.settings, path=path))
            return self.headers.check(model)
        except ModelLoadError:
            return None

    def __call__(self, model: ModelConfig, report: Report) -> AnyEngine:
        """The loaded engine, its steps told to `report`."""
        self._reports[model.name] = report
        begun, future = self._begun.pop(model.name, (None, None))
        if future is not None and begun == model:
            return future.result()
        if future is not None:
            # The configuration was read again meanwhile: nobody asks for what was begun.
            future.add_done_callback(_close)
        return self._load(model)

    def _load(self, model: ModelConfig) -> AnyEngine:
        from engine.probe_cache import cache_directory
        from engine.vocabulary_file import VocabularyFile

        header = self.headers.read(model.settings.path)
        check_memory(header, model.settings)
        found = self._probe(model, header) if self._config.probe else None
        settings = found.apply(model.settings) if found else unprobed(model.settings, header.task)
        self._show(model, "loading", 0.0)
        load = engine_class(header.task).load
        engine = load(settings, lambda done: self._show(model, "loading", done))
        engine.probed = found
        directory = cache_directory(self._config.cache_dir)
        engine.vocabulary_file = VocabularyFile(directory, settings.path, header.header_bytes)
        return engine

    def _probe(self, model: ModelConfig, header: GGUFHeader) -> ProbeResult:
        from engine.probe import probe

        result = probe(
            model.settings,
            header=header,
            cache_dir=self._config.cache_dir,
            on_step=lambda step, fraction: self._show(model, step, fraction),
        )
        if result.warning:
            log.warning(result.warning)
        return result

    def _show(self, model: ModelConfig, step: str, fraction: float) -> None:
        self._display.show(model.name, step, fraction)
        report = self._reports.get(model.name)
        if report is not None:
            report(step, fraction)


def _close(future: Future[AnyEngine]) -> None:
    if future.exception() is None:
        future.result().close()


def engine_class(task: Task) -> type[AnyEngine]:
    """By what the file is made for. NumPy and llama.cpp take a third of a second to import."""
    if task == "generate":
        from engine.engine import Engine

        return Engine
    from engine.embedding_engine import EmbeddingEngine

    return EmbeddingEngine


def unprobed(settings: ModelSettings, task: Task = "generate") -> ModelSettings:
    """Defaults that are never bad: flash attention pays where a GPU does the work, and where
    passes are long, as those of embedding models are."""
    if settings.flash_attention is not None:
        return settings
    on_gpu = settings.n_gpu_layers != 0 and has_gpu_library()
    return replace(settings, flash_attention=on_gpu or task != "generate")
