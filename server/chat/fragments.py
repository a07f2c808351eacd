"""Fragments of a call's arguments, on their way to the collector."""

import json

from server.chat.deltas import Collector


class HeldFragments:
    """Fragments, kept until the call is announced."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._held: list[str] | None = []

    def release(self) -> None:
        held, self._held = self._held, None
        if held:
            self._collector.arguments("".join(held))

    def _emit(self, fragment: str) -> None:
        if self._held is None:
            self._collector.arguments(fragment)
        else:
            self._held.append(fragment)


class ObjectFragments(HeldFragments):
    """Writes a JSON object key by key."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)
        self._count = 0

    def _key(self, key: str) -> None:
        lead = ", " if self._count else "{"
        self._count += 1
        self._emit(f"{lead}{json.dumps(key, ensure_ascii=False)}: ")

    def _end(self) -> None:
        self._emit("}" if self._count else "{}")
