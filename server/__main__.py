"""`python -m server`: every bad start is one line on stderr and exit code 2."""

from __future__ import annotations

import os
import sys

from engine.errors import ModelLoadError
from server.config import ConfigError, load_config, misspelt_variables
from server.startup import StartError, bind, check_files, prepare_environment


def main() -> int:
    """Returns the exit code: 0 after a drained shutdown, 2 where nothing could be served."""
    try:
        config = load_config(sys.argv[1:], os.environ)
        headers = check_files(config)
        socket = bind(config.host, config.port)
    except (ConfigError, ModelLoadError, StartError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    prepare_environment(config)
    for line in misspelt_variables(os.environ):
        sys.stderr.write(f"warning: {line}\n")
    # uvicorn, Starlette and NumPy take longer to import than everything above to run.
    from server.run import run_server

    return run_server(config, headers, socket)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
