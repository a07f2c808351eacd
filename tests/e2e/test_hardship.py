"""What befalls a server that nobody watches: peers that do not read, memory that runs out, a file
that is damaged under it. One request pays, or none; the server stays."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.e2e import noise_model
from tests.e2e.footprint import Footprint
from tests.e2e.server_process import ServerProcess

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")

MESSAGES = [{"role": "user", "content": "Hi."}]
SHORT = {"messages": MESSAGES, "max_tokens": 2}
ENDLESS = {"messages": MESSAGES, "ignore_eos": True, "stream": True}
# Two kilobytes a token: more than the system's buffers take.
TALKATIVE = ENDLESS | {"n": 4, "logprobs": True, "top_logprobs": 20}
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""The limit of a control group, in bytes, under versions 2 and 1, where groups are made."""
HELD = 64
"""MiB that an answer which nobody reads may cost."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_model.write(tmp_path_factory.mktemp("noise") / "noise.gguf")


@pytest.fixture
def server(model: Path) -> Iterator[ServerProcess]:
    flags = "--context 2048 --parallel 4 --write-timeout 0.5"
    with ServerProcess((*flags.split(), "--model", str(model))) as process:
        yield process


def send(server: ServerProcess, path: str, body: object, request_id: str) -> socket.socket:
    """A connection with a small window, on which a request was sent."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(server.address)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: {request_id}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    peer.sendall(head.encode() + data)
    return peer


def is_well(server: ServerProcess) -> bool:
    """It answers, and no slot is taken."""
    httpx.post(server.base_url + "/chat/completions", json=SHORT, timeout=60).raise_for_status()
    (state,) = httpx.get(server.root_url + "/health").json()["models"].values()
    return (state["running"], state["waiting"]) == (0, 0)


def test_who_does_not_read_is_dropped(server: ServerProcess) -> None:
    assert is_well(server)
    before = Footprint.of(server.process.pid)
    with send(server, "/v1/chat/completions", TALKATIVE, "deaf"):
        server.wait_for_line(" 499 .* id=deaf", timeout=180)
        assert is_well(server)
    assert Footprint.of(server.process.pid).mib < before.mib + HELD


@pytest.mark.skipif("INGLE_LONG" not in os.environ, reason="INGLE_LONG=1 waits the ten seconds")
def test_half_open_connections_are_closed(server: ServerProcess) -> None:
    """Peers that said nothing or half a head, and are not heard of again."""
    before = Footprint.of(server.process.pid).files
    peers = [socket.create_connection(server.address) for _ in range(9)]
    for number, peer in enumerate(peers):
        peer.sendall((b"", b"POST /v1/chat/comp", b"GET / HTTP/1.1\r\nHost: x\r\n")[number % 3])
    assert is_well(server)
    for peer in peers:
        peer.settimeout(120)
        assert peer.recv(100).startswith(b"HTTP/1.1 408")
        peer.close()
    assert is_well(server)
    assert Footprint.of(server.process.pid).files <= before


def worker_of(server: ServerProcess) -> int:
    pid = server.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.fixture
def confined() -> Iterator[Path]:
    """A control group of 2 MiB: its `cgroup.procs` takes a process, whose memory of before does not
    count."""
    for limit in LIMITS:
        group = limit.parent / f"ingle-{os.getpid()}"
        try:
            (limit.parent / "cgroup.procs").stat()
            group.mkdir()
        except OSError:
            continue
        try:
            with suppress(OSError):
                (group / limit.name).write_text(f"{2 << 20}")
                yield group / "cgroup.procs"
                return
        finally:
            group.rmdir()
    pytest.skip("control groups for memory cannot be made here")


def test_a_real_lack_of_memory(server: ServerProcess, confined: Path) -> None:
    """The kernel kills the worker that takes more than there is; another one serves on."""
    assert is_well(server)
    confined.write_text(str(worker_of(server)))
    large = SHORT | {"messages": [{"role": "user", "content": "memory " * (1 << 20)}]}
    with pytest.raises(httpx.HTTPError):
        httpx.post(server.base_url + "/chat/completions", json=large, timeout=60)
    server.wait_for_line("SIGKILL .*memory")
    assert is_well(server)


def test_the_kernel_takes_the_memory_back(server: ServerProcess) -> None:
    """SIGKILL, as of the OOM killer, in the middle of an answer."""
    with httpx.stream("POST", server.base_url + "/chat/completions", json=TALKATIVE) as response:
        chunks = response.iter_raw()
        next(chunks)
        os.kill(worker_of(server), signal.SIGKILL)
        with pytest.raises(httpx.RemoteProtocolError):
            list(chunks)
    server.wait_for_line("SIGKILL .*memory")
    while httpx.get(server.root_url + "/health", timeout=60).status_code != 200:
        time.sleep(0.05)
    assert httpx.get(server.root_url + "/health").json()["last_crash"]["cause"] == "SIGKILL"
    assert is_well(server)


def test_a_file_that_is_cut_off_under_the_server(model: Path, tmp_path: Path) -> None:
    """Mapped pages are gone, the worker dies of it, and the next one says what is wrong."""
    path = tmp_path / "model.gguf"
    path.write_bytes(model.read_bytes())
    with ServerProcess(("--context", "256", "--parallel", "1", "--model", str(path))) as server:
        assert is_well(server)
        os.truncate(path, 4096)
        with pytest.raises(httpx.HTTPError):
            is_well(server)
        # Which of the two it is depends on the kernel, and on what touches the page.
        server.wait_for_line("killed by SIG(BUS|SEGV)")
        server.wait_for_line("model.gguf is truncated or corrupt")
