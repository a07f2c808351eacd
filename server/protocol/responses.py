"""POST /v1/responses: the request, the items and the response object; see `response_events`."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from server.protocol.chat_completions import Timings, TokenLogprob
from server.protocol.options import SharedOptions

Json = dict[str, Any]


class Reasoning(Struct, kw_only=True):
    """`context` and `mode` mean nothing here and are listed in `x-ignored-params`."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    """The older name of `summary`."""
    context: str | None = None
    mode: str | None = None


class TextConfig(Struct, kw_only=True):
    """The format as in a chat completion's response_format, without the inner object."""

    format: Json | None = None
    verbosity: str | None = None


class StreamOptions(Struct):
    """Without effect: nothing is ever padded."""

    include_obfuscation: bool | None = None


class ResponsesRequest(SharedOptions, kw_only=True):
    """OpenAI's fields, and the samplers that chat completions know beside them."""

    input: str | list[Json] | None = None
    model: str | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    include: list[str] | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    top_logprobs: int | None = None
    truncation: str | None = None
    background: bool | None = None
    conversation: str | Json | None = None
    prompt: Json | None = None
    context_management: list[Json] | None = None
    moderation: Json | None = None
    enable_thinking: bool | None = None
    reasoning_budget: int | None = None
    chat_template_kwargs: Json | None = None
    fallbacks: list[str] | None = None


class OutputText(Struct, tag_field="type", tag="output_text", kw_only=True):
    """The text of a message; `logprobs` are of its tokens, where they were asked for."""

    text: str
    annotations: list[Any] = []
    logprobs: list[TokenLogprob] = []


class ReasoningText(Struct, tag_field="type", tag="reasoning_text"):
    """A thought as the model wrote it."""

    text: str


class SummaryText(Struct, tag_field="type", tag="summary_text"):
    """The same thought, where a summary was asked for: nothing here summarises."""

    text: str


class MessageItem(Struct, tag_field="type", tag="message", kw_only=True):
    """What the assistant says."""

    id: str
    status: str
    role: Literal["assistant"] = "assistant"
    content: list[OutputText]


class ReasoningItem(Struct, tag_field="type", tag="reasoning", kw_only=True):
    """What it thought before; `encrypted_content` brings it back without a store."""

    id: str
    status: str
    summary: list[SummaryText]
    content: list[ReasoningText]
    encrypted_content: str | UnsetType = UNSET


class FunctionCallItem(Struct, tag_field="type", tag="function_call", kw_only=True):
    """A call of a function; `arguments` is JSON."""

    id: str
    status: str
    call_id: str
    name: str
    arguments: str


class CustomCallItem(Struct, tag_field="type", tag="custom_tool_call", kw_only=True):
    """A call of a custom tool; `input` is plain text."""

    id: str
    status: str
    call_id: str
    name: str
    input: str


OutputItem = MessageItem | ReasoningItem | FunctionCallItem | CustomCallItem


class InputTokensDetails(Struct):
    """Of the input's tokens, those whose KV was there already."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(Struct):
    """Of the output's tokens, those of thoughts."""

    reasoning_tokens: int


class ResponseUsage(Struct):
    """Token counts."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(Struct):
    """Why a response failed after it had begun."""

    code: str
    message: str


class IncompleteDetails(Struct):
    """Why a response ends early."""

    reason: str


class ResponseObject(Struct, tag_field="object", tag="response", kw_only=True):
    """The response: what was asked for, and what came of it so far. Times are Unix seconds."""

    id: str
    created_at: int
    completed_at: int | None = None
    status: str = "in_progress"
    background: bool = False
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    model: str
    output: list[OutputItem] = []
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    reasoning: Json
    safety_identifier: str | None = None
    service_tier: str
    store: bool
    temperature: float
    text: Json
    tool_choice: str | Json
    tools: list[Json]
    top_logprobs: int = 0
    top_p: float
    truncation: str
    usage: ResponseUsage | None = None
    user: str | None = None
    metadata: dict[str, str]
    system_fingerprint: str
    timings: Timings | UnsetType = UNSET


class InputTokens(Struct, tag_field="object", tag="response.input_tokens"):
    """How many tokens a response would begin with."""

    input_tokens: int


class DeletedResponse(Struct, tag_field="object", tag="response"):
    """The answer to a deletion."""

    id: str
    deleted: bool = True


class ItemList(Struct, kw_only=True):
    """A page of items, as they are listed."""

    object: Literal["list"] = "list"
    data: list[Json]
    first_id: str | None
    last_id: str | None
    has_more: bool
