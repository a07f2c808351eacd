"""`python -m server`: every bad start is one line on stderr and exit code 2."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from engine.errors import ModelLoadError
from server.config import ConfigError, ServerConfig, initial_models, load_config, misspelt_variables
from server.crashes import CrashRecord
from server.doctor import examine
from server.loader import Headers, Loader
from server.progress import open_display
from server.startup import StartError, bind, check_exposure, check_files, prepare_environment
from server.supervisor import Supervisor, can_supervise


def main() -> int:
    """Returns the exit code: 0 after a drained shutdown, 2 where nothing could be served."""

    def read_config() -> ServerConfig:
        return load_config(sys.argv[1:], os.environ)

    try:
        config = read_config()
        if config.doctor:
            prepare_environment(config)
            return examine(config)
        headers = Headers()
        budget = check_files(config, headers)
        socket = bind(config.host, config.port)
        check_exposure(config, socket)
    except (ConfigError, ModelLoadError, StartError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    prepare_environment(config)
    for line in misspelt_variables(os.environ):
        sys.stderr.write(f"warning: {line}\n")
    if hasattr(signal, "SIGHUP"):
        # Means "read the configuration again", once there is somebody to do it.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    record = None
    if config.supervise and can_supervise():
        record = CrashRecord()
        code = Supervisor(record).run()
        if code is not None:
            return code
        if record.crashes:
            # What the last worker had read again, its successor must not forget.
            config, budget = read_again(read_config, headers) or (config, budget)
    display = open_display()
    loader = Loader(config, headers, display)
    for model in initial_models(config.models)[:1]:
        loader.begin(model)
    # uvicorn, Starlette and the templates import while llama.cpp loads.
    from server.run import run_server

    return run_server(config, socket, loader, display, budget, record, read_config)


def read_again(
    read_config: Callable[[], ServerConfig], headers: Headers
) -> tuple[ServerConfig, int | None] | None:
    """The configuration and the memory budget as they are now; None where they have errors."""
    try:
        config = read_config()
        return config, check_files(config, headers)
    except (ConfigError, ModelLoadError) as error:
        sys.stderr.write(f"warning: the configuration of the start is taken: {error}\n")
        return None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        # A thread may be inside llama.cpp's loader and must not outlive the interpreter.
        os._exit(130)
