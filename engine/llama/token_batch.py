"""A llama_batch for life: the arrays belong to NumPy, the struct points into them."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from engine.llama.library import library

FEW = 16
"""Tokens up to which one store after the other is faster than four calls of NumPy."""


class TokenBatch:
    """Room for `size` tokens; whoever writes to the arrays says by `count` how many there are."""

    def __init__(self, size: int) -> None:
        api = library().api
        self.tokens = np.zeros(size, np.int32)
        self.positions = np.zeros(size, np.int32)
        self.sequences = np.zeros(size, np.int32)
        self.wanted = np.zeros(size, np.int8)
        """1 where the output of a token is wanted."""
        self._counts = np.ones(size, np.int32)
        offsets = np.arange(size, dtype=np.uintp) * np.uintp(self.sequences.itemsize)
        self._pointers = offsets + np.uintp(self.sequences.ctypes.data)
        self._views = [
            array.data for array in (self.tokens, self.positions, self.sequences, self.wanted)
        ]
        self.native: Any = api.llama_batch()
        """The struct, to be passed by value."""
        for field, array in (
            ("token", self.tokens),
            ("pos", self.positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._pointers),
            ("logits", self.wanted),
        ):
            kind = dict(api.llama_batch._fields_)[field]
            setattr(self.native, field, ctypes.cast(array.ctypes.data, kind))

    @property
    def count(self) -> int:
        """Tokens in it."""
        return int(self.native.n_tokens)

    @count.setter
    def count(self, count: int) -> None:
        self.native.n_tokens = count

    def fill(
        self, tokens: list[int], positions: list[int], sequences: list[int], wanted: list[int]
    ) -> None:
        """Lists of one length: a conversion each costs less than one for each span."""
        self.count = count = len(tokens)
        if count <= FEW:
            for view, values in zip(
                self._views, (tokens, positions, sequences, wanted), strict=True
            ):
                for place, value in enumerate(values):
                    view[place] = value
            return
        self.tokens[:count] = tokens
        self.positions[:count] = positions
        self.sequences[:count] = sequences
        self.wanted[:count] = wanted
