"""Stored chat completions: what lists, changes and deletions look like."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Raw, Struct

from server.protocol.chat_completions import ChatCompletion
from server.protocol.messages import FunctionCall, ToolCall


class ListPage(Struct, kw_only=True):
    """Part of a list; `last_id` is the `after` of the next part."""

    object: Literal["list"] = "list"
    data: list[Raw]
    first_id: str | None
    last_id: str | None
    has_more: bool


class StoredCompletion(ChatCompletion, kw_only=True):
    """A completion with what was asked for, but for its messages, which have a list of their own,
    and its metadata, which can change."""

    request_id: str
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    seed: int | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    response_format: dict[str, Any] | None
    input_user: str | None


class StoredMessage(Struct, kw_only=True):
    """A message of the request. `content_parts` are the parts where there were any; `content`
    is then their text."""

    id: str
    role: str
    content: str | None
    content_parts: list[Any] | None
    name: str | None
    tool_calls: list[ToolCall] | None
    tool_call_id: str | None
    function_call: FunctionCall | None
    refusal: str | None


class MetadataUpdate(Struct):
    """The one thing that can be changed; null removes all notes."""

    metadata: dict[str, str] | None


class DeletedCompletion(Struct, kw_only=True):
    """A completion that is gone."""

    id: str
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: Literal[True] = True
