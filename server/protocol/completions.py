"""POST /v1/completions: prompts in, continuations out, whole or in chunks of one shape."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from server.protocol.chat_completions import (
    ExtraFields,
    ResponseFormatObject,
    StreamOptions,
    Timings,
    Usage,
)
from server.protocol.options import GenerationOptions

Prompt = str | list[int]
"""Text, or tokens as they are."""


class CompletionRequest(GenerationOptions, kw_only=True):
    """Every field that means something here; all others are listed in `x-ignored-params`."""

    prompt: str | list[str | int | list[int]] | None = None
    """A text, a list of tokens, or a list of several of these."""
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: int | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None
    response_format: ResponseFormatObject | None = None
    fallbacks: list[str] | None = None


class Logprobs(Struct):
    """Parallel lists, an entry for each token. The first token of a prompt has null for its
    probability; `text_offset` counts characters of the choice's text."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class CompletionChoice(Struct):
    """One continuation of one prompt: number `prompt × n + choice`."""

    text: str
    index: int
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | UnsetType | None = UNSET


class Completion(Struct, kw_only=True):
    """The whole answer."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    system_fingerprint: str
    timings: Timings
    extra_fields: ExtraFields | UnsetType = UNSET


class ChunkHead(Struct, tag_field="object", tag="text_completion"):
    """What every chunk of a stream repeats; `choices` and `usage` follow it."""

    id: str
    created: int
    model: str
    system_fingerprint: str
