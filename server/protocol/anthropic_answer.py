"""POST /v1/messages: what goes out, whole or as named events; and errors on these routes."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class TextContent(Struct, tag="text", tag_field="type"):
    """A run of text."""

    text: str
    citations: None = None


class ThinkingContent(Struct, tag="thinking", tag_field="type"):
    """A thought; `signature` is empty until it is over."""

    thinking: str
    signature: str = ""


class ToolUseContent(Struct, tag="tool_use", tag_field="type"):
    """A call; in a stream its input comes in the deltas."""

    id: str
    name: str
    input: dict[str, Any]


Content = TextContent | ThinkingContent | ToolUseContent


class CacheCreation(Struct, frozen=True):
    """Nothing is ever billed for keeping a prefix."""

    ephemeral_5m_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


class OutputTokensDetails(Struct, frozen=True):
    """Of the generated tokens, those of thoughts."""

    thinking_tokens: int = 0


class Usage(Struct, kw_only=True):
    """Token counts: the prompt is `input_tokens` + `cache_read_input_tokens`."""

    input_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_creation: CacheCreation = CacheCreation()
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    service_tier: str = "standard"


class Message(Struct, kw_only=True, tag="message", tag_field="type"):
    """The answer."""

    id: str
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[Content]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage


class TokenCount(Struct):
    """The prompt's length."""

    input_tokens: int


class MessageStart(Struct, tag="message_start", tag_field="type"):
    """The message before anything of it is known but the length of its prompt."""

    message: Message


class ContentBlockStart(Struct, tag="content_block_start", tag_field="type"):
    """A block without its content."""

    index: int
    content_block: Content


class TextDelta(Struct, tag="text_delta", tag_field="type"):
    """More text."""

    text: str


class ThinkingDelta(Struct, tag="thinking_delta", tag_field="type"):
    """More of a thought."""

    thinking: str


class SignatureDelta(Struct, tag="signature_delta", tag_field="type"):
    """The last delta of a thought."""

    signature: str


class InputJsonDelta(Struct, tag="input_json_delta", tag_field="type"):
    """More of a call's input, as JSON text."""

    partial_json: str


BlockDelta = TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta


class ContentBlockDelta(Struct, tag="content_block_delta", tag_field="type"):
    """What a block gained."""

    index: int
    delta: BlockDelta


class ContentBlockStop(Struct, tag="content_block_stop", tag_field="type"):
    """A block is complete."""

    index: int


class Ending(Struct):
    """Why the message ended."""

    stop_reason: str
    stop_sequence: str | None = None


class MessageDelta(Struct, tag="message_delta", tag_field="type"):
    """The end of the message, with the counts that hold."""

    delta: Ending
    usage: Usage


class MessageStop(Struct, tag="message_stop", tag_field="type"):
    """Nothing follows."""


class Ping(Struct, tag="ping", tag_field="type"):
    """The server is there."""


StreamEvent = (
    MessageStart
    | ContentBlockStart
    | ContentBlockDelta
    | ContentBlockStop
    | MessageDelta
    | MessageStop
    | Ping
)


class ErrorInfo(Struct):
    """Kind and reason."""

    type: str
    message: str


class ErrorBody(Struct, tag="error", tag_field="type"):
    """The body of every error on these routes, and the last event of a stream that fails."""

    error: ErrorInfo
    request_id: str | None = None
