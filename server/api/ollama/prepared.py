"""A translated request → the engine's, by whichever of the other doors speaks its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import ContextLengthExceeded
from engine.request import Request, SamplingParams
from server import prepare
from server.answers import ChoiceReader
from server.api.chat_call import prepare_chat
from server.api.completions_call import prepare_completion
from server.api.ollama.call import Translation
from server.config import ServerConfig
from server.errors import InvalidRequest, quote
from server.models import ServedModel
from server.protocol.completions import CompletionRequest
from server.protocol.options import GenerationOptions

UNLIMITED = 1 << 30
"""More than any context holds: the completion ends with it."""


DEFAULTS = {"temperature": 0.8, "top_k": 40, "top_p": 0.9}
"""Ollama's own, where neither the request nor the model's configuration says anything."""
NEUTRAL = SamplingParams()

_R = TypeVar("_R", bound=GenerationOptions)


class Prepared(Struct, frozen=True):
    """One request, how its answer is read, and what of it has no effect."""

    request: Request
    new_reader: Callable[[int], ChoiceReader]
    ignored: list[str]


async def prepare_ollama(
    translation: Translation, model: ServedModel, config: ServerConfig, client: prepare.Client
) -> Prepared:
    """Raises InvalidRequest, ContextLengthExceeded, EngineUnavailable."""
    if translation.text is not None:
        wire = _with_limit(_with_defaults(translation.text, model), config)
        text = await prepare_completion(wire, model, config, client)
        prepared = Prepared(text.requests[0], lambda index: ChoiceReader(None), [*text.ignored])
    else:
        _check_thinking(translation, model)
        wanted = _with_defaults(translation.chat, model)
        chat = await prepare_chat(wanted, model, config, client)
        prepared = Prepared(chat.request, chat.new_reader, [*chat.ignored])
    return _limited(prepared, translation.num_ctx, model.info.context)


def _with_defaults(wire: _R, model: ServedModel) -> _R:
    own = model.config.sampling
    return replace(
        wire,
        **{
            name: value
            for name, value in DEFAULTS.items()
            if getattr(wire, name) is None and getattr(own, name) == getattr(NEUTRAL, name)
        },
    )


def _with_limit(wire: CompletionRequest, config: ServerConfig) -> CompletionRequest:
    """That door's own default is 16 tokens."""
    if wire.max_tokens is not None:
        return wire
    return replace(wire, max_tokens=config.max_tokens or UNLIMITED)


def _check_thinking(translation: Translation, model: ServedModel) -> None:
    """A thought that is asked of a model without any is refused, as Ollama does it."""
    if translation.must_think and not model.format.learned.thought.learned:
        raise InvalidRequest(
            f"{quote(translation.chat.model)} does not support thinking", loc=("body", "think")
        )


def _limited(prepared: Prepared, num_ctx: int | None, context: int) -> Prepared:
    """At most `num_ctx` tokens of prompt and answer. Raises ContextLengthExceeded."""
    if num_ctx is None:
        return prepared
    if num_ctx > context:
        return replace(prepared, ignored=[*prepared.ignored, "options.num_ctx"])
    request = prepared.request
    room = num_ctx - len(request.prompt)
    if room < 1:
        raise ContextLengthExceeded(len(request.prompt), num_ctx)
    limited = replace(request, max_tokens=min(request.max_tokens, room))
    return replace(prepared, request=limited)
