"""Small pieces of incremental matching: literals without regard to whitespace, markers in text."""

import re
from collections.abc import Iterable
from enum import Enum

_LONGEST_SPACE = 64


class Match(Enum):
    FULL = "full"
    PARTIAL = "partial"  # the text ended first
    NO = "no"


class Status(Enum):
    MORE = "more"  # needs more text
    DONE = "done"
    FAILED = "failed"


def match_core(text: str, position: int, wanted: str) -> tuple[Match, int]:
    """Whether `text` goes on with `wanted` (a literal without whitespace); where that ends."""
    space = 0
    for char in wanted:
        while True:
            if position >= len(text):
                return Match.PARTIAL, position
            found = text[position]
            position += 1
            if found == char:
                break
            space += 1
            if not found.isspace() or space > _LONGEST_SPACE:
                return Match.NO, position
    return Match.FULL, position


def skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


class Markers:
    """A set of literal markers: find the first, and hold back what may become one."""

    __slots__ = ("_first", "_longest", "_pattern", "words")

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(sorted({w for w in words if w}, key=len, reverse=True))
        self._pattern = re.compile("|".join(map(re.escape, self.words))) if self.words else None
        self._first = frozenset(word[0] for word in self.words)
        self._longest = max(map(len, self.words), default=0)

    def search(self, text: str, position: int) -> re.Match[str] | None:
        return self._pattern.search(text, position) if self._pattern else None

    def safe_end(self, text: str, position: int) -> int:
        """Up to where `text` cannot be the beginning of a marker that is still to come."""
        size = len(text)
        for start in range(max(position, size - self._longest + 1), size):
            if text[start] in self._first:
                tail = text[start:]
                if any(word.startswith(tail) for word in self.words):
                    return start
        return size


class Cursor:
    """The text that is not read yet, and what was read since something became doubtful."""

    __slots__ = ("_doubtful", "_kept", "_mark", "final", "position", "text")

    def __init__(self) -> None:
        self.text = ""
        self.position = 0
        self.final = False  # no more text will come
        self._doubtful = False
        self._kept: list[str] = []
        self._mark = 0

    def add(self, text: str) -> None:
        if self._doubtful and self.position > self._mark:
            self._kept.append(self.text[self._mark : self.position])
        self.text = self.text[self.position :] + text
        self.position = self._mark = 0

    def skip_space(self) -> bool:
        """Skip whitespace; returns whether there is text left."""
        self.position = skip_space(self.text, self.position)
        return self.position < len(self.text)

    def match(self, wanted: str) -> tuple[Match, int]:
        return match_core(self.text, self.position, wanted)

    def until(self, markers: Markers) -> tuple[str, str]:
        """The text before the next marker, and the marker; "" where none has come (yet).

        The position moves behind the text, not behind the marker.
        """
        start = self.position
        found = markers.search(self.text, start)
        if found is not None:
            self.position = found.start()
            return self.text[start : self.position], found.group()
        size = len(self.text)
        self.position = size if self.final else markers.safe_end(self.text, start)
        return self.text[start : self.position], ""

    def suspect(self) -> None:
        """From here on the text may be something else than it seems: keep it."""
        self._doubtful = True
        self._kept.clear()
        self._mark = self.position

    def believe(self) -> None:
        """It is what it seemed; nothing needs to be kept."""
        self._doubtful = False
        self._kept.clear()

    def disbelieve(self) -> str:
        """It is not: the text since `suspect`, up to the position."""
        raw = "".join(self._kept) + self.text[self._mark : self.position]
        self.believe()
        return raw
