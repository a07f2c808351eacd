"""One table: which status, type and code each error has on the wire.

ApiError                     errors of the front end; `loc` is the path of the field at fault
├── InvalidRequest           a field has a value that it cannot have
├── UnsupportedField         a field is known, but not served here (yet)
├── UnusableTool             no grammar holds the calls of a tool to its schema
├── InvalidApiKey
├── Forbidden                a host or a web page that is not on the list
├── ModelNotFound
├── WrongTask                the model is made for something else
├── NotManaged               a route that would change which models there are
├── CrashedBefore            it was there each time that native code killed the server
├── NotFound                 no such route, or nothing stored under this id
├── MethodNotAllowed
├── BodyTooLarge
├── BodyTooSlow
├── UnsupportedMediaType
└── StoreUnavailable         the file of stored answers is broken or full
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec import Struct

from engine import errors as engine
from server.protocol.errors import Detail, ErrorBody, ErrorInfo

Loc = tuple[str | int, ...]


class ApiError(Exception):
    """An error with its answer; `loc` such as `("body", "messages", 0, "role")`."""

    def __init__(
        self,
        message: str,
        *,
        loc: Loc = (),
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.loc = loc
        self.code = code
        self.headers = dict(headers or {})
        super().__init__(message)


class InvalidRequest(ApiError):
    """A field of the request, or the body itself, has a value that it cannot have."""


class UnsupportedField(InvalidRequest):
    """A value that other servers may accept and this one cannot fulfil."""


class UnusableTool(InvalidRequest):
    """The schema of one tool cannot be enforced; `tool` is its name."""

    tool = ""


class InvalidApiKey(ApiError):
    """No key, or a wrong one."""


class Forbidden(ApiError):
    """Asked by a name, or from a web page, that is not on the list."""


class ModelNotFound(ApiError):
    """No served model has this name."""


class WrongTask(ApiError):
    """The model is made for something else; `hint` may name one that is made for this."""

    def __init__(self, model: str, task: str, hint: str = "") -> None:
        message = f"the model {quote(model)} {_ABILITIES[task]}" + (f"; {hint}" if hint else "")
        super().__init__(message, loc=("body", "model"))


_ABILITIES = {
    "generate": "writes text: it neither embeds nor reranks",
    "embed": "makes embeddings: it neither writes text nor reranks",
    "rerank": "reranks documents: it neither writes text nor makes embeddings",
}


class NotManaged(ApiError):
    """Models are files and settings here: no request adds or removes one."""


class NotFound(ApiError):
    """No route at this path, or nothing stored under this id."""


class CrashedBefore(ApiError):
    """The same request was there each time that native code killed the server."""


class MethodNotAllowed(ApiError):
    """The route exists, for other methods."""


class BodyTooLarge(ApiError):
    """More bytes than `max_body_bytes`."""


class BodyTooSlow(ApiError):
    """It did not arrive in time."""


class UnsupportedMediaType(ApiError):
    """A body that is not JSON, or is compressed."""


class StoreUnavailable(ApiError):
    """The file of stored answers cannot be read or written; the message says which, and why."""


class Fate(Struct, frozen=True):
    """How one class of errors looks to a client."""

    status: int
    type: str
    code: str


_REQUEST = "invalid_request_error"
_SERVER = "server_error"

FATES: dict[type[Exception], Fate] = {
    InvalidRequest: Fate(400, _REQUEST, "invalid_value"),
    UnsupportedField: Fate(400, _REQUEST, "unsupported_parameter"),
    UnusableTool: Fate(400, _REQUEST, "unsupported_schema"),
    InvalidApiKey: Fate(401, _REQUEST, "invalid_api_key"),
    Forbidden: Fate(403, _REQUEST, "forbidden"),
    ModelNotFound: Fate(404, _REQUEST, "model_not_found"),
    WrongTask: Fate(400, _REQUEST, "model_not_supported"),
    CrashedBefore: Fate(400, _REQUEST, "crashed_before"),
    NotManaged: Fate(501, _REQUEST, "not_implemented"),
    NotFound: Fate(404, _REQUEST, "not_found"),
    MethodNotAllowed: Fate(405, _REQUEST, "method_not_allowed"),
    BodyTooSlow: Fate(408, _REQUEST, "request_timeout"),
    BodyTooLarge: Fate(413, _REQUEST, "request_too_large"),
    UnsupportedMediaType: Fate(415, _REQUEST, "unsupported_media_type"),
    StoreUnavailable: Fate(507, _SERVER, "store_unavailable"),
    engine.RequestError: Fate(400, _REQUEST, "invalid_request"),
    engine.ContextLengthExceeded: Fate(400, _REQUEST, "context_length_exceeded"),
    engine.InvalidToken: Fate(400, _REQUEST, "invalid_token"),
    engine.InvalidLora: Fate(400, _REQUEST, "invalid_lora"),
    engine.InvalidGrammar: Fate(400, _REQUEST, "invalid_grammar"),
    engine.NoTokenPossible: Fate(400, _REQUEST, "no_token_possible"),
    engine.QueueFull: Fate(429, "rate_limit_error", "queue_full"),
    engine.EngineUnavailable: Fate(503, "service_unavailable_error", "model_unavailable"),
    engine.StepFailed: Fate(500, _SERVER, "step_failed"),
    engine.ModelLoadError: Fate(503, "service_unavailable_error", "model_load_failed"),
    engine.ModelFileNotFound: Fate(503, "service_unavailable_error", "model_file_not_found"),
    engine.InvalidModelFile: Fate(503, "service_unavailable_error", "invalid_model_file"),
    engine.OutOfMemory: Fate(503, "service_unavailable_error", "out_of_memory"),
    engine.NativeCrash: Fate(503, "service_unavailable_error", "native_crash"),
    engine.EngineError: Fate(500, _SERVER, "engine_error"),
    Exception: Fate(500, _SERVER, "internal_error"),
}

RETRY_AFTER = {"loading": 2, "draining": 10}
"""Seconds after which another try may find the engine in a better state."""
RETRY_AFTER_DEFAULT = 30

QUOTED_CHARS = 60
"""Most of a client's value that an error message repeats."""


class Problem(Struct, frozen=True):
    """An error as it is sent; `server.dialects` has the words of its body."""

    status: int
    headers: dict[str, str]


def fate_of(error: Exception) -> Fate:
    """The row of the nearest class that has one."""
    return next(FATES[cls] for cls in type(error).__mro__ if cls in FATES)


def error_body(error: Exception) -> ErrorBody:
    """OpenAI's `error` object and the list `detail` of one error."""
    fate = fate_of(error)
    loc, message = loc_of(error), message_of(error)
    code = getattr(error, "code", None) or fate.code
    detail = [Detail(loc=list(loc), msg=message, type=code)] if loc else []
    param = field_path(loc[1:]) if loc[:1] == ("body",) else None
    return ErrorBody(ErrorInfo(message, fate.type, param or None, code), detail)


def message_of(error: Exception) -> str:
    """What may be told of it: the reason of an unforeseen error stays in the log."""
    if isinstance(error, ApiError | engine.EngineError):
        return str(error)
    return "the server failed to answer this request; its log has the reason"


def loc_of(error: Exception) -> Loc:
    """The path of the field at fault, or ()."""
    if isinstance(error, ApiError):
        return error.loc
    param = getattr(error, "param", None)
    return ("body", param) if param else ()


def problem(error: Exception) -> Problem:
    """Status and headers of the answer to a request that failed with `error`."""
    fate = fate_of(error)
    headers = dict(error.headers) if isinstance(error, ApiError) else {}
    if fate.status in (429, 503):
        headers.setdefault("retry-after", str(_retry_after(error)))
    return Problem(fate.status, headers)


def field_path(loc: Loc) -> str:
    """`("messages", 0, "role")` → `messages[0].role`."""
    path = ""
    for step in loc:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
    return path


def quote(value: object) -> str:
    """A value for an error message, shortened."""
    return shortened(repr(value), QUOTED_CHARS)


def shortened(text: str, chars: int) -> str:
    """At most so many of them."""
    return text if len(text) <= chars else text[: chars - 1] + "…"


def _retry_after(error: Exception) -> int:
    if isinstance(error, engine.QueueFull):
        return max(1, math.ceil(error.retry_after))
    if isinstance(error, engine.EngineUnavailable):
        return RETRY_AFTER.get(error.state, RETRY_AFTER_DEFAULT)
    return RETRY_AFTER_DEFAULT
