"""Servers as processes of their own, for the time of a benchmark."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120.0
"""Seconds in which a server must be ready."""


class Server(NamedTuple):
    """One that is ready."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def serving(*command: str) -> Iterator[Server]:
    """`command --port N`, once it answers /health; Ingle's and llama-server's both do."""
    port = free_port()
    whole, url = [*command, "--port", str(port)], f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(whole, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=log)
        try:
            if not _healthy(process, url):
                log.seek(0)
                text = log.read().decode("utf-8", "replace")[-2000:]
                raise SystemExit(f"this did not become healthy: {shlex.join(whole)}\n{text}")
            yield Server(url, process)
        finally:
            process.terminate()
            process.wait()


def ingle(*flags: str) -> contextlib.AbstractContextManager[Server]:
    """This checkout's server."""
    return serving(sys.executable, "-m", "server", "--log-level", "error", *flags)


def free_port() -> int:
    """Nobody's at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def children(pid: int) -> Sequence[int]:
    """The processes that `pid` started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _healthy(process: subprocess.Popen[bytes], url: str) -> bool:
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/health").close()
            return True
        time.sleep(0.1)
    return False
