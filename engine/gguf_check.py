"""Is this file a whole GGUF? Read in Python, before native code gets to see it.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Checks everything that can be
known without the tensors' contents: structure, sizes, and that every tensor lies inside the file.
"""

from __future__ import annotations

import mmap
import re
import struct
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.errors import InvalidModelFile, ModelFileNotFound
from engine.settings import Task

DEFAULT_ALIGNMENT = 32
MAX_NAME = 64
MAX_DIMENSIONS = 4
MAX_KEPT_ARRAY = 4096
"""Longer arrays (the vocabulary) are walked over, not kept."""

SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""GGUF value type → struct code."""
STRING, ARRAY = 8, 9

BLOCKS = {
    **{0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)},
    **{9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176)},
    **{14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98)},
    **{19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136)},
    **{24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2)},
    **{34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18)},
}
"""ggml_type → (elements, bytes) of a block."""

POOLING_TASKS: dict[Any, Task] = {1: "embed", 2: "embed", 3: "embed", 4: "rerank"}
"""llama_pooling_type (mean, cls, last, rank) → task; anything else generates text."""

SHARD = re.compile(r"^(?P<stem>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf$")


class GGUFHeader(Struct, frozen=True):
    """What the header says; tensors are counted over all parts of a split model."""

    metadata: dict[str, Any]
    """Scalars, strings and short arrays."""
    tensor_bytes: int
    header_bytes: int
    """Bytes before the tensors' data in the first part."""
    n_params: int = 0
    """Elements of all tensors."""

    @property
    def architecture(self) -> str:
        """Such as `llama`."""
        return str(self.metadata["general.architecture"])

    @property
    def task(self) -> Task:
        """What the model is for, by its pooling type."""
        return POOLING_TASKS.get(self.hyperparameter("pooling_type"), "generate")

    def hyperparameter(self, key: str, default: Any = None) -> Any:
        """`block_count` and the like, kept under the architecture's name."""
        return self.metadata.get(f"{self.architecture}.{key}", default)


def check_gguf(path: Path) -> GGUFHeader:
    """Read the header; raises ModelFileNotFound or InvalidModelFile with one line."""
    header = check_part(path)
    count = header.metadata.get("split.count", 0)
    if not isinstance(count, int) or count <= 1:
        if "general.architecture" not in header.metadata:
            raise InvalidModelFile(f"{path} is corrupt: it does not name its architecture")
        return header
    rest = [check_part(part) for part in other_parts(path, count)]
    total = header.tensor_bytes + sum(part.tensor_bytes for part in rest)
    n_params = header.n_params + sum(part.n_params for part in rest)
    return GGUFHeader(header.metadata, total, header.header_bytes, n_params)


def other_parts(path: Path, count: int) -> list[Path]:
    match = SHARD.match(path.name)
    if match is None or int(match["index"]) != 1 or int(match["count"]) != count:
        raise InvalidModelFile(
            f"{path} is one of {count} parts: give the first, NAME-00001-of-{count:05d}.gguf"
        )
    names = (f"{match['stem']}-{index:05d}-of-{count:05d}.gguf" for index in range(2, count + 1))
    return [path.with_name(name) for name in names]


def check_part(path: Path) -> GGUFHeader:
    """One file."""
    if path.is_dir():
        raise ModelFileNotFound(f"{path} is a directory, not a GGUF file")
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start[:4] != b"GGUF" or len(start) < 8:
                raise InvalidModelFile(f"{path} is not a GGUF file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return Reader(path, data).read()
    except FileNotFoundError:
        raise ModelFileNotFound(f"no such file: {path}") from None
    except OSError as error:
        raise InvalidModelFile(f"cannot read {path}: {error.strerror}") from error


class Reader:
    """A cursor over the mapped file that refuses to leave it."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.size = len(data)
        self.at = 4
        self.n_params = 0

    def read(self) -> GGUFHeader:
        self.read_version()
        n_tensors, n_keys = self.count("tensors", 24), self.count("keys", 13)
        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key = self.text("a key")
            if key in metadata:
                raise self.corrupt(f"the key {key} is there twice")
            metadata[key] = self.value(key, self.scalar("I"))
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self.corrupt(f"an alignment of {alignment} is not a power of two")
        tensor_bytes = self.read_tensors(n_tensors, alignment)
        return GGUFHeader(metadata, tensor_bytes, self.at, self.n_params)

    def read_version(self) -> None:
        version = self.scalar("I")
        if version & 0xFFFF == 0:
            raise InvalidModelFile(f"{self.path} has the byte order of another kind of machine")
        if version not in (2, 3):
            raise InvalidModelFile(f"{self.path} has GGUF version {version}; 2 and 3 can be read")

    def read_tensors(self, count: int, alignment: int) -> int:
        """Walk the tensor infos; returns the bytes of their data, which follows."""
        expected, ends = 0, []
        names: set[str] = set()
        for _ in range(count):
            name = self.text("a tensor's name", MAX_NAME - 1)
            if name in names:
                raise self.corrupt(f"the tensor {name} is there twice")
            names.add(name)
            size = self.tensor_size(name)
            offset = self.scalar("Q")
            if offset != expected:
                raise self.corrupt(f"the tensor {name} is not where it should be")
            ends.append((offset + size, name))
            expected = align(offset + size, alignment)
        data_start = align(self.at, alignment)
        for end, name in ends:
            if data_start + end > self.size:
                raise self.truncated(f"the tensor {name} ends at byte {data_start + end}")
        return expected

    def tensor_size(self, name: str) -> int:
        n_dimensions = self.scalar("I")
        if n_dimensions > MAX_DIMENSIONS:
            raise self.corrupt(f"the tensor {name} has {n_dimensions} dimensions")
        shape = [self.scalar("Q") for _ in range(n_dimensions)]
        kind = self.scalar("I")
        if kind not in BLOCKS:
            raise self.corrupt(f"the tensor {name} has the unknown type {kind}")
        elements = 1
        for length in shape:
            elements *= length
        self.n_params += elements
        block, block_bytes = BLOCKS[kind]
        if shape and shape[0] % block:
            raise self.corrupt(f"the tensor {name} has rows of {shape[0]}, no multiple of {block}")
        return elements // block * block_bytes

    def value(self, key: str, kind: int) -> Any:
        """One metadata value; None for a long array."""
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array(key)
        if kind not in SCALARS:
            raise self.corrupt(f"the key {key} has the unknown type {kind}")
        return self.scalar(SCALARS[kind])

    def array(self, key: str) -> list[Any] | None:
        kind, count = self.scalar("I"), self.scalar("Q")
        if kind == STRING:
            self.strings(key, count)
            return None
        if kind not in SCALARS:
            raise self.corrupt(f"the key {key} is an array of the unknown type {kind}")
        code = SCALARS[kind]
        start = self.at
        self.skip(count * struct.calcsize("<" + code), f"the array {key}")
        if count > MAX_KEPT_ARRAY:
            return None
        return list(struct.unpack_from(f"<{count}{code}", self.data, start))

    def strings(self, key: str, count: int) -> None:
        """Walk over an array of strings: this loop is most of the time for a large vocabulary."""
        if count * 8 > self.size - self.at:
            raise self.truncated(f"the array {key} has {count} entries")
        unpack, data, at = struct.Struct("<Q").unpack_from, self.data, self.at
        try:
            for _ in range(count):
                at += 8 + unpack(data, at)[0]
        except (struct.error, OverflowError, IndexError):
            at = self.size + 1
        self.skip(at - self.at, f"the array {key}")

    def count(self, what: str, least: int) -> int:
        """A number of things that take at least `least` bytes each."""
        number: int = self.scalar("Q")
        if number * least > self.size:
            raise self.corrupt(f"{number} {what} cannot be in it")
        return number

    def text(self, what: str, limit: int = 65535) -> str:
        """A key or a name: short and UTF-8."""
        start = self.at
        text = self.string()
        if not text or self.at - start - 8 > limit or "\ufffd" in text:
            raise self.corrupt(f"{what} at byte {start} is not text")
        return text

    def string(self) -> str:
        length = self.scalar("Q")
        start = self.at
        self.skip(length, "a string")
        return self.data[start : self.at].decode("utf-8", "replace")

    def scalar(self, code: str) -> Any:
        start = self.at
        self.skip(struct.calcsize("<" + code), "the header")
        return struct.unpack_from("<" + code, self.data, start)[0]

    def skip(self, length: int, what: str) -> None:
        if self.at + length > self.size:
            raise self.truncated(f"{what} ends at byte {self.at + length}")
        self.at += length

    def truncated(self, why: str) -> InvalidModelFile:
        return InvalidModelFile(
            f"{self.path} is truncated or corrupt: {why}, but the file has {self.size}"
        )

    def corrupt(self, why: str) -> InvalidModelFile:
        return InvalidModelFile(f"{self.path} is corrupt: {why}")


def align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
