"""What the endpoints share: answers in JSON, the client's key, notes for the log line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from server.middleware import RequestLog
from server.prepare import Client

_encoder = msgspec.json.Encoder()
_R = TypeVar("_R", bound=Response)

IGNORED_PARAMS = "x-ignored-params"
MAX_IGNORED_CHARS = 1024


def json_response(value: object, status: int = 200) -> Response:
    """`value` as JSON: Structs, dicts, lists."""
    return Response(_encoder.encode(value), status, media_type="application/json")


def with_ignored(response: _R, names: Sequence[str]) -> _R:
    """Lists the fields of the request that mean nothing here."""
    if names:
        text = ", ".join(name.encode("unicode_escape").decode() for name in names)
        response.headers[IGNORED_PARAMS] = text[:MAX_IGNORED_CHARS]
    return response


def client_of(request: Request) -> Client:
    """The host: a client gains nothing from opening more connections."""
    return Client(request.client.host if request.client else "")


def note(request: Request, **fields: Any) -> None:
    """Adds to the request's line in the log."""
    record: RequestLog = request.scope["request_log"]
    record.fields.update(fields)
