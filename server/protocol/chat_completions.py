"""POST /v1/chat/completions: what comes in, what goes out whole, what goes out in chunks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from server.protocol.messages import ChatMessage, CustomToolCall, FunctionCall, ToolCall
from server.protocol.options import GenerationOptions


class SchemaFields(Struct):
    """What may stand in `json_schema`; `server.constraints` reads it."""

    name: Any = None
    description: Any = None
    schema: Any = None
    strict: Any = None


class ResponseFormatFields(Struct):
    """What may stand in `response_format`."""

    type: Any = None
    json_schema: SchemaFields | None = None
    schema: Any = None
    grammar: Any = None
    pattern: Any = None


class CustomFields(Struct):
    """What may stand in `custom`; `server.custom_tools` reads it."""

    name: Any = None
    description: Any = None
    format: Any = None


class ToolFields(Struct):
    """What may stand beside a function: all that is in it is the template's to read."""

    type: Any = None
    function: Any = None
    custom: CustomFields | None = None


ResponseFormatObject = Annotated[dict[str, Any], Meta(extra={"shape": ResponseFormatFields})]
ToolObject = Annotated[dict[str, Any], Meta(extra={"shape": ToolFields})]
"""Read elsewhere, with words of their own for what is wrong; unknown fields are told."""


class StreamOptions(Struct):
    """`include_obfuscation` has no effect: nothing is ever padded."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class PredictedPart(Struct):
    """A piece of the text. Its type is a field, as a tag might be left out where it is the only
    one."""

    type: Literal["text"]
    text: str


class Prediction(Struct):
    """Text that is expected of the answer; parts are joined."""

    type: Literal["content"]
    content: str | list[PredictedPart]


class ChatCompletionRequest(GenerationOptions, kw_only=True):
    """Every field that means something here; all others are listed in `x-ignored-params`."""

    messages: list[ChatMessage]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormatObject | None = None
    tools: list[ToolObject] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    reasoning_effort: str | None = None
    enable_thinking: bool | None = None
    separate_reasoning: bool | None = None
    reasoning_budget: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    """The last message is the beginning of the answer (vLLM's name for it)."""
    prediction: Prediction | None = None
    store: bool | None = None
    fallbacks: list[str] | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    verbosity: str | None = None
    web_search_options: dict[str, Any] | None = None


class TopLogprob(Struct):
    """A likely token at a position."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(Struct):
    """The token at a position; `bytes` are exact where `token` splits a character."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class Logprobs(Struct):
    """Of every token of the choice, in order."""

    content: list[TokenLogprob]
    refusal: None = None


class AssistantMessage(Struct, kw_only=True):
    """The answer of one choice."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCall | CustomToolCall] | UnsetType = UNSET
    function_call: FunctionCall | UnsetType = UNSET
    refusal: str | None = None
    annotations: list[Any] = []


class Choice(Struct):
    """One of the n answers."""

    index: int
    message: AssistantMessage
    finish_reason: str
    logprobs: Logprobs | None
    stop_reason: str | int | None


class PromptTokensDetails(Struct):
    """Of the prompt's tokens, those whose KV was there already."""

    cached_tokens: int = 0
    audio_tokens: int = 0


class CompletionTokensDetails(Struct):
    """Of the generated tokens, those of a kind; rejected ones are no part of the answer."""

    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(Struct):
    """Token counts over all choices; the prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class Timings(Struct):
    """Milliseconds and tokens per second; `prompt_n` counts the tokens that were computed."""

    queue_ms: float
    prompt_n: int
    prompt_ms: float
    prompt_per_second: float
    first_token_ms: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float


class Tried(Struct):
    """One model that was asked; `error` is the code of its refusal, null if it answered."""

    model: str
    latency: int
    """Milliseconds."""
    error: str | None = None
    message: str | None = None


class ExtraFields(Struct):
    """How the request went from model to model; `latency`: milliseconds to the answer's end."""

    provider: str
    model_requested: str | None
    latency: int
    attempts: list[Tried]


class ChatCompletion(Struct, kw_only=True):
    """The whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    service_tier: str
    system_fingerprint: str
    metadata: dict[str, str] | UnsetType = UNSET
    timings: Timings
    extra_fields: ExtraFields | UnsetType = UNSET
    store_error: str | UnsetType = UNSET
    """Why an answer that was to be stored is not."""


class FunctionDelta(Struct, kw_only=True):
    """The name comes once, the arguments in fragments to be joined."""

    name: str | UnsetType = UNSET
    arguments: str


class CustomDelta(Struct, kw_only=True):
    """The name comes once, the input of a custom tool in fragments to be joined."""

    name: str | UnsetType = UNSET
    input: str


class ToolCallDelta(Struct, kw_only=True):
    """A fragment of the call number `index`; id and type come with the first one."""

    index: int
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    function: FunctionDelta | UnsetType = UNSET
    custom: CustomDelta | UnsetType = UNSET


class Delta(Struct, kw_only=True):
    """What a chunk adds to the message of one choice."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    function_call: FunctionDelta | UnsetType = UNSET
    refusal: UnsetType | None = UNSET


class ChunkChoice(Struct):
    """One choice's part of a chunk; `stop_reason` stands in the last one."""

    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | UnsetType | None = UNSET


class ChunkHead(Struct, tag_field="object", tag="chat.completion.chunk"):
    """What every chunk of a stream repeats; `choices` and `usage` follow it."""

    id: str
    created: int
    model: str
    service_tier: str
    system_fingerprint: str
