"""The bytes of all tokens of a vocabulary in one file of the cache directory.

Asking llama.cpp for them costs a call a token, all of it under the interpreter lock; reading the
file takes a fifteenth of that. Layout: magic, key (32 bytes), number of tokens and the length of
each (4 bytes, little-endian), a byte of flags for each, all bytes, BLAKE2b of everything before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.probe_cache import build_identity
from engine.whole_file import write_whole

log = logging.getLogger("ingle.vocabulary")

MAGIC = b"INGLEVC1"  # changes with the layout
SUFFIX = ".tokens"
KEPT = 16
_DIGEST_BYTES = 32
_CONTROL, _END = 1, 2


class Flags(Protocol):
    """What a file must agree with to be of this vocabulary."""

    n_vocab: int
    control: frozenset[int]
    end_of_generation: frozenset[int]


class VocabularyFile:
    """The file for one model. Nothing is touched before `read` or `write`; any thread may call."""

    def __init__(self, directory: Path, model: Path, header_bytes: int) -> None:
        """`header_bytes` of the model's file hold its vocabulary."""
        self._directory, self._model, self._header_bytes = directory, model, header_bytes

    def read(self, flags: Flags) -> list[bytes] | None:
        """The bytes by token; None where there is no whole file of this vocabulary. What is
        damaged or foreign is dropped."""
        path: Path | None = None
        try:
            key = self._key()
            path = self._path(key)
            tokens = _unpack(path.read_bytes(), key, flags)
            os.utime(path)  # the least recently used goes first
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("the vocabulary's file %s is dropped: %s", path, error)
            if path is not None:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            return None
        return tokens

    def write(self, flags: Flags, tokens: list[bytes]) -> None:
        """Atomic. A cache that cannot be written is a pity."""
        try:
            key = self._key()
            path = self._path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, _pack(key, flags, tokens))
            files = sorted(path.parent.glob(f"*{SUFFIX}"), key=lambda p: p.stat().st_mtime)
            for old in files[:-KEPT]:
                old.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the vocabulary's bytes cannot be kept: %s", error)

    def _key(self) -> bytes:
        """Of what the file says and of the llama.cpp that reads it; raises OSError."""
        with self._model.open("rb") as file:
            header = file.read(self._header_bytes)
        build = json.dumps(build_identity()).encode()
        return hashlib.blake2b(header, digest_size=32, key=hashlib.sha256(build).digest()).digest()

    def _path(self, key: bytes) -> Path:
        return self._directory / "vocabulary" / f"{self._model.stem[:40]}-{key.hex()[:24]}{SUFFIX}"


def _flag_bytes(flags: Flags) -> bytes:
    out = bytearray(flags.n_vocab)
    for bit, tokens in ((_CONTROL, flags.control), (_END, flags.end_of_generation)):
        for token in tokens:
            out[token] |= bit
    return bytes(out)


def _pack(key: bytes, flags: Flags, tokens: list[bytes]) -> bytes:
    lengths = np.array([len(tokens), *map(len, tokens)], "<u4").tobytes()
    data = b"".join((MAGIC, key, lengths, _flag_bytes(flags), *tokens))
    return data + hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _unpack(data: bytes, key: bytes, flags: Flags) -> list[bytes]:
    """Raises ValueError where this is not the whole file of that vocabulary."""
    count, head = flags.n_vocab, MAGIC + key + np.uint32(flags.n_vocab).tobytes()
    start = len(head) + 5 * count
    if len(data) < start + _DIGEST_BYTES or not data.startswith(head):
        raise ValueError("it is another vocabulary's, or cut short")
    body = memoryview(data)[:-_DIGEST_BYTES]
    if hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != data[-_DIGEST_BYTES:]:
        raise ValueError("it is damaged")
    if data[start - count : start] != _flag_bytes(flags):
        raise ValueError("its control tokens are others")
    lengths = np.frombuffer(data, "<u4", count, len(head)).tolist()
    ends = accumulate(lengths, initial=start)
    return [data[low:high] for low, high in pairwise(ends)]
