"""The body of every error: OpenAI's `error` object, and a list of the fields at fault."""

from __future__ import annotations

from msgspec import Struct


class ErrorInfo(Struct):
    """What OpenAI's clients read."""

    message: str
    type: str
    param: str | None
    code: str | None


class Detail(Struct):
    """One field at fault; `loc` starts with `body`, `header` or `path`."""

    loc: list[str | int]
    msg: str
    type: str


class ErrorBody(Struct):
    """The whole body."""

    error: ErrorInfo
    detail: list[Detail] = []
