"""A model whose file is here, and what is known of it before it is loaded."""

from __future__ import annotations

from msgspec import Struct

from engine.gguf_check import GGUFHeader
from server.config import ModelConfig


class Located(Struct, frozen=True):
    """`config` has the file's path; sizes in bytes."""

    config: ModelConfig
    header: GGUFHeader | None = None
    weights: int = 0
    kv_cache: int = 0
    thinks: bool = False
    """As far as its template has been looked at."""

    @property
    def need(self) -> int:
        """What a load takes of the budget; buffers and cached prefixes come on top."""
        return self.weights + self.kv_cache
