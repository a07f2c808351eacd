"""Tokens of one choice → text that is safe to send, stop strings, and log probabilities in step."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable

from engine.request import TokenLogprob


class OutputText:
    """Detokenizes one choice: never half a character, never part of a stop string."""

    def __init__(
        self,
        token_bytes: Callable[[int], bytes],
        hidden: frozenset[int],
        stop: tuple[str, ...] = (),
        include_stop: bool = False,
    ) -> None:
        """Tokens in `hidden` have no text. `stop` strings are non-empty."""
        self._token_bytes = token_bytes
        self._hidden = hidden
        self._stop = stop
        self._include_stop = include_stop
        self._longest_stop = max(map(len, stop), default=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._partial = False
        """A character has begun and not ended."""
        self._pending = ""
        self._sent = 0
        self._logprobs: deque[tuple[int, TokenLogprob]] = deque()
        self.stop_string: str | None = None
        """The stop string that ended the text."""

    def push(self, token: int, logprob: TokenLogprob | None = None) -> None:
        """Add one token; sets `stop_string` when the text has come to its end."""
        if logprob is not None:
            self._logprobs.append((self._sent + len(self._pending), logprob))
        if token in self._hidden:
            return
        piece = self._decode(self._token_bytes(token))
        self._pending += piece
        if self._stop and piece:
            self._find_stop(len(piece))

    def _decode(self, data: bytes) -> str:
        if not self._partial and data.isascii():
            return data.decode("ascii")
        text = self._decoder.decode(data)
        self._partial = bool(self._decoder.getstate()[0])
        return text

    def _find_stop(self, n_new: int) -> None:
        """Cut the pending text at the earliest stop string that ends in its `n_new` newest."""
        search_from = max(0, len(self._pending) - n_new - self._longest_stop + 1)
        hits = [
            (at, stop) for stop in self._stop if (at := self._pending.find(stop, search_from)) >= 0
        ]
        if not hits:
            return
        at, self.stop_string = min(hits, key=lambda hit: hit[0])
        end = at + len(self.stop_string) if self._include_stop else at
        self._pending = self._pending[:end]
        while self._logprobs and self._logprobs[-1][0] >= self._sent + end:
            self._logprobs.pop()

    def take(self, *, final: bool = False) -> tuple[str, tuple[TokenLogprob, ...]]:
        """The text that became safe since the last call, and the log probabilities of its tokens.

        `final` releases what was held back; bytes of an unfinished character are dropped.
        """
        held = 0
        if self._stop and not final and self.stop_string is None:
            held = self._held_back()
        cut = len(self._pending) - held
        text, self._pending = self._pending[:cut], self._pending[cut:]
        self._sent += len(text)
        if not self._logprobs:
            return text, ()
        logprobs = []
        while self._logprobs and (final or self._logprobs[0][0] < self._sent):
            logprobs.append(self._logprobs.popleft()[1])
        return text, tuple(logprobs)

    def _held_back(self) -> int:
        """Length of the longest end of the pending text that could begin a stop string."""
        for length in range(min(self._longest_stop - 1, len(self._pending)), 0, -1):
            tail = self._pending[-length:]
            if any(stop.startswith(tail) for stop in self._stop):
                return length
        return 0
