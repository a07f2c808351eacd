"""Chat templates: what a model is told, and how to read what it says."""

from server.chat.deltas import CallDelta, ContentDelta, Delta, ReasoningDelta, delta_fields
from server.chat.errors import TemplateError
from server.chat.format import ChatFormat
from server.chat.parser import OutputParser
from server.chat.syntax import CallSyntax
from server.chat.template import FALLBACK_TEMPLATE, ChatTemplate

__all__ = [
    "FALLBACK_TEMPLATE",
    "CallDelta",
    "CallSyntax",
    "ChatFormat",
    "ChatTemplate",
    "ContentDelta",
    "Delta",
    "OutputParser",
    "ReasoningDelta",
    "TemplateError",
    "delta_fields",
]
