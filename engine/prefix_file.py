"""One prefix in one file: what it is, its KV, and hashes that tell damage.

Layout: magic, length of the header (4 bytes, little-endian), header (msgpack), BLAKE2b of the
header, payload. The hashes tell damage, not malice: who can write the directory can forge both.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from engine.lora import LoraSet
from engine.whole_file import write_whole

MAGIC = b"INGLEKV1"
SUFFIX = ".prefix"
_DIGEST_BYTES = 32
_LARGEST_HEADER = 64 << 20


class DamagedFile(Exception):
    """Not a file of ours, not whole, or not of this model."""


class Header(Struct, frozen=True):
    """What a payload is."""

    fingerprint: str
    """Of the model, its build and settings: other ones give other bits."""
    tokens: list[int]
    lora: LoraSet
    n_prompt: int
    size: int
    """Bytes of the payload."""
    digest: bytes
    """BLAKE2b of the payload."""


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """BLAKE2b, 32 bytes; other threads run meanwhile."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def file_name(fingerprint: str, tokens: list[int], lora: LoraSet) -> str:
    """The same prefix always has the same name."""
    key = msgspec.msgpack.encode((fingerprint, tokens, lora))
    return digest(key).hex()[:40] + SUFFIX


def write(directory: Path, header: Header, payload: memoryview) -> Path:
    """Written beside and renamed: under its name a file is whole. Raises OSError."""
    path = directory / file_name(header.fingerprint, header.tokens, header.lora)
    head = msgspec.msgpack.encode(header)
    write_whole(path, MAGIC + len(head).to_bytes(4, "little") + head + digest(head), payload)
    return path


def read_header(path: Path, fingerprint: str) -> Header:
    """Raises DamagedFile, and OSError."""
    with path.open("rb") as file:
        return _header(file, fingerprint)


def read(path: Path, expected: Header) -> bytearray:
    """The payload of the very prefix that `expected` describes; raises DamagedFile, OSError."""
    with path.open("rb") as file:
        if _header(file, expected.fingerprint) != expected:
            raise DamagedFile("it holds another prefix now")
        payload = bytearray(expected.size)
        if file.readinto(payload) != expected.size or digest(payload) != expected.digest:
            raise DamagedFile("its payload is damaged")
    return payload


def _header(file: IO[bytes], fingerprint: str) -> Header:
    start = file.read(len(MAGIC) + 4)
    length = int.from_bytes(start[len(MAGIC) :], "little")
    if start[: len(MAGIC)] != MAGIC or length > _LARGEST_HEADER:
        raise DamagedFile("it does not begin like a prefix")
    head = file.read(length)
    if file.read(_DIGEST_BYTES) != digest(head):
        raise DamagedFile("its header is damaged")
    try:
        header = msgspec.msgpack.decode(head, type=Header)
    except msgspec.MsgspecError as error:
        raise DamagedFile(f"its header says nothing: {error}") from error
    if header.fingerprint != fingerprint:
        raise DamagedFile("it is of another model")
    if os.fstat(file.fileno()).st_size != file.tell() + header.size:
        raise DamagedFile("it is not whole")
    return header
