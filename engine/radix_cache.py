"""A radix tree from token sequences to what holds their KV: longest prefix in O(length)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


def common_prefix(a: list[int], b: list[int]) -> int:
    """Length of the longest common prefix; halves by slices, which compare at C speed."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class _Node(Generic[T]):
    """An edge with its end: `tokens` lead here from `parent`."""

    __slots__ = ("children", "parent", "tokens", "value")

    def __init__(self, tokens: list[int], parent: _Node[T] | None) -> None:
        self.tokens = tokens
        self.parent = parent
        self.children: dict[int, _Node[T]] = {}
        self.value: T | None = None


class RadixTree(Generic[T]):
    """One value per token sequence; every leaf has a value."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node([], None)

    def __bool__(self) -> bool:
        """Whether anything is mapped."""
        return bool(self._root.children or self._root.value is not None)

    def insert(self, tokens: list[int], value: T) -> None:
        """Map `tokens`, which must not be mapped, to `value`."""
        node, at = self._root, 0
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                child = node.children[tokens[at]] = _Node(tokens[at:], node)
                node = child
                break
            shared = common_prefix(child.tokens, tokens[at : at + len(child.tokens)])
            node = child if shared == len(child.tokens) else self._split(child, shared)
            at += shared
        assert node.value is None, "the tokens are mapped already"
        node.value = value

    def _split(self, node: _Node[T], length: int) -> _Node[T]:
        """Cut the edge to `node` after `length` tokens; returns the new node between."""
        assert node.parent is not None
        upper: _Node[T] = _Node(node.tokens[:length], node.parent)
        node.parent.children[node.tokens[0]] = upper
        node.tokens = node.tokens[length:]
        node.parent = upper
        upper.children[node.tokens[0]] = node
        return upper

    def remove(self, tokens: list[int]) -> T:
        """Unmap `tokens` and return the value; KeyError if they are not mapped."""
        node = self._find(tokens)
        if node is None or node.value is None:
            raise KeyError("the tokens are not mapped")
        value, node.value = node.value, None
        self._prune(node)
        return value

    def _find(self, tokens: list[int]) -> _Node[T] | None:
        node, at = self._root, 0
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None or child.tokens != tokens[at : at + len(child.tokens)]:
                return None
            node, at = child, at + len(child.tokens)
        return node

    def _prune(self, node: _Node[T]) -> None:
        """Restore the invariant above `node`: no leaf without a value, no useless joint."""
        while node.parent is not None and node.value is None and not node.children:
            del node.parent.children[node.tokens[0]]
            node = node.parent
        if node.parent is not None and node.value is None and len(node.children) == 1:
            (child,) = node.children.values()
            child.tokens = node.tokens + child.tokens
            child.parent = node.parent
            node.parent.children[child.tokens[0]] = child

    def match_prefix(self, tokens: list[int]) -> tuple[int, T | None]:
        """The longest prefix that `tokens` share with a mapped sequence, and that one's value."""
        node, at = self._root, 0
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None:
                break
            shared = common_prefix(child.tokens, tokens[at : at + len(child.tokens)])
            node, at = child, at + shared
            if shared < len(child.tokens):
                break
        return at, self._any_value(node)

    def _any_value(self, node: _Node[T]) -> T | None:
        while node.value is None and node.children:
            node = next(iter(node.children.values()))
        return node.value

    def prefixes_of(self, tokens: list[int]) -> Iterator[tuple[int, T]]:
        """Lengths and values of the mapped sequences that `tokens` begin with, shortest first."""
        node, at = self._root, 0
        while at < len(tokens):
            child = node.children.get(tokens[at])
            if child is None or child.tokens != tokens[at : at + len(child.tokens)]:
                return
            node, at = child, at + len(child.tokens)
            if node.value is not None:
                yield at, node.value

    def longest(self, tokens: list[int]) -> tuple[int, T | None]:
        """The longest mapped sequence that is a prefix of `tokens` as a whole."""
        last = deque(self.prefixes_of(tokens), maxlen=1)
        return last[0] if last else (0, None)
