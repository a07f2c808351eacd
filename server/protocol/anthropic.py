"""POST /v1/messages and /v1/messages/count_tokens: what comes in, in Anthropic's shape."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType


class Block(Struct, kw_only=True, tag_field="type"):
    """Base of all blocks: what changes nothing."""

    cache_control: Any = None
    citations: Any = None


class TextBlock(Block, tag="text"):
    """Text."""

    text: str


class ImageBlock(Block, tag="image"):
    """An image; refused."""

    source: Any = None


class DocumentBlock(Block, tag="document"):
    """A document; plain text is served, all else refused."""

    source: dict[str, Any]
    title: str | None = None
    context: str | None = None


class SearchResultBlock(Block, tag="search_result"):
    """Something found, with where it was found."""

    content: list[TextBlock]
    source: str = ""
    title: str = ""


class ToolUseBlock(Block, tag="tool_use"):
    """An earlier call of the assistant."""

    id: str
    name: str
    input: dict[str, Any]


class ThinkingBlock(Block, tag="thinking"):
    """An earlier thought; where it was asked not to be shown, `signature` holds it."""

    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Block, tag="redacted_thinking"):
    """A thought that only its author can read."""

    data: str = ""


ResultContent = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock


class ToolResultBlock(Block, tag="tool_result"):
    """What a call brought."""

    tool_use_id: str
    content: str | list[ResultContent] | None = None
    is_error: bool | None = None


ContentBlock = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ToolUseBlock
    | ToolResultBlock
    | ThinkingBlock
    | RedactedThinkingBlock
)


class InputMessage(Struct):
    """One turn of user, assistant or system."""

    role: str
    content: str | list[ContentBlock]


class ToolParam(Struct):
    """A tool. Those that Anthropic's servers run have a `type` of their own and no schema."""

    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | UnsetType = UNSET
    strict: bool | None = None
    cache_control: Any = None


class ToolChoice(Struct):
    """auto, any, tool (with a name) or none."""

    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(Struct):
    """enabled (with or without a budget), adaptive, between_tools or disabled."""

    type: str
    budget_tokens: int | None = None
    display: str | None = None


class OutputFormat(Struct):
    """`json_schema`, which the answer's text will satisfy."""

    type: str
    schema: dict[str, Any] | bool


class OutputConfig(Struct):
    """Form and effort of the answer."""

    format: OutputFormat | None = None
    effort: str | None = None


class RequestMetadata(Struct):
    """`user_id` is the key of the fair share."""

    user_id: str | None = None


class PromptRequest(Struct, kw_only=True):
    """What the prompt is made of, and everything that may change it."""

    messages: list[InputMessage]
    model: str | None = None
    system: str | list[TextBlock] | None = None
    tools: list[ToolParam] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    """The older name of `output_config.format`."""
    cache_control: Any = None
    """Changes nothing: every prompt meets every prefix that is kept."""


class CountTokensRequest(PromptRequest, kw_only=True):
    """POST /v1/messages/count_tokens."""


class MessagesRequest(PromptRequest, kw_only=True):
    """POST /v1/messages."""

    max_tokens: int
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    metadata: RequestMetadata | None = None
    service_tier: str | None = None
