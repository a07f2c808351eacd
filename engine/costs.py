"""How long steps take, learned while running: what a bounded stall can afford."""

from __future__ import annotations


class StepCosts:
    """Running averages of a decode step and of one prompt token, in seconds. What gets dearer, as
    prompts do with their depth, is believed sooner than what gets cheaper: a stall hurts more than
    a small step."""

    _DEARER, _CHEAPER = 0.5, 0.2

    def __init__(self) -> None:
        self._decode: float | None = None
        self._prompt_token: float | None = None

    def observe(self, seconds: float, n_decode: int, n_prompt: int) -> None:
        """Learn from a step of `n_decode` single tokens and `n_prompt` tokens of prompts."""
        if n_prompt == n_decode == 0:
            return
        if n_prompt == 0:
            self._decode = self._blend(self._decode, seconds)
        elif n_prompt >= 16:
            rest = seconds - (self._decode or 0.0 if n_decode else 0.0)
            self._prompt_token = self._blend(self._prompt_token, max(rest, 0.0) / n_prompt)

    def _blend(self, average: float | None, value: float) -> float:
        if average is None:
            return value
        weight = self._DEARER if value > average else self._CHEAPER
        return average + weight * (value - average)

    @property
    def prompt_token(self) -> float | None:
        """Seconds that one more token of a prompt takes; None before any was measured."""
        return self._prompt_token

    @property
    def decode(self) -> float | None:
        """Seconds of a step in which nothing but answers goes on; None before there was one."""
        return self._decode

    def affordable(self, seconds: float, default: int) -> int:
        """Prompt tokens that fit a step of `seconds` beside the running decodes."""
        if not self._prompt_token:
            return default
        return int((seconds - (self._decode or 0.0)) / self._prompt_token)


class SourceCosts:
    """What a prefix costs from each of its sources: to compute, copy in memory, or read."""

    _WEIGHT = 0.2

    def __init__(self) -> None:
        self.prompt_token: float | None = None
        """Seconds to compute a token."""
        self.weights: float | None = None
        """Seconds of a pass, however few its tokens."""
        self._copied_byte: float | None = None
        self._read_byte: float | None = None

    def observe_copies(self, seconds: float, n_bytes: int) -> None:
        """Learn from states that were saved and restored."""
        if n_bytes:
            self._copied_byte = self._blend(self._copied_byte, seconds / n_bytes)

    def observe_read(self, seconds: float, n_bytes: int) -> None:
        """Learn from a file that was read and checked."""
        if n_bytes:
            self._read_byte = self._blend(self._read_byte, seconds / n_bytes)

    def _blend(self, average: float | None, value: float) -> float:
        return value if average is None else average + self._WEIGHT * (value - average)

    def copying(self, n_bytes: int) -> float:
        """Seconds to save or restore so many bytes; 0 while none were."""
        return n_bytes * (self._copied_byte or 0.0)

    def in_tokens(self, n_bytes: int) -> int:
        """Tokens that are computed while so many bytes are copied; 0 while that is not known."""
        return int(self.copying(n_bytes) / self.prompt_token) if self.prompt_token else 0

    def pays(self, n_tokens: int, *, copied: int, read: int = 0, passes: int = 0) -> bool:
        """Whether `n_tokens` are computed in more time than it takes to copy and read so many
        bytes, in so many passes more; what was never measured counts as free."""
        seconds = self.copying(copied) + read * (self._read_byte or 0.0)
        seconds += passes * (self.weights or 0.0)
        return self.prompt_token is None or n_tokens * self.prompt_token > seconds
