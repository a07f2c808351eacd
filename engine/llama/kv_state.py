"""What `llama_state_seq_get_data` writes for plain attention, taken apart and put together again.

A context without flash attention keeps values transposed and refuses the state of one that does
not; only the layout differs. The layout is llama.cpp's `llama_kv_cache::state_write`.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

_TYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype(np.float32),
    1: np.dtype(np.float16),
    30: np.dtype(np.uint16),
}
"""ggml_type → elements of the same size; quantized ones cannot be transposed."""

Plane = NDArray[Any]
"""Shape (cells, width): the keys or the values of a layer."""


class UnknownLayout(Exception):
    """The state of another kind of memory, or of another llama.cpp."""


class KVState(Struct, frozen=True):
    """One sequence's keys and values, as views where that can be."""

    magic: int
    positions: NDArray[np.int32]
    types: tuple[int, int]
    """ggml_type of keys and values."""
    keys: list[Plane]
    values: list[Plane]

    def repeated(self, n_cells: int) -> KVState:
        """The same cells over and over, at the positions from 0 on."""
        cells = np.arange(n_cells) % len(self.positions)
        return replace(
            self,
            positions=np.arange(n_cells, dtype=np.int32),
            keys=[plane[cells] for plane in self.keys],
            values=[plane[cells] for plane in self.values],
        )


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data, self.at = data, 0

    def numbers(self, form: str) -> tuple[int, ...]:
        try:
            found: tuple[int, ...] = struct.unpack_from(f"={form}", self._data, self.at)
        except struct.error as error:
            raise UnknownLayout("the state ends early") from error
        self.at += struct.calcsize(f"={form}")
        return found

    def plane(self, kind: int, rows: int, width: int) -> Plane:
        dtype = _TYPES[kind]
        size = rows * width * dtype.itemsize
        if self.at + size > len(self._data):
            raise UnknownLayout("the state ends early")
        flat: Plane = np.frombuffer(self._data, dtype, rows * width, self.at)
        self.at += size
        plane: Plane = flat.reshape(rows, width)
        return plane


def read_state(data: memoryview) -> KVState:
    """Raises UnknownLayout; the planes are views into `data`."""
    reader = _Reader(data)
    magic, _, n_streams = reader.numbers("IiI")
    found = None
    for _ in range(n_streams):
        (n_cells,) = reader.numbers("I")
        if n_cells and found is not None:
            raise UnknownLayout("a sequence in two streams")
        if n_cells:
            found = _read_stream(reader, magic, n_cells)
    if found is None or reader.at != len(data):
        raise UnknownLayout("not the state of plain attention")
    return found


def _read_stream(reader: _Reader, magic: int, n_cells: int) -> KVState:
    cells = reader.plane(0, n_cells, 3).view(np.int32)
    if not (cells[:, 1] == 1).all():
        raise UnknownLayout("cells carry more than a position")
    transposed, n_layers = reader.numbers("II")
    if transposed > 1 or not 0 < n_layers < 1000:
        raise UnknownLayout("cells carry more than a position")
    keys, values, key_type, value_type = [], [], 0, 0
    for _ in range(n_layers):
        key_type, row = reader.numbers("iQ")
        keys.append(reader.plane(_known(key_type), n_cells, row // _TYPES[key_type].itemsize))
    for _ in range(n_layers):
        if transposed:
            value_type, _, width = reader.numbers("iII")
            values.append(reader.plane(_known(value_type), width, n_cells).T)
        else:
            value_type, row = reader.numbers("iQ")
            width = row // _TYPES[_known(value_type)].itemsize
            values.append(reader.plane(value_type, n_cells, width))
    return KVState(magic, cells[:, 0], (key_type, value_type), keys, values)


def _known(kind: int) -> int:
    if kind not in _TYPES:
        raise UnknownLayout(f"type {kind} cannot be transposed")
    return kind


def write_state(state: KVState, *, n_streams: int, transposed: bool) -> bytearray:
    """For `llama_state_seq_set_data` of a context with so many streams."""
    n_cells, (key_type, value_type) = len(state.positions), state.types
    cells = np.ones((n_cells, 3), np.int32)
    cells[:, 0], cells[:, 2] = state.positions, 0
    out = bytearray(struct.pack("=IiII", state.magic, 0, n_streams, n_cells))
    out += cells.data.cast("B")
    out += struct.pack("=II", transposed, len(state.keys))
    for plane in state.keys:
        out += struct.pack("=iQ", key_type, plane.shape[1] * plane.itemsize)
        out += np.ascontiguousarray(plane).data.cast("B")
    for plane in state.values:
        width, size = plane.shape[1], plane.itemsize
        if transposed:
            out += struct.pack("=iII", value_type, size, width)
            out += np.ascontiguousarray(plane.T).data.cast("B")
        else:
            out += struct.pack("=iQ", value_type, width * size)
            out += np.ascontiguousarray(plane).data.cast("B")
    out += bytes(4 * (n_streams - 1))
    return out
