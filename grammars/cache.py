"""Compiled grammars by the content of what they were compiled from."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from . import compiler
from .compiler import Compiled
from .json_types import Json
from .limits import Limits


class GrammarCache:
    """The least recently used grammars of at most `size`; safe to share between threads.

    Refusals are not kept: they are as cheap as they were.
    """

    def __init__(self, size: int = 256, limits: Limits = compiler.DEFAULT_LIMITS) -> None:
        self.size, self.limits = size, limits
        self.hits = self.misses = 0
        self._entries: OrderedDict[tuple[str, str], Compiled] = OrderedDict()
        self._lock = Lock()

    def schema(self, schema: Json) -> Compiled:
        """`compile`; the order of properties belongs to the key, as it does to the grammar."""
        text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
        return self.get("schema", text, lambda: compiler.compile(schema, self.limits))

    def regex(self, pattern: str) -> Compiled:
        return self.get("regex", pattern, lambda: compiler.compile_regex(pattern))

    def gbnf(self, text: str) -> Compiled:
        return self.get("gbnf", text, lambda: compiler.compile_gbnf(text))

    def get(self, kind: str, key: str, make: Callable[[], Compiled]) -> Compiled:
        """The entry, made outside the lock if it is missing: two threads may both make it."""
        with self._lock:
            found = self._entries.get((kind, key))
            if found is not None:
                self._entries.move_to_end((kind, key))
                self.hits += 1
                return found
            self.misses += 1
        made = make()
        with self._lock:
            self._entries[kind, key] = made
            while len(self._entries) > self.size:
                self._entries.popitem(last=False)
        return made
