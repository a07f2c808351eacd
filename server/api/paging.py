"""The query of a list: `after`, `limit`, `order` and filters."""

from __future__ import annotations

from collections.abc import Container

from msgspec import Struct
from starlette.requests import Request

from server.errors import InvalidRequest, quote
from server.store.documents import Order

MAX_LIMIT = 100
NAMES = ("after", "limit", "order")


class PageQuery(Struct, frozen=True):
    """Which part of a list is wanted."""

    after: str | None
    limit: int
    order: Order


def read_page_query(
    request: Request, *, others: Container[str] = (), order: Order = "asc"
) -> tuple[PageQuery, list[str]]:
    """The query, and the names in it that mean nothing: neither here nor in `others`.

    Raises InvalidRequest.
    """
    given = request.query_params
    query = PageQuery(
        given.get("after"), _limit(given.get("limit", "20")), _order(given.get("order", order))
    )
    return query, [name for name in given if name not in NAMES and name not in others]


def _limit(text: str) -> int:
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(
            f"limit must be between 1 and {MAX_LIMIT}, but is {quote(text)}", loc=("query", "limit")
        )
    return limit


def _order(text: str) -> Order:
    if text not in ("asc", "desc"):
        raise InvalidRequest(
            f"order must be asc or desc, but is {quote(text)}", loc=("query", "order")
        )
    return "asc" if text == "asc" else "desc"
