"""Ollama's requests and answers (/api/…). Durations are nanoseconds, times are RFC 3339."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Raw, Struct, UnsetType

Format = str | dict[str, Any] | None
KeepAlive = int | float | str | None


class Options(Struct, kw_only=True):
    """What a request may say about sampling and length; Any is read by nobody."""

    num_predict: int | None = None
    num_ctx: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    mirostat: int | None = None
    tfs_z: float | None = None
    typical_p: float | None = None


class FunctionCall(Struct, kw_only=True):
    """A call: its arguments are an object."""

    name: str
    arguments: dict[str, Any] = {}
    index: int | UnsetType = UNSET


class ToolCall(Struct, kw_only=True):
    """A call of a tool."""

    id: str | UnsetType = UNSET
    function: FunctionCall


class Message(Struct, kw_only=True):
    """One turn."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class GenerationRequest(Struct, kw_only=True):
    """What /api/chat and /api/generate have in common."""

    model: str
    stream: bool | None = None
    format: Format = None
    options: Options | None = None
    keep_alive: KeepAlive = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    truncate: bool | None = None
    shift: bool | None = None


class ChatRequest(GenerationRequest, kw_only=True):
    """POST /api/chat; without messages the model is loaded."""

    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None


class GenerateRequest(GenerationRequest, kw_only=True):
    """POST /api/generate; without a prompt the model is loaded."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None


class TopLogprob(Struct):
    """A likely token at a position."""

    token: str
    logprob: float
    bytes: list[int]


class Logprob(Struct):
    """The token at a position."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob] | UnsetType = UNSET


class AnswerMessage(Struct, kw_only=True):
    """What the model says, or a piece of it."""

    role: Literal["assistant"] = "assistant"
    content: str = ""
    thinking: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class Line(Struct, kw_only=True):
    """A line of a stream, or the whole answer; the last one has reason, durations and counts."""

    model: str
    created_at: str
    done: bool = False
    done_reason: str | UnsetType = UNSET
    logprobs: list[Logprob] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET


class ChatLine(Line, kw_only=True):
    """Of /api/chat."""

    message: AnswerMessage


class GenerateLine(Line, kw_only=True):
    """Of /api/generate."""

    response: str = ""
    thinking: str | UnsetType = UNSET


class EmbedRequest(Struct, kw_only=True):
    """POST /api/embed."""

    model: str
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None
    options: Options | None = None
    keep_alive: KeepAlive = None


class EmbedResponse(Struct, kw_only=True):
    """One embedding an input, of length 1."""

    model: str
    embeddings: list[Raw]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class EmbeddingsRequest(Struct, kw_only=True):
    """POST /api/embeddings: the older form, for one prompt."""

    model: str
    prompt: str | None = None
    options: Options | None = None
    keep_alive: KeepAlive = None


class EmbeddingsResponse(Struct):
    """As it comes out of the model, not normalized."""

    embedding: Raw


class ModelRequest(Struct, kw_only=True):
    """POST /api/show and what manages models; `name` is the older name of `model`."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None
    stream: bool | None = None


class Details(Struct, kw_only=True):
    """Of a model's file."""

    parent_model: str = ""
    format: Literal["gguf"] = "gguf"
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class ListedModel(Struct, kw_only=True):
    """One of /api/tags."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class RunningModel(Struct, kw_only=True):
    """One of /api/ps."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int


class ModelListing(Struct):
    """Those that are served, or those that are loaded."""

    models: list[ListedModel] | list[RunningModel]


class ShownModel(Struct, kw_only=True):
    """Everything that the file says of itself."""

    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str
    license: str | UnsetType = UNSET


class Version(Struct):
    """The release of Ollama whose API this is."""

    version: str


class Status(Struct):
    """Of what manages models."""

    status: str


class ErrorBody(Struct):
    """Every error, also in a stream."""

    error: str
