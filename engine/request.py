"""The values that cross between a front end and the engine: frozen, plain, complete.

A `Request` goes in; `TokenOutput`s and one `RequestDone` or `RequestFailed` come out.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from collections.abc import Sequence as Seq

from msgspec import Struct

from engine.errors import EngineError


class FinishReason(enum.StrEnum):
    """Why a choice ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"


class Priority(enum.IntEnum):
    """Order of admission: lower runs first."""

    HIGH = 0
    NORMAL = 1
    FLEX = 2


class SamplingParams(Struct, frozen=True, kw_only=True):
    """How the next token is drawn from the logits; the defaults leave the distribution as it is.

    Order: `logit_bias` and penalties, grammar, temperature, top_k, top_p, min_p.
    """

    temperature: float = 1.0
    """0 means greedy; among equal logits the lowest token id wins."""
    top_k: int = 0
    """0 is off."""
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    """Subtracted once from every token that was generated."""
    frequency_penalty: float = 0.0
    """Subtracted per occurrence in the generated text."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in the prompt or the output."""
    logit_bias: dict[int, float] = {}
    """Token id → added to its logit; −inf bans the token."""
    seed: int | None = None
    """None draws a fresh seed. Choice i of n samples from its own stream derived from the seed."""

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken: nothing is left to chance."""
        return self.temperature == 0 or self.top_k == 1


class Grammar(Struct, frozen=True):
    """A constraint on the output as text: `gbnf` for people, `lark` for the matcher."""

    gbnf: str
    lark: str


class ThoughtBudget(Struct, frozen=True):
    """A thought is closed once it has taken `tokens`."""

    tokens: int
    close: list[int]
    """The tokens that close it."""
    marker: str
    """The text by which a thought that closes by itself is known."""
    open: str = ""
    """The text that opens a thought; "" where the prompt has opened it."""


class LoraScale(Struct, frozen=True):
    """A LoRA adapter of the model and how strongly it counts; 0 is off."""

    name: str
    scale: float = 1.0


class Request(Struct, frozen=True, kw_only=True):
    """One prompt and what to generate from it."""

    id: str
    prompt: list[int]
    """Token ids, special tokens included; 1 ≤ length < context."""
    max_tokens: int
    """Per choice; 0 only computes the prompt. The engine ends a choice at the end of the context
    anyway."""
    sampling: SamplingParams = SamplingParams()
    n: int = 1
    stop: tuple[str, ...] = ()
    """The output ends before the first of these."""
    include_stop: bool = False
    """Leave the stop string in the text."""
    ignore_eos: bool = False
    """Go on after an end-of-generation token, which is then never sampled."""
    logprobs: int | None = None
    """None: off. k: the log probability of each token and of the k likeliest at its place."""
    prompt_logprobs: int | None = None
    """As `logprobs`, of the prompt's tokens; nothing of it is then taken from the cache."""
    grammar: Grammar | None = None
    special_tokens: frozenset[int] = frozenset()
    """Control tokens whose text is part of the output; the text of all others is left out."""
    thought: ThoughtBudget | None = None
    priority: Priority = Priority.NORMAL
    user: str = ""
    """Key of the fair share: waiting requests of different users are admitted in turn."""
    lora: tuple[LoraScale, ...] | None = None
    """The adapters that count, all others are off; None: as the model is configured."""
    prediction: tuple[int, ...] = ()
    """Tokens that are expected of the answer, anywhere in it: drafts, which change its cost only.
    Without effect where `ModelInfo.can_draft` is false."""
    cache_key: str = ""
    """Prefixes of requests with the same key are kept together: each use renews them all."""
    checkpoints: tuple[int, ...] = ()
    """Lengths of the prompt at which messages end. Memory that cannot be trimmed is copied there,
    that of a sliding window when it leaves its slot; any other memory needs none."""


class TopLogprob(Struct, frozen=True, gc=False):  # 20 a token: the collector would walk them
    """One likely token at a position; natural logarithm of the raw model distribution."""

    token: int
    data: bytes
    logprob: float


class TokenLogprob(Struct, frozen=True, gc=False):
    """The sampled token with the likeliest ones at its position."""

    token: int
    data: bytes
    logprob: float
    ranked: Seq[tuple[int, float]]
    """Tokens with their log probabilities, most likely first."""
    token_bytes: Callable[[int], bytes]

    @property
    def top(self) -> tuple[TopLogprob, ...]:
        """`ranked` with its bytes, which are looked up when they are wanted: the engine's thread
        goes on to the next step meanwhile."""
        data = self.token_bytes
        return tuple([TopLogprob(token, data(token), logprob) for token, logprob in self.ranked])


class TokenOutput(Struct, frozen=True, kw_only=True, tag="token"):
    """What one choice gained in one step.

    `text` may be empty while a character or a possible stop string is incomplete;
    `logprobs` then come with the text they belong to.
    """

    index: int
    text: str
    n_tokens: int
    """Tokens generated in this step, whether or not their text is in `text` yet."""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    """The stop string, or the end-of-generation token, that ended the choice."""
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    """Of every token of the prompt but the first, with the first output of choice 0."""


class Usage(Struct, frozen=True):
    """Token counts of a request over all its choices; the prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Prompt tokens whose KV was there already and were not computed."""
    accepted_prediction_tokens: int = 0
    """Of the completion, tokens that were computed ahead because they were predicted."""
    rejected_prediction_tokens: int = 0
    """Predicted tokens that were computed, but are not in the completion."""


class Timings(Struct, frozen=True):
    """Seconds on the monotonic clock."""

    queued: float
    """Submission to the first step with this request in it."""
    prefill: float
    """First step to first token."""
    decode: float
    """First token to the end of the last choice."""


class RequestDone(Struct, frozen=True, tag="done"):
    """Every choice has ended; nothing follows."""

    usage: Usage
    timings: Timings
    finish_reasons: tuple[FinishReason, ...] = ()
    """Of the choices, in order."""


class RequestFailed(Struct, frozen=True, tag="error"):
    """The request is over; nothing follows."""

    error: EngineError


Event = TokenOutput | RequestDone | RequestFailed
