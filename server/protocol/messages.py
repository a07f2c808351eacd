"""The messages of a chat, as OpenAI's clients and their extensions send them."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field


class TextPart(Struct, tag="text", tag_field="type"):
    """Text, joined with its neighbours where the template wants a string."""

    text: str


class RefusalPart(Struct, tag="refusal", tag_field="type"):
    """An assistant's earlier refusal."""

    refusal: str


class ImagePart(Struct, tag="image_url", tag_field="type"):
    """An image; see `prepare` for whether it is served."""

    image_url: Any


class AudioPart(Struct, tag="input_audio", tag_field="type"):
    """A sound; see `prepare` for whether it is served."""

    input_audio: Any


class FilePart(Struct, tag="file", tag_field="type"):
    """A file; see `prepare` for whether it is served."""

    file: Any


ContentPart = TextPart | RefusalPart | ImagePart | AudioPart | FilePart


class FunctionCall(Struct):
    """A call as the model wrote it; some clients send the arguments as an object."""

    name: str
    arguments: str | dict[str, Any] | None = None


class CustomCall(Struct):
    """A call of a custom tool: its input is any text."""

    name: str
    input: str


class ToolCall(Struct):
    """An assistant's call of a tool in an earlier turn.

    A call of a custom tool has `custom` instead of `function`, which is nameless then.
    """

    function: FunctionCall = field(default_factory=lambda: FunctionCall(""))
    id: str | None = None
    type: Literal["function", "custom"] | None = "function"
    custom: CustomCall | UnsetType = UNSET


class CustomToolCall(Struct, kw_only=True):
    """A call of a custom tool in an answer."""

    id: str | None
    type: Literal["custom"] = "custom"
    custom: CustomCall


class ChatMessage(Struct):
    """One turn; which fields mean something depends on the role."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    refusal: str | None = None
    annotations: Any = None
    thought: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
