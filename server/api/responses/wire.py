"""A request for a response → a request for a chat completion, and errors back to its fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from engine.errors import RequestError
from server import prepare
from server.api.responses.items import Conversation, Turn
from server.api.responses.tools import ChatTools, chat_tool_choice, chat_tools
from server.errors import ApiError, InvalidRequest, Loc, UnsupportedField, field_path, quote
from server.protocol.chat_completions import ChatCompletionRequest
from server.protocol.options import SharedOptions
from server.protocol.responses import ResponsesRequest

UNSERVED = ("background", "conversation", "prompt", "context_management", "moderation")
"""Fields that are refused unless they are null, false or empty."""
SHARED = (
    *SharedOptions.__struct_fields__,
    *("model", "stream", "parallel_tool_calls"),
    *("enable_thinking", "reasoning_budget", "chat_template_kwargs"),
)
"""Fields that mean the same in both."""
RENAMED: dict[str, Loc] = {
    "messages": ("input",),
    "max_completion_tokens": ("max_output_tokens",),
    "reasoning_effort": ("reasoning", "effort"),
    "verbosity": ("text", "verbosity"),
    "response_format": ("text", "format"),
}
INCLUDES = ("message.output_text.logprobs", "reasoning.encrypted_content")
HOSTED_INCLUDES = (
    *("file_search_call.results", "web_search_call.results", "web_search_call.action.sources"),
    *("message.input_image.image_url", "computer_call_output.output.image_url"),
    "code_interpreter_call.outputs",
)
"""Known, and about what never happens here: listed as ignored."""
LOGPROBS, ENCRYPTED = INCLUDES


class Wire(Struct):
    """The chat completion to ask for, and the places of its parts in the request."""

    chat: ChatCompletionRequest
    turns: list[Turn]
    tools: ChatTools
    ignored: list[str]
    summary: bool
    """Thoughts are to come as a summary too."""
    encrypted: bool
    """Thoughts are to come sealed too."""

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Errors about the chat completion become errors about the request."""
        try:
            yield
        except (ApiError, RequestError) as error:
            raise self._placed(error) from None

    def _placed(self, error: Exception) -> Exception:
        if isinstance(error, RequestError) and error.param is not None:
            error.param = field_path(RENAMED.get(error.param, (error.param,)))
        if not isinstance(error, ApiError) or len(error.loc) < 2 or error.loc[0] != "body":
            return error
        message = str(error)
        for name, loc in RENAMED.items():
            # As a field that is spoken of, not as a word of the sentence.
            message = re.sub(rf"\b{name}(?=[.\[]| must| is)", field_path(loc), message)
        error.args, error.loc = (message,), self._loc(error.loc)
        return error

    def _loc(self, loc: Loc) -> Loc:
        match loc:
            case ("body", "messages", int(index), *rest):
                return (*self.turns[index].loc, *rest)
            case ("body", "tools", int(index), "function" | "custom", *rest):
                return ("body", "tools", self.tools.places[index], *rest)
            case ("body", "tools", int(index), *rest):
                return ("body", "tools", self.tools.places[index], *rest)
            case ("body", "tool_choice", "allowed_tools", *_):
                return ("body", "tool_choice")
            case ("body", str(name), *rest) if name in RENAMED:
                return ("body", *RENAMED[name], *rest)
        return loc


def read_wire(request: ResponsesRequest, conversation: Conversation) -> Wire:
    """`conversation` has the items of the responses before. Raises InvalidRequest."""
    prepare.check(request)
    prepare.check_metadata(request.metadata)
    _refuse_unserved(request)
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest(
            "stream_options may only be given where stream is true",
            loc=("body", "stream_options"),
        )
    ignored = _ignored_includes(request.include or ())
    _add_input(request, conversation)
    tools = chat_tools(request.tools or ())
    reasoning, text = request.reasoning, request.text
    ignored += [
        f"reasoning.{name}"
        for name in ("context", "mode")
        if reasoning is not None and getattr(reasoning, name) is not None
    ]
    wire = Wire(
        chat=ChatCompletionRequest(
            messages=[turn.message for turn in conversation.turns],
            max_completion_tokens=request.max_output_tokens,
            tools=tools.tools or None,
            tool_choice=chat_tool_choice(request.tool_choice),
            response_format=text.format if text is not None else None,
            verbosity=text.verbosity if text is not None else None,
            reasoning_effort=reasoning.effort if reasoning is not None else None,
            logprobs=_wants_logprobs(request),
            top_logprobs=request.top_logprobs,
            **{name: getattr(request, name) for name in SHARED},
        ),
        turns=conversation.turns,
        tools=tools,
        ignored=[*ignored, *conversation.ignored, *tools.ignored],
        summary=_summary(request),
        encrypted=ENCRYPTED in (request.include or ()),
    )
    with wire.placing():
        prepare.check(wire.chat)
    return wire


def _refuse_unserved(request: ResponsesRequest) -> None:
    for name in UNSERVED:
        if getattr(request, name):
            raise UnsupportedField(f"{name} is not supported", loc=("body", name))


def _ignored_includes(include: Sequence[str]) -> list[str]:
    for index, name in enumerate(include):
        if name not in INCLUDES + HOSTED_INCLUDES:
            raise InvalidRequest(
                f"include must be among {', '.join(INCLUDES + HOSTED_INCLUDES)}, "
                f"but is {quote(name)}",
                loc=("body", "include", index),
            )
    return [f"include ({name})" for name in include if name in HOSTED_INCLUDES]


def _add_input(request: ResponsesRequest, conversation: Conversation) -> None:
    """The instructions come first, whatever was said before."""
    loc: Loc = ("body", "input")
    if isinstance(request.input, str):
        conversation.add_text("user", request.input, loc)
    else:
        for index, item in enumerate(request.input or ()):
            conversation.add(item, (*loc, index))
    if not conversation.turns:
        raise InvalidRequest("input must not be empty", loc=loc, code="missing_required_parameter")
    if request.instructions:
        conversation.prepend("system", request.instructions, ("body", "instructions"))


def _wants_logprobs(request: ResponsesRequest) -> bool:
    return LOGPROBS in (request.include or ()) or bool(request.top_logprobs)


def _summary(request: ResponsesRequest) -> bool:
    if request.reasoning is None:
        return False
    for name in ("summary", "generate_summary"):
        word: Any = getattr(request.reasoning, name)
        if word not in (None, "none", "auto", "concise", "detailed"):
            raise InvalidRequest(
                f"reasoning.{name} must be auto, concise or detailed, but is {quote(word)}",
                loc=("body", "reasoning", name),
            )
    asked = request.reasoning.summary or request.reasoning.generate_summary
    return asked not in (None, "none")
