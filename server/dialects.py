"""Errors in the words of the API that a route belongs to; OpenAI's where nothing else is said."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from engine.errors import ContextLengthExceeded
from server.errors import ApiError, error_body, fate_of, field_path, loc_of, message_of
from server.protocol import anthropic_answer as anthropic
from server.protocol import ollama

ErrorWords = Callable[[Exception, str], object]
"""An error and the request's id → the body that tells of it."""

ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}
"""All other statuses are an invalid_request_error."""

_encoder = msgspec.json.Encoder()


def openai_error(error: Exception, request_id: str) -> object:
    """`error` and `detail`."""
    return error_body(error)


def anthropic_error(error: Exception, request_id: str) -> anthropic.ErrorBody:
    """Anthropic's shape has no field for the place: it stands in the message."""
    kind = ANTHROPIC_TYPES.get(fate_of(error).status, "invalid_request_error")
    message = message_of(error)
    loc = loc_of(error)
    path = field_path(loc[1:]) if loc[:1] == ("body",) else ""
    if isinstance(error, ContextLengthExceeded):
        # Claude Code knows by these words that it must shorten the conversation.
        message = (
            f"prompt is too long: {error.prompt_tokens} tokens > {error.context} maximum; {message}"
        )
    elif path and path not in message:
        message = f"{path}: {message}"
    return anthropic.ErrorBody(anthropic.ErrorInfo(kind, message), request_id)


def ollama_error(error: Exception, request_id: str) -> ollama.ErrorBody:
    """One sentence, with the place; the engine knows places of the other API only."""
    message, loc = message_of(error), error.loc if isinstance(error, ApiError) else ()
    path = field_path(loc[1:]) if loc[:1] == ("body",) else ""
    return ollama.ErrorBody(message if path in message else f"{path}: {message}")


DIALECTS: tuple[tuple[str, ErrorWords], ...] = (
    ("/v1/messages", anthropic_error),
    ("/api/", ollama_error),
)
"""Beginnings of paths that do not speak as OpenAI does."""


def words_of(path: str) -> ErrorWords:
    """How errors are told on a route."""
    return next((words for prefix, words in DIALECTS if path.startswith(prefix)), openai_error)


def encoded_error(error: Exception, path: str, request_id: str) -> bytes:
    """The body of an error, as `path`'s clients read it."""
    return _encoder.encode(words_of(path)(error, request_id))
