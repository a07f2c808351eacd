"""Runs uvicorn on the bound socket while the models load behind it, until a signal drains it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from engine.engine import Engine
from engine.gguf_check import GGUFHeader
from engine.probe import probe
from server.app import create_app
from server.config import ModelConfig, ServerConfig
from server.models import Models
from server.progress import Display, open_display, ready_line
from server.startup import url

log = logging.getLogger("ingle.server")

LOAD_FAILED = 2


class Server(uvicorn.Server):
    """uvicorn with our signals: the first one drains, the second one ends the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Replaces uvicorn's own, which a second SIGTERM would not stop."""
        previous = {number: signal.signal(number, self.stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def stop(self, number: int, _frame: object = None) -> None:
        """A signal handler."""
        if self.should_exit:
            os._exit(128 + number)
        log.info("%s: finishing the running requests", signal.Signals(number).name)
        self.should_exit = True


SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_server(
    config: ServerConfig, headers: Mapping[Path, GGUFHeader], listener: socket.socket
) -> int:
    """Serve until stopped; returns the exit code."""
    display = open_display()
    models = Models(config.models, Loader(config, headers, display))
    server = Server(
        uvicorn.Config(
            create_app(config, models),
            http="httptools",
            loop="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(config.drain_timeout)),
        )
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(serve(server, models, listener, display))
        if not models.loaded.is_set():
            # A thread is inside llama.cpp's loader and would outlive the interpreter.
            os._exit(code)
    return code


async def serve(server: Server, models: Models, listener: socket.socket, display: Display) -> int:
    """Say when the models are ready, or why they never will be."""
    address = url(listener)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    loading = asyncio.create_task(models.wait_loaded())
    await asyncio.wait((serving, loading), return_when=asyncio.FIRST_COMPLETED)
    display.close()
    code = 0
    if not loading.done():
        loading.cancel()
    elif failure := loading.exception():
        sys.stderr.write(f"error: {failure}\n")
        server.should_exit = True
        code = LOAD_FAILED
    else:
        for model in models.models:
            sys.stderr.write(ready_line(model.name, model.engine.info, address) + "\n")
    await serving
    return code


class Loader:
    """Probes and loads one model; runs in the loading thread."""

    def __init__(
        self, config: ServerConfig, headers: Mapping[Path, GGUFHeader], display: Display
    ) -> None:
        self._config = config
        self._headers = headers
        self._display = display

    def __call__(self, model: ModelConfig, report: Callable[[str, float], None]) -> Engine:
        """Raises ModelLoadError."""

        def show(step: str, fraction: float) -> None:
            report(step, fraction)
            self._display.show(model.name, step, fraction)

        settings = model.settings
        if self._config.probe:
            result = probe(
                settings,
                header=self._headers[settings.path],
                cache_dir=self._config.cache_dir,
                on_step=show,
            )
            if result.warning:
                log.warning(result.warning)
            settings = result.apply(settings)
        show("loading", 0.0)
        return Engine.load(settings, lambda fraction: show("loading", fraction))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
