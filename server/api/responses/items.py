"""Items → chat messages. Items that one answer consists of become one assistant message."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from msgspec import Struct

from server.checks import check_word, missing
from server.custom_tools import as_arguments
from server.decode import wrong_type
from server.errors import InvalidRequest, Loc, UnsupportedField, quote
from server.protocol.messages import ChatMessage, FunctionCall, TextPart, ToolCall

ROLES = ("user", "system", "developer", "assistant")
TEXT_PARTS = {
    "input_text": "text",
    "output_text": "text",
    "text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "refusal": "refusal",
}
MEDIA_PARTS = ("input_image", "input_file", "input_audio", "computer_screenshot")
SHELL_CALLS = ("local_shell_call", "shell_call", "apply_patch_call")
"""Calls of tools that the client runs itself: to the model, functions of that name."""
SHELL_OUTPUTS = tuple(f"{kind}_output" for kind in SHELL_CALLS)
HOSTED = (
    *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"),
    *("mcp_list_tools", "mcp_approval_request", "mcp_approval_response", "mcp_call"),
    *("computer_call", "computer_call_output", "tool_search_call", "tool_search_output"),
    *("compaction", "compaction_trigger", "context_compaction", "additional_tools"),
    *("program", "program_output", "configuration_update"),
)
"""What OpenAI's own tools leave in a conversation: skipped, and reported as ignored."""
SEAL = "ingle1."


def seal(thought: str) -> str:
    """A thought as `encrypted_content`: opaque, so that clients without a store carry it back.

    It is no secret: the client has had the thought in the clear.
    """
    return SEAL + base64.b64encode(thought.encode()).decode()


def unseal(sealed: Any) -> str | None:
    """None where another server has sealed it."""
    if not isinstance(sealed, str) or not sealed.startswith(SEAL):
        return None
    try:
        return base64.b64decode(sealed.removeprefix(SEAL), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


class Turn(Struct):
    """A message with the path of the item that it (or its first part) comes from."""

    message: ChatMessage
    loc: Loc


class Conversation:
    """Takes items in order; `turns` is what the template gets."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.ignored: list[str] = []
        self._call_ids: set[str] = set()
        self._answer: ChatMessage | None = None
        """The assistant message that further items of the same answer belong to."""

    def add_text(self, role: str, text: str, loc: Loc) -> None:
        """A plain message."""
        self._add(ChatMessage(role=role, content=text), loc)

    def prepend(self, role: str, text: str, loc: Loc) -> None:
        """A message before all others."""
        self.turns.insert(0, Turn(ChatMessage(role=role, content=text), loc))

    def add(self, item: Any, loc: Loc) -> None:
        """One item, found at `loc`. Raises InvalidRequest."""
        if not isinstance(item, dict):
            raise InvalidRequest(f"an item is an object, but this is {quote(item)}", loc=loc)
        kind = "message" if item.get("type") is None else item["type"]
        if handler := self._handlers.get(str(kind)):
            handler(self, item, loc)
        elif kind in SHELL_CALLS:
            self._shell_call(item, loc)
        elif kind in SHELL_OUTPUTS:
            self._output({**item, "call_id": item.get("call_id", item.get("id"))}, loc)
        elif kind in HOSTED:
            self._ignore(loc, str(kind))
        else:
            known = ", ".join((*self._handlers, "item_reference", *SHELL_CALLS, *SHELL_OUTPUTS))
            raise UnsupportedField(
                f"an item of type {quote(kind)} is not supported; there is: {known}",
                loc=(*loc, "type"),
            )

    def _add(self, message: ChatMessage, loc: Loc) -> None:
        self._answer = message if message.role == "assistant" else None
        self.turns.append(Turn(message, loc))

    def _ignore(self, loc: Loc, what: str) -> None:
        where = f"{loc[1]}[{loc[2]}]" if len(loc) > 2 else str(loc[-1])
        self.ignored.append(f"{where} ({what})")

    def _open_answer(self, loc: Loc) -> ChatMessage:
        """The assistant message that is being put together, or a new one."""
        if self._answer is None:
            self._add(ChatMessage(role="assistant"), loc)
        assert self._answer is not None
        return self._answer

    def _message(self, item: dict[str, Any], loc: Loc) -> None:
        role: Any = item.get("role")
        check_word(role, ROLES, (*loc, "role"))
        content = content_of(item.get("content"), (*loc, "content"))
        answer = self._answer
        if role != "assistant" or answer is None or answer.content is not None:
            self._add(ChatMessage(role=role, content=content), loc)
        else:
            answer.content = content

    def _reasoning(self, item: dict[str, Any], loc: Loc) -> None:
        thought = _texts(item.get("content"), (*loc, "content")) or unseal(
            item.get("encrypted_content")
        )
        thought = thought or _texts(item.get("summary"), (*loc, "summary"))
        if not thought:
            if item.get("encrypted_content"):
                self._ignore(loc, "encrypted_content of another server")
            return
        answer = self._answer
        if answer is None or answer.content is not None or answer.tool_calls:
            self._add(ChatMessage(role="assistant", reasoning_content=thought), loc)
        else:
            answer.reasoning_content = (answer.reasoning_content or "") + thought

    def _function_call(self, item: dict[str, Any], loc: Loc) -> None:
        arguments = _text_field(item, "arguments", loc)
        self._call(item, _text_field(item, "name", loc), arguments, loc)

    def _custom_call(self, item: dict[str, Any], loc: Loc) -> None:
        arguments = as_arguments(_text_field(item, "input", loc))
        self._call(item, _text_field(item, "name", loc), arguments, loc)

    def _shell_call(self, item: dict[str, Any], loc: Loc) -> None:
        action = item.get("action", item.get("operation", {}))
        name = str(item["type"]).removesuffix("_call")
        self._call(item, name, json.dumps(action, ensure_ascii=False), loc)

    def _call(self, item: dict[str, Any], name: str, arguments: str, loc: Loc) -> None:
        call_id = _text_field(item, "call_id", loc)
        self._call_ids.add(call_id)
        answer = self._open_answer(loc)
        answer.tool_calls = [
            *(answer.tool_calls or ()),
            ToolCall(FunctionCall(name, arguments), call_id),
        ]

    def _output(self, item: dict[str, Any], loc: Loc) -> None:
        call_id = _text_field(item, "call_id", loc)
        if call_id not in self._call_ids:
            raise InvalidRequest(
                f"no call before it has the call_id {quote(call_id)}", loc=(*loc, "call_id")
            )
        output = item.get("output")
        if item["type"] not in SHELL_OUTPUTS or isinstance(output, str):
            content = content_of(output, (*loc, "output"))
        else:
            content = json.dumps(output, ensure_ascii=False)
        self._add(ChatMessage(role="tool", content=content, tool_call_id=call_id), loc)

    _handlers: ClassVar[dict[str, Callable[[Conversation, dict[str, Any], Loc], None]]] = {
        "message": _message,
        "reasoning": _reasoning,
        "function_call": _function_call,
        "custom_tool_call": _custom_call,
        "function_call_output": _output,
        "custom_tool_call_output": _output,
    }


def content_of(content: Any, loc: Loc) -> Any:
    """A text, or text parts. Raises InvalidRequest."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise InvalidRequest(f"content is a text or a list, but is {quote(content)}", loc=loc)
    return [TextPart(_part(part, (*loc, index))) for index, part in enumerate(content)]


def _part(part: Any, loc: Loc) -> str:
    kind = str(part.get("type")) if isinstance(part, dict) else None
    if kind in MEDIA_PARTS:
        raise UnsupportedField(f"{kind} parts are not supported here", loc=(*loc, "type"))
    if kind not in TEXT_PARTS:
        raise InvalidRequest(
            f"a part must be of type input_text, output_text or refusal, but is {quote(kind)}",
            loc=(*loc, "type"),
        )
    assert kind is not None
    return _text_field(part, TEXT_PARTS[kind], loc)


def _texts(parts: Any, loc: Loc) -> str:
    """The texts of a list of parts, which may be missing."""
    found: Sequence[Any] = parts if isinstance(parts, list) else []
    return "\n\n".join(_part(part, (*loc, index)) for index, part in enumerate(found))


def _text_field(item: dict[str, Any], name: str, loc: Loc) -> str:
    value = item.get(name)
    if isinstance(value, str):
        return value
    if name not in item:
        raise missing((*loc, name))
    raise wrong_type(["str"], value, (*loc, name))
