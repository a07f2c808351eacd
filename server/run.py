"""Runs uvicorn on the bound socket while the models load behind it, until a signal drains it."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from server.app import create_app
from server.config import ServerConfig
from server.connections import Limits, guarded
from server.crashes import CrashRecord
from server.loader import Loader
from server.models import Models
from server.progress import Display, ready_line
from server.reload import Reloader
from server.startup import url
from server.tracing import open_tracing

log = logging.getLogger("ingle.server")

LOAD_FAILED = 2


class Server(uvicorn.Server):
    """uvicorn with our signals: the first one drains, the second one ends the process."""

    def __init__(self, config: uvicorn.Config, models: Models, drain_timeout: float) -> None:
        """What runs `drain_timeout` seconds after the first signal is ended by name."""
        super().__init__(config)
        self._models = models
        self._drain_timeout = drain_timeout

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
        # Before the log line: the next signal may come while it is written.
        self.should_exit = True
        log.info("%s: finishing the running requests", signal.Signals(number).name)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn cuts what is not over in time; before it does, streams hear why they end."""
        ending = asyncio.create_task(self._end_unfinished())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    async def _end_unfinished(self) -> None:
        await asyncio.sleep(self._drain_timeout)
        await self._models.drain(0)


SIGNALS = (signal.SIGINT, signal.SIGTERM)
LAST_WORDS = 5
"""Seconds in which clients can read that their streams were ended."""


def run_server(
    config: ServerConfig,
    listener: socket.socket,
    loader: Loader,
    display: Display,
    budget: int | None,
    record: CrashRecord | None,
    read_config: Callable[[], ServerConfig],
) -> int:
    """Serve until stopped; returns the exit code. `budget` is the memory that models may take in
    bytes, `record` the supervisor's, if there is one; `read_config` is asked on reload."""
    models = Models(
        config.models, loader, locate=loader.locate, survey=loader.survey, budget=budget
    )
    reloader = Reloader(models, config, read_config, loader.headers)
    limits = Limits(
        connections=config.max_connections,
        connections_per_client=config.max_connections_per_client,
        write_seconds=config.write_timeout,
    )
    server = Server(
        uvicorn.Config(
            create_app(config, models, record, reloader, open_tracing(os.environ)),
            http=guarded(limits),
            ws="none",
            loop="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            # Clients keep idle connections a minute: closing first races with their next request.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=math.ceil(config.drain_timeout) + LAST_WORDS,
        ),
        models,
        config.drain_timeout,
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(serve(server, models, listener, display, record, reloader))
        if models.keeper.loading:
            # A thread is inside llama.cpp's loader and would outlive the interpreter.
            os._exit(code)
    return code


async def serve(
    server: Server,
    models: Models,
    listener: socket.socket,
    display: Display,
    record: CrashRecord | None,
    reloader: Reloader,
) -> int:
    """Say when the models are ready, or why they never will be."""
    address = url(listener)
    reload_on_signal(reloader)
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
        if record is not None:
            record.mark_ready()
        sys.stderr.write("".join(f"{line}\n" for line in ready_lines(models, address)))
    await serving
    return code


def ready_lines(models: Models, address: str) -> Iterator[str]:
    """What was loaded, and what will be when it is asked for."""
    for model in models.initial:
        yield ready_line(model.name, model.info, address)
    later = ", ".join(model.name for model in models.models if model not in models.initial)
    if later:
        yield f"{'' if models.initial else 'ready: '}on first use: {later} · {address}"


def reload_on_signal(reloader: Reloader) -> None:
    """SIGHUP, where there is one."""
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()

    def begin() -> None:
        task = loop.create_task(reloader.reload_or_log())
        running.add(task)
        task.add_done_callback(running.discard)

    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, begin)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
