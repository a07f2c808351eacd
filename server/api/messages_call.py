"""A request in Anthropic's shape → one in OpenAI's, and errors back to Anthropic's paths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import UNSET, Struct

from engine.errors import RequestError
from server.api.messages_input import chat_messages
from server.checks import check_word, missing
from server.errors import ApiError, InvalidRequest, Loc, UnsupportedField, field_path, quote
from server.protocol.anthropic import (
    MessagesRequest,
    OutputFormat,
    PromptRequest,
    ThinkingConfig,
    ToolChoice,
    ToolParam,
)
from server.protocol.chat_completions import ChatCompletionRequest

THINKING = ("enabled", "adaptive", "between_tools", "disabled")
DISPLAYS = ("summarized", "omitted")
TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
SERVICE_TIERS = {"standard_only": "default"}
RENAMED: dict[str, Loc] = {
    "stop": ("stop_sequences",),
    "reasoning_budget": ("thinking", "budget_tokens"),
    "reasoning_effort": ("output_config", "effort"),
    "response_format": ("output_config", "format"),
}
"""Fields of the other API → where their values came from."""


class Translation(Struct, frozen=True, kw_only=True):
    """A request in OpenAI's words, with what these words leave out."""

    chat: ChatCompletionRequest
    ignored: list[str]
    tools: tuple[int, ...]
    """Where in the request each of its tools stands: those of a foreign kind are left out."""
    show_thoughts: bool


def translate(wire: PromptRequest) -> Translation:
    """Raises InvalidRequest with a path in Anthropic's request."""
    messages, ignored = chat_messages(wire.system, wire.messages)
    served, skipped = _sorted_tools(wire.tools or [])
    chat = ChatCompletionRequest(
        messages=messages,
        model=wire.model,
        tools=[_tool(tool) for _, tool in served] or None,
        response_format=_response_format(wire),
        continue_final_message=wire.messages[-1].role == "assistant",
        **_choice(wire.tool_choice, [name for name, _ in skipped]),
        **_thinking(wire.thinking),
    )
    if wire.output_config is not None:
        chat.reasoning_effort = wire.output_config.effort
    if isinstance(wire, MessagesRequest):
        _set_options(chat, wire)
    return Translation(
        chat=chat,
        ignored=[*ignored, *(place for _, place in skipped)],
        tools=tuple(index for index, _ in served),
        show_thoughts=wire.thinking is None or wire.thinking.display != "omitted",
    )


@contextmanager
def anthropic_paths(translation: Translation) -> Iterator[None]:
    """Errors of the block name the fields of the request as it came."""
    try:
        yield
    except ApiError as error:
        if error.loc[:1] == ("body",):
            error.loc, error.args = _renamed(error, translation.tools)
        raise
    except RequestError as error:
        if error.param in RENAMED:
            error.param = field_path(RENAMED[error.param])
        raise


def _set_options(chat: ChatCompletionRequest, wire: MessagesRequest) -> None:
    chat.max_tokens = wire.max_tokens
    chat.stream = wire.stream
    chat.temperature, chat.top_p, chat.top_k = wire.temperature, wire.top_p, wire.top_k
    chat.stop = wire.stop_sequences
    chat.user = wire.metadata.user_id if wire.metadata is not None else None
    chat.service_tier = SERVICE_TIERS.get(wire.service_tier or "", wire.service_tier)


def _sorted_tools(
    tools: list[ToolParam],
) -> tuple[list[tuple[int, ToolParam]], list[tuple[str, str]]]:
    """(those with a schema, by their places), (name and place of those that others would run)."""
    served, skipped = [], []
    for index, tool in enumerate(tools):
        if tool.input_schema is not UNSET:
            served.append((index, tool))
        elif tool.type in (None, "custom"):
            raise missing(("body", "tools", index, "input_schema"))
        else:
            skipped.append((tool.name, f"tools[{index}] ({tool.type})"))
    return served, skipped


def _tool(tool: ToolParam) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice | None, skipped: list[str]) -> dict[str, Any]:
    if choice is None:
        return {}
    parallel = False if choice.disable_parallel_tool_use else None
    if choice.type in TOOL_CHOICES:
        return {"tool_choice": TOOL_CHOICES[choice.type], "parallel_tool_calls": parallel}
    if choice.type != "tool" or choice.name is None:
        raise InvalidRequest(
            "tool_choice must be auto, any, none, or tool with a name, but its type is "
            f"{quote(choice.type)}",
            loc=("body", "tool_choice"),
        )
    if choice.name in skipped:
        raise UnsupportedField(
            f"tool_choice names {quote(choice.name)}, a tool that is not run here",
            loc=("body", "tool_choice", "name"),
        )
    named = {"type": "function", "function": {"name": choice.name}}
    return {"tool_choice": named, "parallel_tool_calls": parallel}


def _thinking(thinking: ThinkingConfig | None) -> dict[str, Any]:
    """Without a word the template has its way, as without a word in the other API."""
    if thinking is None:
        return {}
    check_word(thinking.type, THINKING, ("body", "thinking", "type"))
    if thinking.display is not None:
        check_word(thinking.display, DISPLAYS, ("body", "thinking", "display"))
    if thinking.type == "disabled":
        return {"enable_thinking": False}
    return {"enable_thinking": True, "reasoning_budget": thinking.budget_tokens}


def _response_format(wire: PromptRequest) -> dict[str, Any] | None:
    config = wire.output_config
    form = config.format if config is not None and config.format is not None else wire.output_format
    return None if form is None else _json_schema(form)


def _json_schema(form: OutputFormat) -> dict[str, Any]:
    check_word(form.type, ("json_schema",), ("body", "output_config", "format", "type"))
    return {"type": "json_schema", "json_schema": {"schema": form.schema}}


def _renamed(error: ApiError, tools: tuple[int, ...]) -> tuple[Loc, tuple[str]]:
    """Path and message of an error, with the names that the client used."""
    field, rest, message = error.loc[1:2], error.loc[2:], str(error)
    name = str(*field)
    if name == "tools" and rest:
        return _tool_loc(rest, tools), (message,)
    if name not in RENAMED:
        return error.loc, (message,)
    new = RENAMED[name]
    rest = rest[1:] if rest[:1] == ("json_schema",) else rest
    if message.startswith(f"{name} "):
        message = field_path(new) + message.removeprefix(name)
    return ("body", *new, *rest), (message,)


def _tool_loc(rest: Loc, tools: tuple[int, ...]) -> Loc:
    index, *steps = rest
    names = ["input_schema" if step == "parameters" else step for step in steps]
    return ("body", "tools", tools[int(index)], *(name for name in names if name != "function"))
