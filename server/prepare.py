"""Wire options → engine `Request`: every default, range and limit stands here.

An API module builds its prompt's tokens, hands over its `GenerationOptions` and gets a Request.
"""

from __future__ import annotations

import math
from typing import TypeVar

from msgspec import Struct

from engine.errors import ContextLengthExceeded
from engine.request import Grammar, LoraScale, Priority, Request, SamplingParams, ThoughtBudget
from server.checks import check_word
from server.errors import InvalidRequest, quote
from server.protocol.options import GenerationOptions, LoraOption


class Range(Struct, frozen=True):
    """Allowed values of a number; None is no bound."""

    low: float | None
    high: float | None
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        if self.low is not None and (value < self.low or (self.open_low and value == self.low)):
            return False
        return self.high is None or value <= self.high

    def __str__(self) -> str:
        if self.high is None:
            return f"at least {self.low:g}"
        if self.open_low:
            return f"more than {self.low:g} and at most {self.high:g}"
        return f"between {self.low:g} and {self.high:g}"


RANGES = {
    "max_tokens": Range(1, None),
    "max_completion_tokens": Range(1, None),
    "temperature": Range(0, 2),
    "top_p": Range(0, 1, open_low=True),
    "top_k": Range(-1, None),
    "min_p": Range(0, 1),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "repetition_penalty": Range(0, 2, open_low=True),
    "repeat_penalty": Range(0, 2, open_low=True),
    "n": Range(1, 128),
    "best_of": Range(1, 128),
    "top_logprobs": Range(0, 20),
    "reasoning_budget": Range(0, None),
    "max_output_tokens": Range(1, None),
    "max_tool_calls": Range(1, None),
}
CHOICES = {
    "context_length_exceeded_behavior": ("truncate", "error"),
    "prompt_cache_retention": ("in-memory", "in_memory", "24h"),
    "service_tier": ("auto", "default", "flex", "priority"),
    "verbosity": ("low", "medium", "high"),
    "truncation": ("auto", "disabled"),
    "reasoning_effort": ("none", "minimal", "low", "medium", "high", "xhigh", "max"),
}
LOGIT_BIAS = Range(-100, 100)
LORA_SCALE = Range(-100, 100)
MAX_STOPS = 16
MAX_STOP_LENGTH = 1024
METADATA_KEYS, METADATA_KEY_CHARS, METADATA_VALUE_CHARS = 16, 64, 512

NEUTRAL = SamplingParams()

_PRIORITIES = {"flex": Priority.FLEX, "priority": Priority.HIGH}
_SEED_MASK = (1 << 64) - 1
_T = TypeVar("_T")


class Client(Struct, frozen=True):
    """Who asks, as far as the connection tells: the fair share of those who do not say."""

    key: str


def check(options: Struct) -> None:
    """Numbers within their range, words among the known ones. Raises InvalidRequest."""
    for name, allowed in RANGES.items():
        value = getattr(options, name, None)
        if value is not None and value not in allowed:
            raise InvalidRequest(
                f"{name} must be {allowed}, but is {quote(value)}", loc=("body", name)
            )
    for name, words in CHOICES.items():
        value = getattr(options, name, None)
        if value is not None:
            check_word(value, words, ("body", name))


def request(
    options: GenerationOptions,
    prompt: list[int],
    *,
    id: str,
    context: int,
    n_vocab: int,
    client: Client,
    max_tokens_cap: int | None = None,
    logprobs: int | None = None,
    grammar: Grammar | None = None,
    special_tokens: frozenset[int] = frozenset(),
    thought: ThoughtBudget | None = None,
    defaults: SamplingParams = NEUTRAL,
    checkpoints: tuple[int, ...] = (),
    prediction: tuple[int, ...] = (),
) -> Request:
    """The engine's request for `prompt`, in a context of `context` tokens; `defaults` are the
    model's own.

    Raises InvalidRequest and ContextLengthExceeded.
    """
    check(options)
    check_metadata(options.metadata)
    return Request(
        id=id,
        prompt=prompt,
        max_tokens=max_tokens(options, len(prompt), context, max_tokens_cap),
        sampling=sampling_params(options, n_vocab, defaults),
        n=options.n or 1,
        stop=stop_strings(options.stop),
        include_stop=bool(options.include_stop_str_in_output),
        ignore_eos=bool(options.ignore_eos),
        logprobs=logprobs,
        grammar=grammar,
        special_tokens=special_tokens,
        thought=thought,
        priority=_PRIORITIES.get(options.service_tier or "", Priority.NORMAL),
        user=fair_share_key(options, client),
        lora=lora_scales(options.lora),
        cache_key=options.prompt_cache_key or "",
        checkpoints=checkpoints,
        prediction=prediction,
    )


def max_tokens(
    options: GenerationOptions, prompt_tokens: int, context: int, cap: int | None
) -> int:
    """What was asked for, cut to the room left; without a word, the room, at most `cap`."""
    room = context - prompt_tokens
    if room < 1:
        raise ContextLengthExceeded(prompt_tokens, context)
    asked = options.max_completion_tokens or options.max_tokens
    if asked is None:
        return room if cap is None else min(room, cap)
    if asked > room and options.context_length_exceeded_behavior == "error":
        raise ContextLengthExceeded(prompt_tokens, context, asked)
    return min(asked, room)


def sampling_params(
    options: GenerationOptions, n_vocab: int, defaults: SamplingParams
) -> SamplingParams:
    """The model's defaults where nothing is given: OpenAI's, if its configuration has no others."""
    return SamplingParams(
        temperature=_given(options.temperature, defaults.temperature),
        top_k=max(0, _given(options.top_k, defaults.top_k)),
        top_p=_given(options.top_p, defaults.top_p),
        min_p=_given(options.min_p, defaults.min_p),
        presence_penalty=_given(options.presence_penalty, defaults.presence_penalty),
        frequency_penalty=_given(options.frequency_penalty, defaults.frequency_penalty),
        repetition_penalty=_given(repetition_penalty(options), defaults.repetition_penalty),
        logit_bias=logit_bias(options.logit_bias or {}, n_vocab),
        seed=None if options.seed is None else options.seed & _SEED_MASK,
    )


def repetition_penalty(options: GenerationOptions) -> float | None:
    """By either of its names."""
    one, other = options.repetition_penalty, options.repeat_penalty
    if None not in (one, other) and one != other:
        raise InvalidRequest(
            f"repetition_penalty is {one:g}, but repeat_penalty, its other name, is {other:g}",
            loc=("body", "repeat_penalty"),
        )
    return other if one is None else one


def logit_bias(wire: dict[str, float], n_vocab: int) -> dict[int, float]:
    """Token id → bias; −100 becomes −inf, which bans the token."""
    bias = {}
    for key, value in wire.items():
        loc = ("body", "logit_bias", key)
        token = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else -1
        if not 0 <= token < n_vocab:
            raise InvalidRequest(
                f"logit_bias: {quote(key)} is not a token id; they are 0 to {n_vocab - 1}", loc=loc
            )
        if value not in LOGIT_BIAS:
            raise InvalidRequest(
                f"logit_bias of token {key} must be {LOGIT_BIAS}, but is {value:g}", loc=loc
            )
        bias[token] = -math.inf if value == LOGIT_BIAS.low else value
    return bias


def stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    """At most `MAX_STOPS` strings, none empty or longer than `MAX_STOP_LENGTH` characters: text
    that could be the beginning of one is compared again with each token."""
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > MAX_STOPS:
        raise InvalidRequest(
            f"stop takes at most {MAX_STOPS} strings, but has {len(stops)}", loc=("body", "stop")
        )
    for index, string in enumerate(stops):
        loc = ("body", "stop") if isinstance(stop, str) else ("body", "stop", index)
        if not string:
            raise InvalidRequest("a stop string must not be empty", loc=loc)
        if len(string) > MAX_STOP_LENGTH:
            raise InvalidRequest(
                f"a stop string has at most {MAX_STOP_LENGTH} characters, not {len(string)}",
                loc=loc,
            )
    return stops


def lora_scales(wire: list[LoraOption] | None) -> tuple[LoraScale, ...] | None:
    """Whether the model has these adapters, the engine knows."""
    if wire is None:
        return None
    for index, each in enumerate(wire):
        if each.scale not in LORA_SCALE:
            raise InvalidRequest(
                f"the scale of {quote(each.name)} must be {LORA_SCALE}, but is {each.scale:g}",
                loc=("body", "lora", index, "scale"),
            )
    return tuple(LoraScale(each.name, each.scale) for each in wire)


def check_metadata(metadata: dict[str, str] | None) -> None:
    """OpenAI's limits on the notes that a client attaches."""
    if metadata is None:
        return
    loc = ("body", "metadata")
    if len(metadata) > METADATA_KEYS:
        raise InvalidRequest(
            f"metadata takes at most {METADATA_KEYS} keys, but has {len(metadata)}", loc=loc
        )
    for key, value in metadata.items():
        if len(key) > METADATA_KEY_CHARS:
            raise InvalidRequest(
                f"a key of metadata must have at most {METADATA_KEY_CHARS} characters, "
                f"but {quote(key)} has {len(key)}",
                loc=loc,
            )
        if len(value) > METADATA_VALUE_CHARS:
            raise InvalidRequest(
                f"a value of metadata must have at most {METADATA_VALUE_CHARS} characters, "
                f"but that of {quote(key)} has {len(value)}",
                loc=(*loc, key),
            )


def fair_share_key(options: GenerationOptions, client: Client) -> str:
    """Prefixed, so that a user cannot pass for a connection."""
    user = options.safety_identifier or options.user
    return f"user:{user}" if user else f"client:{client.key}"


def _given(value: _T | None, default: _T) -> _T:
    return default if value is None else value
