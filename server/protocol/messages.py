"""The messages of a chat, as OpenAI's clients and their extensions send them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


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


class ToolCall(Struct):
    """An assistant's call of a tool in an earlier turn."""

    function: FunctionCall
    id: str | None = None
    type: str | None = "function"


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
