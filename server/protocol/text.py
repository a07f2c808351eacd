"""/tokenize, /detokenize, /apply-template: llama-server's shapes."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from server.protocol.messages import ChatMessage


class TokenizeRequest(Struct, kw_only=True):
    """`add_special`: as at the beginning of a prompt; `parse_special`: `<|…|>` is one token."""

    content: str
    model: str | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class TokenPiece(Struct):
    """A token with its text, or its bytes where they are no text on their own."""

    id: int
    piece: str | list[int]


class TokenizeResponse(Struct):
    """Ids, or pieces where they were asked for."""

    tokens: list[int] | list[TokenPiece]


class DetokenizeRequest(Struct, kw_only=True):
    """Token ids."""

    tokens: list[int]
    model: str | None = None


class DetokenizeResponse(Struct):
    """Their text."""

    content: str


class ApplyTemplateRequest(Struct, kw_only=True):
    """A conversation, as for a chat completion."""

    messages: list[ChatMessage]
    model: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    enable_thinking: bool | None = None
    verbosity: str | None = None


class ApplyTemplateResponse(Struct):
    """The text that would be tokenized."""

    prompt: str
