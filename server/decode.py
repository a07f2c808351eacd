"""Reads a JSON body into a Struct, or says with the field's path what is wrong with it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
from msgspec import Struct
from starlette.requests import ClientDisconnect, Request

from server.checks import missing
from server.connection import ClientDisconnected
from server.errors import (
    QUOTED_CHARS,
    BodyTooLarge,
    BodyTooSlow,
    InvalidRequest,
    Loc,
    UnsupportedMediaType,
    field_path,
    quote,
    shortened,
)
from server.unknown_fields import UnknownFields

if TYPE_CHECKING:
    from server.middleware import RequestLog

T = TypeVar("T", bound=Struct)

BODY_SECONDS = 120.0
"""Until a whole body must have arrived."""
MESSAGE_CHARS = 400
MAX_FLOATS = 16
"""Most fields of one body that are read as integers although they were sent as 8.0."""

_PATH_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_EXPECTED = re.compile(r"Expected `([^`]+)`(.*), got `([^`]+)`")

JSON_NAMES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
"""JSON's words for what Python calls otherwise."""

_KINDS = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    list: "array",
    dict: "object",
    type(None): "null",
}

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""One escape of JSON, or a whole pair of surrogates; its group is half a pair."""
_HALF_PAIR_ERRORS = ("surrogate", "hex escape", "truncated")
"""What msgspec says of half a pair, depending on what follows."""


class JsonBody(Generic[T]):
    """Decodes the bodies of one endpoint; built once."""

    def __init__(self, type: type[T]) -> None:
        self._type = type
        self._decoder = msgspec.json.Decoder(type)
        self._unknown = UnknownFields(type)

    async def read(self, request: Request, limit: int) -> tuple[T, list[str]]:
        """The body, and the paths of its fields that mean nothing here.

        Raises UnsupportedMediaType, BodyTooLarge (over `limit` bytes), BodyTooSlow, InvalidRequest,
        CrashedBefore and ClientDisconnected.
        """
        self.check_media(request)
        body = await _read_bytes(request, limit)
        record: RequestLog = request.scope["request_log"]
        record.body(body)
        if flight := request.scope.get("flight"):
            flight.enter(body)
        value, ignored = self.decode(body)
        record.requested = getattr(value, "model", None)
        return value, ignored

    def check_media(self, request: Request) -> None:
        """Whether the body may be JSON. Raises UnsupportedMediaType."""
        check_content_type(request)

    def decode(self, body: bytes) -> tuple[T, list[str]]:
        """As `read`, from bytes."""
        try:
            body.decode()  # msgspec passes over unknown fields, whatever their bytes are
            try:
                value = self._decoder.decode(body)
            except msgspec.ValidationError as error:
                value = self._decode_leniently(body, error)
            # A frame deeper, so that nesting can be too deep here only.
            return value, self._unknown(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _malformed(error, body) from None

    def _decode_leniently(self, body: bytes, error: msgspec.ValidationError) -> T:
        """Takes `8.0` for the integer 8, as clients without integers send it."""
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as malformed:
            raise _malformed(malformed, body) from None
        loc = _loc(str(error))
        for _ in range(MAX_FLOATS):
            if not _make_integer(document, loc):
                break
            try:
                return msgspec.convert(document, self._type)
            except msgspec.ValidationError as next_error:
                error, loc = next_error, _loc(str(next_error))
        raise _invalid(error, loc, document) from None


def check_content_type(request: Request) -> None:
    """Raises UnsupportedMediaType."""
    content_type = request.headers.get("content-type", "")
    media = content_type.partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise UnsupportedMediaType(
            f"content-type must be application/json, but is {quote(content_type)}",
            loc=("header", "content-type"),
        )
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaType(
            f"content-encoding {quote(encoding)} is not supported",
            loc=("header", "content-encoding"),
        )


async def _read_bytes(request: Request, limit: int) -> bytes:
    if int(request.headers.get("content-length", 0)) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
    except ClientDisconnect:
        raise ClientDisconnected from None
    except TimeoutError:
        raise BodyTooSlow(
            f"the body did not arrive within {BODY_SECONDS:g} seconds",
            loc=("body",),
            headers={"connection": "close"},
        ) from None
    return bytes(body)


def _too_large(limit: int) -> BodyTooLarge:
    # Closing the connection spares both sides the rest of the body.
    return BodyTooLarge(
        f"the body must be at most {limit} bytes", loc=("body",), headers={"connection": "close"}
    )


def _malformed(error: Exception, body: bytes) -> InvalidRequest:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    if any(words in reason for words in _HALF_PAIR_ERRORS):
        reason = _half_pair(body) or reason
    return InvalidRequest(f"the body is not JSON: {reason}", loc=("body",), code="invalid_json")


def _half_pair(body: bytes) -> str:
    """The first escaped surrogate that stands alone, which is no text; empty without one."""
    alone = next((found for found in _ESCAPE.finditer(body) if found[1]), None)
    if alone is None:
        return ""
    return f"{alone[0].decode()} is half of a surrogate pair (byte {alone.start()})"


def _loc(message: str) -> Loc:
    path = message.rpartition(" - at `$")[2].rstrip("`") if " - at `$" in message else ""
    steps: Loc = tuple(int(index) if index else name for name, index in _PATH_STEP.findall(path))
    missing = _MISSING.search(message)
    return (*steps, missing[1]) if missing else steps


def _make_integer(document: Any, loc: Loc) -> bool:
    """Replaces an integral float at `loc`, in a list all of them; False if there is none."""
    parent = _value_at(document, loc[:-1])
    value = _value_at(document, loc)
    if not loc or not _is_integral(value):
        return False
    if isinstance(parent, list):
        parent[:] = [int(item) if _is_integral(item) else item for item in parent]
    else:
        parent[loc[-1]] = int(value)
    return True


def _is_integral(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _value_at(document: Any, loc: Loc) -> Any:
    for step in loc:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return None
    return document


def _invalid(error: msgspec.ValidationError, loc: Loc, document: Any) -> InvalidRequest:
    text = str(error).partition(" - at `")[0]
    if _MISSING.search(text):
        return missing(("body", *loc))
    expected = _EXPECTED.match(text)
    if expected is None:
        text = shortened(text, MESSAGE_CHARS)  # it may quote a value of the body
        field = field_path(loc) or "the body"
        return InvalidRequest(f"{field}: {text[:1].lower()}{text[1:]}", loc=("body", *loc))
    types, limit, got = expected.groups()
    if str(error).endswith("[...]`"):
        loc = (*loc, *_key_of(_value_at(document, loc), got))
    wanted = [name for name in types.split(" | ") if name != "null"]
    return wrong_type(wanted, _value_at(document, loc), ("body", *loc), limit=limit, got=got)


def _key_of(values: Any, kind: str) -> Loc:
    """Of the first value of a kind: msgspec does not tell which one it did not take. Names that
    are too long to be repeated count as none."""
    items = values.items() if isinstance(values, dict) else ()
    found = next((key for key, value in items if _KINDS[type(value)] == kind), "")
    return (found,) if 0 < len(found) <= QUOTED_CHARS else ()


def wrong_type(
    wanted: Sequence[str], value: Any, loc: Loc, *, limit: str = "", got: str = ""
) -> InvalidRequest:
    """`value`, at `loc`, has none of the types `wanted`, in msgspec's words."""
    got = got or _KINDS[type(value)]
    message = (
        f"{field_path(loc[1:]) or 'the body'} must be of type "
        f"{' or '.join(JSON_NAMES.get(name, name) for name in wanted)}{limit}, "
        f"but is {JSON_NAMES.get(got, got)}"
    )
    if isinstance(value, str | int | float) and loc[1:]:
        message += f" {quote(value)}"
    return InvalidRequest(message, loc=loc, code="invalid_type")


def check_types(fields: Mapping[str, Any], types: Mapping[str, type], loc: Loc) -> None:
    """Raises InvalidRequest for the first of `fields`, found at `loc`, that has another type."""
    for name, wanted in types.items():
        value = fields.get(name)
        if value is not None and not isinstance(value, wanted):
            raise wrong_type([_KINDS[wanted]], value, (*loc, name))
