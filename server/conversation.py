"""Chat messages → the prompt's tokens: roles and parts checked, template applied, text encoded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import msgspec
from msgspec import Struct

from server.boundaries import boundaries
from server.chat.errors import TemplateError
from server.checks import check_word, missing
from server.custom_tools import as_arguments
from server.errors import InvalidRequest, Loc, UnsupportedField
from server.models import ServedModel
from server.protocol.chat_completions import ChatCompletionRequest
from server.protocol.messages import (
    ChatMessage,
    ContentPart,
    CustomCall,
    RefusalPart,
    TextPart,
    ToolCall,
)
from server.protocol.text import ApplyTemplateRequest

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
RESERVED_KWARGS = frozenset(
    {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "self"}
)
MAX_MESSAGES = 10_000
INLINE_CHARS = 4096
"""Texts up to this length are rendered and encoded on the event loop: a thread costs more."""
_CHARS_PER_TURN = 50
_CHARS_PER_TOOL = 400

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Prompt(Struct, frozen=True):
    """What the model reads: the template's text, and its tokens."""

    text: str
    tokens: list[int]
    checkpoints: tuple[int, ...] = ()
    """Where messages end, as far as the engine wants to know."""


async def prompt(
    model: ServedModel,
    messages: Sequence[ChatMessage],
    kwargs: dict[str, Any],
    tools: Sequence[dict[str, Any]] = (),
    *,
    continues: bool = False,
) -> Prompt:
    """A conversation up to where the assistant speaks; with `continues`, goes on speaking.

    Raises InvalidRequest, and ContextLengthExceeded where it is not even worth counting.
    """
    dicts = template_messages(messages)
    size = _size(messages) + _CHARS_PER_TOOL * len(tools)
    return await off_loop_if(size, _prompt, model, dicts, kwargs, tools, continues)


async def prompt_text(
    model: ServedModel, messages: Sequence[ChatMessage], kwargs: dict[str, Any]
) -> str:
    """As `prompt`, before it is encoded."""
    dicts = template_messages(messages)
    return await off_loop_if(_size(messages), _render, model, dicts, kwargs, (), False)


def template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The messages as a chat template reads them. Raises InvalidRequest with the field's path."""
    if not messages:
        raise InvalidRequest("messages must not be empty", loc=("body", "messages"))
    if len(messages) > MAX_MESSAGES:
        raise InvalidRequest(
            f"there may be at most {MAX_MESSAGES} messages, but there are {len(messages)}",
            loc=("body", "messages"),
        )
    return [_template_message(m, ("body", "messages", i)) for i, m in enumerate(messages)]


def template_kwargs(wire: ChatCompletionRequest | ApplyTemplateRequest) -> dict[str, Any]:
    """What a template may read beside the messages; `chat_template_kwargs` has the last word."""
    kwargs: dict[str, Any] = {}
    if wire.reasoning_effort is not None:
        kwargs["reasoning_effort"] = wire.reasoning_effort
        kwargs["enable_thinking"] = wire.reasoning_effort != "none"
    if wire.enable_thinking is not None:
        kwargs["enable_thinking"] = wire.enable_thinking
    if wire.verbosity is not None:
        kwargs["verbosity"] = wire.verbosity
    for name in RESERVED_KWARGS & (wire.chat_template_kwargs or {}).keys():
        raise InvalidRequest(
            f"chat_template_kwargs must not contain {name}, which the server sets",
            loc=("body", "chat_template_kwargs", name),
        )
    return kwargs | (wire.chat_template_kwargs or {})


def _template_message(message: ChatMessage, loc: Loc) -> dict[str, Any]:
    check_word(message.role, ROLES, (*loc, "role"))
    if message.role == "tool" and not message.tool_call_id:
        raise InvalidRequest(
            "a message of role tool needs the tool_call_id that it answers",
            loc=(*loc, "tool_call_id"),
            code="missing_required_parameter",
        )
    fields: dict[str, Any] = {
        name: value
        for name, value in msgspec.structs.asdict(message).items()
        if value is not None and name not in ("content", "refusal", "annotations")
    }
    # A refusal is what the assistant said: clients send it back with content null.
    fields["content"] = _template_content(message.content or message.refusal, (*loc, "content"))
    if message.tool_calls is not None:
        fields["tool_calls"] = [
            _template_call(call, (*loc, "tool_calls", index))
            for index, call in enumerate(message.tool_calls)
        ]
    if message.function_call is not None:
        fields["function_call"] = msgspec.to_builtins(message.function_call)
    return fields


def _template_call(call: ToolCall, loc: Loc) -> dict[str, Any]:
    """A call of a custom tool becomes one of the function that stands for it."""
    fields: dict[str, Any] = {"id": call.id, "type": "function"}
    if isinstance(call.custom, CustomCall):
        arguments = as_arguments(call.custom.input)
        return {**fields, "function": {"name": call.custom.name, "arguments": arguments}}
    if not call.function.name:
        raise missing((*loc, "function", "name"))
    return {**fields, "type": call.type, "function": msgspec.to_builtins(call.function)}


def _template_content(content: str | list[ContentPart] | None, loc: Loc) -> Any:
    if not isinstance(content, list):
        return content
    return [_template_part(part, (*loc, index)) for index, part in enumerate(content)]


def _template_part(part: ContentPart, loc: Loc) -> dict[str, str]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case RefusalPart():
            return {"type": "text", "text": part.refusal}
        case _:
            kind = part.__struct_config__.tag
            raise UnsupportedField(f"{kind} parts are not supported here", loc=(*loc, "type"))


def _render(
    model: ServedModel,
    messages: list[dict[str, Any]],
    kwargs: dict[str, Any],
    tools: Sequence[dict[str, Any]],
    continues: bool,
) -> str:
    try:
        text = model.format.render(messages, list(tools) or None, not continues, **kwargs)
    except TemplateError as error:
        raise _refused(f"the model's chat template does not take these messages: {error}") from None
    if continues:
        text = _up_to(text, messages[-1]["content"])
    if not text:
        raise _refused("the model's chat template prints nothing for these messages")
    return text


def _up_to(text: str, content: str | list[dict[str, str]]) -> str:
    """`text` without what a template prints after the last message; it may have trimmed that."""
    words = content if isinstance(content, str) else "\n".join(part["text"] for part in content)
    before, found, _ = text.rpartition(words.strip())
    if not found:
        raise _refused("the model's chat template does not print the last message as it is")
    return before + found


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, loc=("body", "messages"), code="chat_template_error")


def _prompt(
    model: ServedModel,
    messages: list[dict[str, Any]],
    kwargs: dict[str, Any],
    tools: Sequence[dict[str, Any]],
    continues: bool,
) -> Prompt:
    messages = model.prompt_text.mark(messages)
    text = _render(model, messages, kwargs, tools, continues)
    text, tokens = model.prompt_text.encode(text)
    return Prompt(text, tokens, boundaries(model, messages, kwargs, tools, tokens))


def _size(messages: Sequence[ChatMessage]) -> int:
    """About how many characters there are to render and encode."""
    return sum(
        _CHARS_PER_TURN
        + len(str(message.content))
        + len(message.reasoning_content or message.reasoning or message.thought or "")
        + (len(str(message.tool_calls)) if message.tool_calls else 0)
        for message in messages
    )


async def off_loop_if(
    size: int, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
) -> _T:
    """Call `function` in a thread if its work on `size` characters would hold up the loop."""
    if size <= INLINE_CHARS:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
