"""A prompt that the model reads as it is: no template, no calls, no thoughts."""

from __future__ import annotations

import asyncio
import time
import uuid

from server import conversation, prepare
from server.answers import ChoiceReader
from server.api.chat_call import ChatCall, top_logprobs
from server.api.ollama.call import Translation
from server.config import ServerConfig
from server.constraints import Wanted, read_response_format
from server.models import ServedModel


async def prepare_raw(
    translation: Translation, model: ServedModel, config: ServerConfig, client: prepare.Client
) -> ChatCall:
    """Raises InvalidRequest, ContextLengthExceeded, EngineUnavailable."""
    chat, info = translation.chat, model.engine.info
    tokens = await conversation.encode(
        model, translation.raw_prompt or "", add_special=True, parse_special=True
    )
    form = read_response_format(chat.response_format)
    output = None
    if form is not None:
        output = await asyncio.to_thread(model.constrain, Wanted(form=form))
    request = prepare.request(
        chat,
        tokens,
        id=f"raw-{uuid.uuid4().hex}",
        context=info.context,
        n_vocab=info.n_vocab,
        client=client,
        max_tokens_cap=config.max_tokens,
        logprobs=top_logprobs(chat),
        grammar=output.grammar if output is not None else None,
    )
    return ChatCall(
        request=request,
        new_reader=lambda index: ChoiceReader(None),
        model=model.name,
        created=int(time.time()),
        fingerprint=info.fingerprint,
        service_tier="default",
        metadata=None,
        stream=bool(chat.stream),
        include_usage=False,
        legacy_functions=False,
        ignored=output.ignored if output is not None else (),
    )
