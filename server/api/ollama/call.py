"""A request in Ollama's shape → one in OpenAI's, and errors back to Ollama's paths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import UNSET, Struct
from msgspec.structs import replace

from server.errors import ApiError, InvalidRequest, Loc, UnsupportedField, field_path, quote
from server.protocol import messages as openai
from server.protocol.chat_completions import ChatCompletionRequest
from server.protocol.completions import CompletionRequest
from server.protocol.ollama import (
    ChatRequest,
    GenerateRequest,
    GenerationRequest,
    Message,
    Options,
)

EFFORTS = ("low", "medium", "high")
SAMPLING = (
    *("temperature", "top_k", "top_p", "min_p"),
    *("seed", "stop", "presence_penalty", "frequency_penalty"),
)
"""Options that have the same name in the other API."""
NEUTRAL = {"mirostat": (0,), "tfs_z": (1, 0), "typical_p": (1,)}
"""Samplers that are not here, with the values that switch them off."""
RENAMED: dict[str, Loc] = {
    "max_tokens": ("options", "num_predict"),
    "repetition_penalty": ("options", "repeat_penalty"),
    "temperature": ("options", "temperature"),
    "top_k": ("options", "top_k"),
    "top_p": ("options", "top_p"),
    "min_p": ("options", "min_p"),
    "stop": ("options", "stop"),
    "presence_penalty": ("options", "presence_penalty"),
    "frequency_penalty": ("options", "frequency_penalty"),
    "response_format": ("format",),
    "reasoning_effort": ("think",),
}
"""Fields of the other API → where their values came from."""


class Translation(Struct, frozen=True, kw_only=True):
    """A request in OpenAI's words, with what these words leave out."""

    chat: ChatCompletionRequest
    ignored: list[str]
    num_ctx: int | None = None
    must_think: bool = False
    text: CompletionRequest | None = None
    """Where the prompt is read without the model's template: a raw one, or one with a suffix."""


def translate_chat(wire: ChatRequest) -> Translation:
    """Raises InvalidRequest with a path in Ollama's request."""
    return _translation(wire, chat_messages(wire.messages or []), tools=wire.tools or None)


def translate_generate(wire: GenerateRequest) -> Translation:
    """Raises InvalidRequest with a path in Ollama's request."""
    for name in ("template", "context", "images", "width", "height", "steps"):
        if getattr(wire, name):
            raise UnsupportedField(_WHY.get(name, f"{name} is not supported"), loc=("body", name))
    if (wire.raw or wire.suffix) and wire.system:
        raise InvalidRequest(
            "system has no place in a prompt that is raw or has a suffix", loc=("body", "system")
        )
    messages = [openai.ChatMessage("user", wire.prompt)]
    if wire.system:
        messages.insert(0, openai.ChatMessage("system", wire.system))
    translation = _translation(wire, messages)
    if not wire.raw and not wire.suffix:
        return translation
    return replace(translation, text=_completion(wire, translation.chat))


def _completion(wire: GenerateRequest, chat: ChatCompletionRequest) -> CompletionRequest:
    return CompletionRequest(
        prompt=wire.prompt,
        suffix=wire.suffix or None,
        model=wire.model,
        stream=chat.stream,
        response_format=chat.response_format,
        logprobs=(chat.top_logprobs or 0) if chat.logprobs else None,
        **{name: getattr(chat, name) for name in (*SAMPLING, "max_tokens")},
        repetition_penalty=chat.repetition_penalty,
    )


_WHY = {
    "template": "a template is a setting of the model here: chat_template_file, in Jinja",
    "context": "context is not supported: /api/chat takes the messages so far",
}


def _translation(
    wire: GenerationRequest,
    messages: list[openai.ChatMessage],
    tools: list[dict[str, Any]] | None = None,
) -> Translation:
    for name in ("truncate", "shift"):
        if getattr(wire, name):
            raise UnsupportedField(
                f"{name} is not supported: what does not fit is refused", loc=("body", name)
            )
    sampling, ignored = _sampling(wire.options or Options())
    chat = ChatCompletionRequest(
        messages=messages,
        model=wire.model,
        stream=wire.stream is not False,
        tools=tools,
        response_format=response_format(wire.format),
        logprobs=wire.logprobs,
        top_logprobs=wire.top_logprobs,
        **sampling,
        **_thinking(wire.think),
    )
    return Translation(
        chat=chat,
        ignored=ignored,
        num_ctx=wire.options.num_ctx if wire.options is not None else None,
        must_think=wire.think not in (None, False),
    )


@contextmanager
def ollama_paths() -> Iterator[None]:
    """Errors of the block name the fields of the request as it came."""
    try:
        yield
    except ApiError as error:
        name = str(error.loc[1]) if len(error.loc) > 1 and error.loc[0] == "body" else ""
        if name in RENAMED:
            new, message = RENAMED[name], str(error)
            if message.startswith(name):
                error.args = (field_path(new) + message.removeprefix(name),)
            rest = error.loc[2:] if name == "stop" else ()
            error.loc = ("body", *new, *rest)
        raise


def response_format(format: str | dict[str, Any] | None) -> dict[str, Any] | None:
    """`json`, or a schema."""
    if isinstance(format, dict):
        return {"type": "json_schema", "json_schema": {"schema": format}}
    if format == "json":
        return {"type": "json_object"}
    if format:
        raise InvalidRequest(
            f"format must be json or a JSON schema, but is {quote(format)}", loc=("body", "format")
        )
    return None


def _sampling(options: Options) -> tuple[dict[str, Any], list[str]]:
    """(fields of the other API, options without effect)."""
    for name, off in NEUTRAL.items():
        if getattr(options, name) not in (None, *off):
            raise UnsupportedField(
                f"options.{name} is not supported", loc=("body", "options", name)
            )
    if options.num_ctx is not None and options.num_ctx < 1:
        raise InvalidRequest(
            f"options.num_ctx must be at least 1, but is {options.num_ctx}",
            loc=("body", "options", "num_ctx"),
        )
    fields = {name: getattr(options, name) for name in SAMPLING}
    # Ollama writes "until it ends" in three ways.
    fields["max_tokens"] = None if options.num_predict in (0, -1, -2) else options.num_predict
    penalty, window = options.repeat_penalty, options.repeat_last_n
    fields["repetition_penalty"] = None if window == 0 else penalty
    # The penalty counts the whole context, whatever the window.
    ignored = ["options.repeat_last_n"] if window not in (None, 0, -1) else []
    return fields, ignored


def _thinking(think: bool | str | None) -> dict[str, Any]:
    if think is None or isinstance(think, bool):
        return {"enable_thinking": think}
    if think not in EFFORTS:
        raise InvalidRequest(
            f"think must be true, false, {', '.join(EFFORTS)}, but is {quote(think)}",
            loc=("body", "think"),
        )
    return {"reasoning_effort": think}


def chat_messages(messages: list[Message]) -> list[openai.ChatMessage]:
    """Calls and their results get ids: Ollama knows them by the order in which they come."""
    pending: list[tuple[str, str]] = []
    result = []
    for index, message in enumerate(messages):
        if message.images:
            raise UnsupportedField(
                "images are not supported here", loc=("body", "messages", index, "images")
            )
        turn = openai.ChatMessage(
            message.role, message.content or "", reasoning_content=message.thinking
        )
        if message.tool_calls:
            turn.tool_calls = _calls(message, index)
            pending += [(call.function.name, call.id or "") for call in turn.tool_calls]
        if message.role == "tool":
            turn.name = message.tool_name
            turn.tool_call_id = message.tool_call_id or _answered(pending, message.tool_name)
        result.append(turn)
    return result


def _calls(message: Message, index: int) -> list[openai.ToolCall]:
    return [
        openai.ToolCall(
            openai.FunctionCall(call.function.name, call.function.arguments),
            f"call_{index}_{number}" if call.id is UNSET else call.id,
        )
        for number, call in enumerate(message.tool_calls or ())
    ]


def _answered(pending: list[tuple[str, str]], name: str | None) -> str:
    """The id of the oldest call of that name without a result."""
    for place, (called, call_id) in enumerate(pending):
        if name in (None, called):
            del pending[place]
            return call_id
    return "call_unknown"
