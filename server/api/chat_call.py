"""Chat completion request → the engine's request, and what the answer needs to know of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from msgspec import Struct

from engine.request import Grammar, Request
from server import conversation, prepare
from server.answers import ChoiceReader
from server.config import ServerConfig
from server.errors import InvalidRequest, UnsupportedField, quote
from server.models import ServedModel
from server.protocol.chat_completions import ChatCompletionRequest

UNSERVED = ("prediction", "fallbacks", "audio", "web_search_options", "reasoning_budget", "store")
"""Fields that are refused unless they are null, false or an empty list."""


class ChatCall(Struct, frozen=True, kw_only=True):
    """One request on its way: the engine's part, and the fields that the answer repeats."""

    request: Request
    new_reader: Callable[[], ChoiceReader]
    model: str
    created: int
    fingerprint: str
    service_tier: str
    metadata: dict[str, str] | None
    stream: bool
    include_usage: bool


async def prepare_chat(
    wire: ChatCompletionRequest, model: ServedModel, config: ServerConfig, client: prepare.Client
) -> ChatCall:
    """Raises InvalidRequest, ContextLengthExceeded, EngineUnavailable."""
    info = model.engine.info
    prepare.check(wire)
    refuse_unserved(wire)
    kwargs = conversation.template_kwargs(wire)
    prompt = await conversation.prompt(model, wire.messages, kwargs)
    id = f"chatcmpl-{uuid.uuid4().hex}"
    separate = wire.separate_reasoning is not False
    return ChatCall(
        request=prepare.request(
            wire,
            prompt.tokens,
            id=id,
            context=info.context,
            n_vocab=info.n_vocab,
            client=client,
            max_tokens_cap=config.max_tokens,
            logprobs=top_logprobs(wire),
            grammar=grammar(wire),
            special_tokens=model.answers.special_tokens,
        ),
        new_reader=lambda: model.answers.reader(prompt.text, separate=separate, seed=id),
        model=model.name,
        created=int(time.time()),
        fingerprint=info.fingerprint,
        service_tier=wire.service_tier or "default",
        metadata=wire.metadata,
        stream=bool(wire.stream),
        include_usage=include_usage(wire),
    )


def grammar(wire: ChatCompletionRequest) -> Grammar | None:
    """The constraint that response_format and tools put on the output."""
    form = wire.response_format
    if form is not None and form.get("type") != "text":
        raise UnsupportedField(
            f"response_format of type {quote(form.get('type'))} is not supported; text is",
            loc=("body", "response_format", "type"),
        )
    refuse_tools(wire)
    return None


def refuse_tools(wire: ChatCompletionRequest) -> None:
    """No tools yet: an empty list, and a choice that needs none, ask for nothing."""
    for name, value in (("tools", wire.tools), ("functions", wire.functions)):
        if value:
            raise UnsupportedField(f"{name} is not supported", loc=("body", name))
    for name, choice in (("tool_choice", wire.tool_choice), ("function_call", wire.function_call)):
        if choice not in (None, "none", "auto"):
            raise InvalidRequest(
                f"{name} is {quote(choice)}, but there are no tools", loc=("body", name)
            )


def refuse_unserved(wire: ChatCompletionRequest) -> None:
    """Names the first field that asks for what this server does not do."""
    for name in UNSERVED:
        value = getattr(wire, name)
        if value is not None and value is not False and value != []:
            raise UnsupportedField(f"{name} is not supported", loc=("body", name))
    for index, modality in enumerate(wire.modalities or ()):
        if modality != "text":
            raise UnsupportedField(
                f"modality {quote(modality)} is not supported; text is",
                loc=("body", "modalities", index),
            )


def top_logprobs(wire: ChatCompletionRequest) -> int | None:
    """How many likely tokens to report at each position; None is no logprobs at all."""
    if wire.logprobs:
        return wire.top_logprobs or 0
    if wire.top_logprobs:
        raise InvalidRequest(
            f"top_logprobs is {wire.top_logprobs}, but logprobs is not true",
            loc=("body", "top_logprobs"),
        )
    return None


def include_usage(wire: ChatCompletionRequest) -> bool:
    """Whether the stream ends with a chunk of token counts."""
    if wire.stream_options is None:
        return False
    if not wire.stream:
        raise InvalidRequest(
            "stream_options may only be given where stream is true",
            loc=("body", "stream_options"),
        )
    return bool(wire.stream_options.include_usage)
