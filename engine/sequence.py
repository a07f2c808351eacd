"""The running state of a request and of each of its choices, for the engine's thread only."""

from __future__ import annotations

from typing import Protocol

from engine.disk_cache import Fetch
from engine.draft import Draft, Prediction
from engine.lora import LoraSet
from engine.output import OutputText
from engine.prefix_index import Held
from engine.request import (
    FinishReason,
    Request,
    RequestDone,
    Timings,
    TokenLogprob,
    Usage,
)
from engine.sampler import Sampler
from engine.thought import ThoughtLimit
from engine.vocab_math import Row


class Constraint(Protocol):
    """Follows the output of one choice and says what may come next."""

    def restrict(self, row: Row) -> None:
        """Set the logits of every token that may not come next to -inf, in place."""
        ...

    def accept(self, token: int) -> None:
        """Move on by a token that was allowed."""
        ...

    def forced(self) -> list[int]:
        """The tokens that must come next, in order; `accept` is still to be told of each."""
        ...

    @property
    def finished(self) -> bool:
        """Nothing may follow."""
        ...

    def fork(self) -> Constraint:
        """The same place in the same grammar, on its own from here."""
        ...


class Sequence:
    """One choice: its tokens, how many of them the model has computed, and where."""

    def __init__(
        self,
        group: RequestState,
        index: int,
        output: OutputText,
        constraint: Constraint | None = None,
    ) -> None:
        self.group = group
        self.index = index
        self.slot = -1
        self.tokens = list(group.request.prompt)
        self.n_computed = 0
        self.pauses: list[int] = []
        """Lengths of the prompt after which a step ends, so that the state can be copied."""
        self.output = output
        request = group.request
        self.constraint = constraint
        self.thought = ThoughtLimit(request.thought) if request.thought is not None else None
        self.sampler = Sampler(request.sampling, request.prompt, index)
        self.draft = Draft(group.prediction, len(self.tokens)) if group.prediction else None
        self.finish_reason: FinishReason | None = None

    @property
    def n_waiting(self) -> int:
        """Tokens the model has not seen yet: 1 while decoding, more in prefill. Below 0 while
        drafted tokens are computed of which it is not known yet whether they come."""
        return len(self.tokens) - self.n_computed

    @property
    def n_until_pause(self) -> int:
        """As `n_waiting`, up to the next pause."""
        return (self.pauses[0] if self.pauses else len(self.tokens)) - self.n_computed

    @property
    def held(self) -> Held:
        """What its slot holds."""
        request = self.group.request
        tokens = self.tokens[: self.n_computed]
        return Held(
            tokens, self.group.lora, len(request.prompt), request.cache_key, request.checkpoints
        )

    @property
    def n_generated(self) -> int:
        """Tokens of the output so far."""
        return len(self.tokens) - len(self.group.request.prompt)

    @property
    def wants_prompt_rows(self) -> bool:
        """Whether the logits after each token of the prompt are wanted."""
        return self.group.request.prompt_logprobs is not None

    @property
    def decoding(self) -> bool:
        """Whether the prompt is done."""
        return self.n_generated > 0


class RequestState:
    """A request with its choices, and what they share."""

    def __init__(
        self,
        request: Request,
        submitted: float,
        constraint: Constraint | None = None,
        lora: LoraSet = (),
    ) -> None:
        """`constraint` stands at the start of the request's grammar; each choice forks it.
        `lora` is what the request's adapters come to."""
        self.request = request
        self.lora = lora
        self.constraint = constraint
        self.prediction: Prediction | None = None
        """What its choices are expected to say, where that is of use."""
        self.choices: list[Sequence] = []
        self.unstarted: list[Sequence] = []
        """Choices that wait for a slot after the first has computed the prompt."""
        self.prompt_row: Row | None = None
        """The logits after the prompt, kept until every choice has drawn its first token."""
        self.prompt_logprobs: list[TokenLogprob] = []
        """Of the prompt's tokens but the first, as far as it is computed."""
        self.saved: int | None = None
        """Handle of the prompt's state in host memory."""
        self.asked_disk = False
        self.fetch: Fetch | None = None
        """A prefix that is read from disk, and waited for."""
        self.n_finished = 0
        self.cached_tokens = 0
        self.submitted = submitted
        self.started = 0.0
        self.first_token = 0.0

    @property
    def n_alike(self) -> int:
        """Choices that each sequence stands for: where nothing is drawn they are all the same."""
        return self.request.n if self.request.sampling.greedy else 1

    def done(self, ended: float) -> RequestDone:
        """The last event of a request whose choices have all ended; seconds, monotonic."""
        timings = Timings(
            queued=self.started - self.submitted,
            prefill=self.first_token - self.started,
            decode=ended - self.first_token,
        )
        reasons = tuple(c.finish_reason for c in self.choices if c.finish_reason is not None)
        return RequestDone(self._usage(), timings, reasons * self.n_alike)

    def _usage(self) -> Usage:
        """Generated tokens count over all choices."""
        drafts = [choice.draft for choice in self.choices if choice.draft is not None]
        return Usage(
            prompt_tokens=len(self.request.prompt),
            completion_tokens=self.n_alike * sum(each.n_generated for each in self.choices),
            cached_tokens=self.cached_tokens,
            accepted_prediction_tokens=self.n_alike * sum(each.n_accepted for each in drafts),
            rejected_prediction_tokens=self.n_alike * sum(each.n_rejected for each in drafts),
        )
