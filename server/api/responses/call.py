"""One response on its way: the chat completion behind it, and what the answer repeats."""

from __future__ import annotations

import uuid
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import ContextLengthExceeded
from server import prepare
from server.api.chat_call import ChatCall, prepare_chat
from server.api.responses.items import Turn
from server.api.responses.truncation import longest_fitting
from server.api.responses.wire import Wire
from server.config import ServerConfig
from server.models import ServedModel
from server.protocol.responses import ResponseObject, ResponsesRequest

RESERVED_TOKENS = 256
"""Room for the answer that truncation leaves, where the request does not say more or less."""


class ResponseCall(Struct, frozen=True, kw_only=True):
    """The engine's part, and what the answer needs to know of the request."""

    chat: ChatCall
    response: ResponseObject
    """As it stands before the first token."""
    input: list[dict[str, Any]]
    """The request's own items, each with an id."""
    store: bool
    summary: bool
    encrypted: bool
    ignored: tuple[str, ...]


async def prepare_response(
    request: ResponsesRequest,
    wire: Wire,
    model: ServedModel,
    config: ServerConfig,
    client: prepare.Client,
    *,
    stores: bool,
) -> ResponseCall:
    """`wire`: the same request as a chat completion, the conversation before it included.

    Raises InvalidRequest, ContextLengthExceeded, EngineUnavailable.
    """
    id = f"resp_{uuid.uuid4().hex}"
    dropped = 0
    with wire.placing():
        try:
            chat = await prepare_chat(wire.chat, model, config, client)
        except ContextLengthExceeded:
            if request.truncation != "auto":
                raise
            chat, dropped = await _truncated(wire, model, config, client)
    chat = replace(chat, request=replace(chat.request, id=id))
    ignored = [*wire.ignored, *chat.ignored]
    ignored += [f"input ({dropped} oldest messages, by truncation)"] if dropped else []
    return ResponseCall(
        chat=chat,
        response=_opening(id, request, chat, stores),
        input=input_items(request.input),
        store=stores,
        summary=wire.summary,
        encrypted=wire.encrypted,
        ignored=tuple(ignored),
    )


async def _truncated(
    wire: Wire, model: ServedModel, config: ServerConfig, client: prepare.Client
) -> tuple[ChatCall, int]:
    async def attempt(turns: list[Turn]) -> ChatCall:
        messages = [turn.message for turn in turns]
        chat = await prepare_chat(replace(wire.chat, messages=messages), model, config, client)
        context = model.engine.info.context
        asked = wire.chat.max_completion_tokens or RESERVED_TOKENS
        if len(chat.request.prompt) + min(asked, context // 4) > context:
            raise ContextLengthExceeded(len(chat.request.prompt), context, asked)
        return chat

    return await longest_fitting(wire.turns, attempt)


def input_items(given: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """The input as items with ids, as they are stored and listed."""
    if isinstance(given, str):
        given = [{"role": "user", "content": [{"type": "input_text", "text": given}]}]
    return [{"type": "message", **item, "id": _item_id(item)} for item in given or ()]


def _item_id(item: dict[str, Any]) -> str:
    if isinstance(item.get("id"), str):
        return str(item["id"])
    kind = str(item.get("type", "message"))
    prefix = {"message": "msg", "reasoning": "rs", "custom_tool_call": "ctc"}.get(kind, "fc")
    return f"{prefix}_{uuid.uuid4().hex}"


def _opening(id: str, request: ResponsesRequest, chat: ChatCall, stores: bool) -> ResponseObject:
    sampling = chat.request.sampling
    reasoning, text = request.reasoning, request.text
    format = text.format if text is not None and text.format else {"type": "text"}
    return ResponseObject(
        id=id,
        created_at=chat.created,
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        model=chat.model,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        previous_response_id=request.previous_response_id,
        prompt_cache_key=request.prompt_cache_key,
        prompt_cache_retention=request.prompt_cache_retention,
        reasoning={
            "effort": reasoning.effort if reasoning else None,
            "summary": (reasoning.summary or reasoning.generate_summary) if reasoning else None,
        },
        safety_identifier=request.safety_identifier,
        service_tier=chat.service_tier,
        store=stores,
        temperature=sampling.temperature,
        text={"format": format, "verbosity": text.verbosity if text else None},
        tool_choice=request.tool_choice or "auto",
        tools=request.tools or [],
        top_logprobs=request.top_logprobs or 0,
        top_p=sampling.top_p,
        truncation=request.truncation or "disabled",
        user=request.user,
        metadata=request.metadata or {},
        system_fingerprint=chat.fingerprint,
    )
