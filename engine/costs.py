"""How long steps take, learned while running: what a bounded stall can afford."""

from __future__ import annotations


class StepCosts:
    """Running averages of a decode step and of one prompt token, in seconds."""

    _WEIGHT = 0.2

    def __init__(self) -> None:
        self._decode: float | None = None
        self._prompt_token: float | None = None

    def observe(self, seconds: float, n_decode: int, n_prompt: int) -> None:
        """Learn from a step of `n_decode` single tokens and `n_prompt` tokens of prompts."""
        if n_prompt == 0:
            self._decode = self._blend(self._decode, seconds)
        elif n_prompt >= 16:
            rest = seconds - (self._decode or 0.0 if n_decode else 0.0)
            self._prompt_token = self._blend(self._prompt_token, max(rest, 0.0) / n_prompt)

    def _blend(self, average: float | None, value: float) -> float:
        return value if average is None else average + self._WEIGHT * (value - average)

    def affordable(self, seconds: float, default: int) -> int:
        """Prompt tokens that fit a step of `seconds` beside the running decodes."""
        if not self._prompt_token:
            return default
        return int((seconds - (self._decode or 0.0)) / self._prompt_token)
