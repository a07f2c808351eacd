"""A worker that native code kills is replaced behind the same socket, and the cause is named."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.server_process import ServerProcess

# Without its end-of-generation tokens the model fills the context, which takes long enough.
ENDLESS = {
    "messages": [{"role": "user", "content": "Count."}],
    "logit_bias": {"0": -100, "2": -100},
    "stream": True,
}
SHORT = {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 1}


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with ServerProcess(("--context", "1024", "--parallel", "2")) as process:
        yield process


def worker_of(server: ServerProcess) -> int:
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])


def kill_worker_under(server: ServerProcess, body: dict[str, object]) -> None:
    """SIGSEGV in the middle of an answer, and wait for the next worker."""
    worker = worker_of(server)
    with httpx.stream("POST", server.base_url + "/chat/completions", json=body) as response:
        assert response.status_code == 200, response.read()
        chunks = response.iter_raw()
        next(chunks)
        os.kill(worker, signal.SIGSEGV)
        with pytest.raises(httpx.RemoteProtocolError):
            list(chunks)
    # The parent holds the socket: a client that comes now waits, and is answered.
    while httpx.get(server.root_url + "/health", timeout=60).status_code != 200:
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker through /proc")
def test_a_killed_worker_is_replaced_and_its_cause_named(server: ServerProcess) -> None:
    for crash in range(1, 4):
        kill_worker_under(server, ENDLESS)
        health = httpx.get(server.root_url + "/health").json()
        assert health["restarts"] == crash
        assert health["last_crash"]["cause"] == "SIGSEGV"
        assert health["last_crash"]["requests"] == 1
    server.wait_for_line("killed by SIGSEGV .* with 1 requests in flight")
    refused = httpx.post(server.base_url + "/chat/completions", json=ENDLESS)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "crashed_before"
    answer = httpx.post(server.base_url + "/chat/completions", json=SHORT, timeout=60)
    assert answer.status_code == 200
    server.terminate()
    assert server.process.wait(60) == 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the worker through /proc")
def test_no_worker_outlives_its_parent(server: ServerProcess) -> None:
    server.process.kill()
    # The last writer of the pipe is the worker: its end is the end of the log.
    server._reader.join(60)
    assert not server._reader.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address).close()
