"""What is settled before the heavy imports: are the files whole, does it fit, is the port free."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from engine.errors import ModelFileNotFound
from engine.gguf_check import GGUFHeader, check_gguf
from engine.memory import check_memory
from server.addresses import is_loopback
from server.config import ServerConfig

BACKLOG = 2048
KEEPALIVE_OPTIONS = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""Seconds of silence, seconds between probes, probes without an answer."""
SPIN_COUNT = "2000"
"""Spins of an idle OpenMP thread: as fast as the default alone, 18 times it with a neighbour."""


class StartError(Exception):
    """Nothing can be served; the message is one line."""


def check_files(config: ServerConfig) -> dict[Path, GGUFHeader]:
    """The header of every model's file; raises ModelLoadError."""
    headers: dict[Path, GGUFHeader] = {}
    for model in config.models:
        path = model.settings.path
        headers[path] = check_gguf(path)
        check_memory(headers[path], model.settings)
        for adapter in model.settings.lora:
            if not adapter.path.is_file():
                raise ModelFileNotFound(f"no such LoRA file: {adapter.path}")
            check_gguf(adapter.path)
    return headers


def check_exposure(config: ServerConfig, listener: socket.socket) -> None:
    """Raises StartError where everybody on the network would get in and nobody said so."""
    if config.api_keys or config.allow_unauthenticated or is_loopback(listener.getsockname()[0]):
        return
    listener.close()
    raise StartError(
        f"{config.host} can be reached from other machines: set --api-key-file or INGLE_API_KEY,"
        " or say --allow-unauthenticated too"
    )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket: whoever connects while the model loads waits instead of failing."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        detect_dead_peers(listener)
        listener.bind(address)
        listener.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no valid host name"
        raise StartError(f"cannot listen on {host}:{port}: {reason}") from error
    listener.setblocking(False)
    return listener


def detect_dead_peers(listener: socket.socket) -> None:
    """A peer that vanished without a word (sleep, cable, NAT) is noticed within two minutes; the
    sockets that are accepted take this over from the listener."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE_OPTIONS:
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def url(listener: socket.socket) -> str:
    """Where clients find the API."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def prepare_environment(config: ServerConfig) -> None:
    """Logging, and what libgomp reads once when it is loaded; the user's own values stay."""
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    level = config.log_level.upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if level != "DEBUG":
        for name in ("uvicorn", "asyncio"):
            logging.getLogger(name).setLevel(logging.WARNING)
