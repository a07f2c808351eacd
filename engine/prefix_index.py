"""Computed prefixes by their tokens and the adapters they were computed with."""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

from engine.lora import LoraSet
from engine.radix_cache import RadixTree

T = TypeVar("T")


class Held(Struct, frozen=True):
    """Computed tokens, and what is to be known of them."""

    tokens: list[int]
    lora: LoraSet = ()
    """The adapters they were computed with."""
    n_prompt: int = 0
    """How many of them were a request's prompt; the rest is an answer."""
    key: str = ""
    """The client's word for what belongs together."""
    checkpoints: tuple[int, ...] = ()
    """Lengths at which messages of the prompt end."""


class PrefixIndex(Generic[T]):
    """A radix tree per set of adapters."""

    def __init__(self) -> None:
        self._trees: dict[LoraSet, RadixTree[T]] = {}

    def insert(self, held: Held, value: T) -> None:
        """Map what is not mapped yet."""
        self._trees.setdefault(held.lora, RadixTree()).insert(held.tokens, value)

    def remove(self, held: Held) -> T:
        """Unmap and return the value."""
        tree = self._trees[held.lora]
        value = tree.remove(held.tokens)
        if not tree:
            del self._trees[held.lora]
        return value

    def candidates(self, wanted: Held) -> list[T]:
        """What shares the longest prefix with `wanted`, and what is its longest prefix as a
        whole; changes nothing."""
        tree = self._trees.get(wanted.lora)
        if tree is None:
            return []
        found = (tree.match_prefix(wanted.tokens)[1], tree.longest(wanted.tokens)[1])
        return [value for value in found if value is not None]

    def has(self, held: Held) -> bool:
        """Whether exactly these tokens are mapped."""
        return self.get(held) is not None

    def get(self, held: Held) -> T | None:
        """The value of exactly these tokens."""
        tree = self._trees.get(held.lora)
        length, value = tree.longest(held.tokens) if tree is not None else (0, None)
        return value if length == len(held.tokens) else None

    def prefixes_of(self, held: Held) -> list[T]:
        """Values of all mapped prefixes of `held`, itself included, shortest first."""
        tree = self._trees.get(held.lora)
        return [] if tree is None else [value for _, value in tree.prefixes_of(held.tokens)]

    def clear(self) -> None:
        """Unmap everything."""
        self._trees.clear()
