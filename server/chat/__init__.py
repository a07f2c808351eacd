"""Chat templates: what a model is told, and how to read what it says."""

from server.chat.errors import TemplateError
from server.chat.template import FALLBACK_TEMPLATE, ChatTemplate

__all__ = ["FALLBACK_TEMPLATE", "ChatTemplate", "TemplateError"]
