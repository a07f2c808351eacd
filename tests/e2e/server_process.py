"""A real server: `python -m server` in a process of its own, on a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]
READY = re.compile(r"ready: (\S+) .* (http://\S+/v1)")
START_TIMEOUT = 120
COMMON = (
    *("--threads", "1", "--no-probe", "--port", "0"),
    *("--flash-attention", "off", "--alias", "embedded"),
)


class ServerProcess:
    """Started by `with`, and stopped however the block ends."""

    def __init__(self, flags: Sequence[str] = ()) -> None:
        self._command = [sys.executable, "-m", "server", *COMMON, *flags]
        self._ready = threading.Event()
        self._line_came = threading.Condition()
        self.lines: list[str] = []
        self.base_url = ""
        self.model = ""

    def __enter__(self) -> Self:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("INGLE_")}
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, env=clean, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(START_TIMEOUT) or not self.base_url:
            self.__exit__(None, None, None)
            raise RuntimeError("the server did not start:\n" + "".join(self.lines))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._line_came:
                self.lines.append(line)
                self._line_came.notify_all()
            if found := READY.search(line):
                self.model, self.base_url = found.groups()
                self._ready.set()
        self._ready.set()

    def wait_for_line(self, pattern: str, timeout: float = 60) -> str:
        """The first line of the log that contains `pattern`."""

        def find() -> str | None:
            return next((line for line in self.lines if re.search(pattern, line)), None)

        with self._line_came:
            assert self._line_came.wait_for(find, timeout), f"no {pattern} in {self.lines[-9:]}"
            return find() or ""

    def wait_for(self, condition: Callable[[], bool], timeout: float = 60) -> None:
        """Looked at whenever a line of the log comes."""
        with self._line_came:
            assert self._line_came.wait_for(condition, timeout), self.lines[-9:]

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self.base_url.removeprefix("http://").removesuffix("/v1").rsplit(":", 1)
        return host, int(port)

    @property
    def root_url(self) -> str:
        """Without the /v1."""
        return self.base_url.removesuffix("/v1")
