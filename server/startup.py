"""What is settled before the heavy imports: are the files whole, does it fit, is the port free."""

from __future__ import annotations

import os
import socket
from typing import Any

from msgspec import Struct

from engine.errors import ModelFileNotFound, OutOfMemory
from engine.memory import check_memory, gigabytes, has_gpu_library, total_memory
from server import logs
from server.addresses import is_loopback
from server.config import ServerConfig, initial_models
from server.loader import Headers
from server.located import Located

BACKLOG = 2048
KEEPALIVE_OPTIONS = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
"""Seconds of silence, seconds between probes, probes without an answer."""
DEFAULT_SHARE = 0.8
"""Of the memory, for weights and KV caches."""
SPIN_COUNT = "20000"
"""Spins of an idle OpenMP thread, about a millisecond: longer than what is between two steps, as a
virtual processor that sleeps may be given to others, and much shorter than libgomp's own 300,000,
with which one busy neighbour takes nearly everything until the thread governor gives way."""


class StartError(Exception):
    """Nothing can be served; the message is one line."""


class Checked(Struct, frozen=True):
    """The models that are loaded at the start, and what all may take: bytes, None is no limit."""

    initial: list[Located]
    budget: int | None


def check_models(config: ServerConfig, headers: Headers) -> Checked:
    """Refuse what cannot work before anything is loaded; models that are loaded later are only
    looked for. Raises ModelLoadError."""
    initial = initial_models(config.models)
    for model in config.models:
        path = model.settings.path
        if model.hub is None and model not in initial and not path.is_file():
            raise ModelFileNotFound(f"no such file: {path}")
    located = [headers.check(model) for model in initial if model.hub is None]
    return Checked(located, memory_budget(config, sum(each.need for each in located)))


def check_files(config: ServerConfig, headers: Headers) -> int | None:
    """The same at the start, when nothing else takes memory yet; returns the budget."""
    checked = check_models(config, headers)
    for each in checked.initial:
        assert each.header is not None
        check_memory(each.header, each.config.settings)
    return checked.budget


def memory_budget(config: ServerConfig, initial: int) -> int | None:
    """Bytes; None is no limit. Raises OutOfMemory where less than `initial` bytes are allowed."""
    if config.memory_budget is None:
        total = total_memory()
        # What a GPU holds is not the machine's memory.
        unknown = total is None or has_gpu_library()
        return None if unknown else max(int((total or 0) * DEFAULT_SHARE), initial)
    if initial > config.memory_budget:
        raise OutOfMemory(
            f"the models that are loaded at the start need {gigabytes(initial)} for weights and"
            f" KV cache, but memory_budget is {gigabytes(config.memory_budget)}"
        )
    return config.memory_budget


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
    """A listening socket: whoever connects while the model loads waits instead of failing. Of the
    addresses that a name has, the first that works, IPv4 before IPv6: "localhost" is then also
    found by those who wrote 127.0.0.1. Raises StartError."""
    reason: str | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:
        found, reason = [], "no valid host name"
    except OSError as error:
        found, reason = [], error.strerror
    found.sort(key=lambda each: each[0] != socket.AF_INET)
    for family, _, protocol, _, address in found:
        try:
            return _listen(family, protocol, address)
        except OSError as error:
            reason = reason or error.strerror
    raise StartError(f"cannot listen on {host}:{port}: {reason}")


def _listen(family: int, protocol: int, address: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        detect_dead_peers(listener)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
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
    logs.set_up(config.log_level, config.log_format)
