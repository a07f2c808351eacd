"""The stream of a response: each event has the next `sequence_number`, from 0.

Item events name their item by `output_index`, text events also by `item_id` and `content_index`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from server.protocol.chat_completions import TokenLogprob
from server.protocol.responses import (
    OutputItem,
    OutputText,
    ReasoningText,
    ResponseObject,
    SummaryText,
)


class StreamEvent(Struct, tag_field="type", kw_only=True):
    """Base of all events."""

    sequence_number: int


class ResponseEvent(StreamEvent, kw_only=True):
    """The response as a whole."""

    response: ResponseObject


class Created(ResponseEvent, tag="response.created"):
    """The request was accepted."""


class InProgress(ResponseEvent, tag="response.in_progress"):
    """It is being answered."""


class Completed(ResponseEvent, tag="response.completed"):
    """The answer ended by itself."""


class Incomplete(ResponseEvent, tag="response.incomplete"):
    """The answer was cut short."""


class Failed(ResponseEvent, tag="response.failed"):
    """There is no more to come."""


class ErrorEvent(StreamEvent, tag="error", kw_only=True):
    """What went wrong."""

    code: str | None
    message: str
    param: str | None


class ItemAdded(StreamEvent, tag="response.output_item.added", kw_only=True):
    """An item begins."""

    output_index: int
    item: OutputItem


class ItemDone(StreamEvent, tag="response.output_item.done", kw_only=True):
    """An item is complete."""

    output_index: int
    item: OutputItem


class Fragment(StreamEvent, kw_only=True):
    """Base of what belongs to an item."""

    item_id: str
    output_index: int


class PartAdded(Fragment, tag="response.content_part.added", kw_only=True):
    """A part of an item's content begins."""

    content_index: int = 0
    part: OutputText | ReasoningText


class PartDone(Fragment, tag="response.content_part.done", kw_only=True):
    """A part is complete."""

    content_index: int = 0
    part: OutputText | ReasoningText


class TextDelta(Fragment, tag="response.output_text.delta", kw_only=True):
    """More text."""

    content_index: int = 0
    delta: str
    logprobs: list[TokenLogprob] = []


class TextDone(Fragment, tag="response.output_text.done", kw_only=True):
    """The whole text."""

    content_index: int = 0
    text: str
    logprobs: list[TokenLogprob] = []


class ReasoningDelta(Fragment, tag="response.reasoning_text.delta", kw_only=True):
    """More of a thought."""

    content_index: int = 0
    delta: str


class ReasoningDone(Fragment, tag="response.reasoning_text.done", kw_only=True):
    """The whole thought."""

    content_index: int = 0
    text: str


class SummaryPartAdded(Fragment, tag="response.reasoning_summary_part.added", kw_only=True):
    """The summary begins."""

    summary_index: int = 0
    part: SummaryText


class SummaryPartDone(Fragment, tag="response.reasoning_summary_part.done", kw_only=True):
    """The summary is complete."""

    summary_index: int = 0
    part: SummaryText


class SummaryDelta(Fragment, tag="response.reasoning_summary_text.delta", kw_only=True):
    """More of the summary."""

    summary_index: int = 0
    delta: str


class SummaryDone(Fragment, tag="response.reasoning_summary_text.done", kw_only=True):
    """The whole summary."""

    summary_index: int = 0
    text: str


class ArgumentsDelta(Fragment, tag="response.function_call_arguments.delta", kw_only=True):
    """More of a call's arguments."""

    delta: str


class ArgumentsDone(Fragment, tag="response.function_call_arguments.done", kw_only=True):
    """All arguments of a call."""

    name: str
    arguments: str


class InputDelta(Fragment, tag="response.custom_tool_call_input.delta", kw_only=True):
    """More of a custom tool's input."""

    delta: str


class InputDone(Fragment, tag="response.custom_tool_call_input.done", kw_only=True):
    """The whole input of a custom tool."""

    input: str


def event_name(event: StreamEvent) -> str:
    """What stands in the event's `type`."""
    tag: Any = event.__struct_config__.tag
    return str(tag)
