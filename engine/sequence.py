"""The running state of a request and of each of its choices, for the engine's thread only."""

from __future__ import annotations

from engine.output import OutputText
from engine.request import FinishReason, Request
from engine.sampler import Sampler
from engine.vocab_math import Row


class Sequence:
    """One choice: its tokens, how many of them the model has computed, and where."""

    def __init__(self, group: RequestState, index: int, output: OutputText) -> None:
        self.group = group
        self.index = index
        self.slot = -1
        self.tokens = list(group.request.prompt)
        self.n_computed = 0
        self.output = output
        request = group.request
        self.sampler = Sampler(request.sampling, request.prompt, index)
        self.finish_reason: FinishReason | None = None

    @property
    def n_waiting(self) -> int:
        """Tokens the model has not seen yet: 1 while decoding, more in prefill."""
        return len(self.tokens) - self.n_computed

    @property
    def n_generated(self) -> int:
        """Tokens of the output so far."""
        return len(self.tokens) - len(self.group.request.prompt)

    @property
    def decoding(self) -> bool:
        """Whether the prompt is done."""
        return self.n_generated > 0


class RequestState:
    """A request with its choices, and what they share."""

    def __init__(self, request: Request, submitted: float) -> None:
        self.request = request
        self.choices: list[Sequence] = []
        self.unstarted: list[Sequence] = []
        """Choices that wait for a slot after the first has computed the prompt."""
        self.prompt_row: Row | None = None
        """The logits after the prompt, kept until every choice has drawn its first token."""
        self.saved: int | None = None
        """Handle of the prompt's state in host memory."""
        self.n_finished = 0
        self.cached_tokens = 0
        self.submitted = submitted
        self.started = 0.0
        self.first_token = 0.0

    @property
    def n_completion_tokens(self) -> int:
        """Generated tokens over all choices."""
        return sum(choice.n_generated for choice in self.choices)
