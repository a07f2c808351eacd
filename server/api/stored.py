"""GET, POST and DELETE under /v1/chat/completions: the completions that were to be stored."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.api.http import json_response, with_ignored
from server.api.paging import PageQuery, read_page_query
from server.api.recording import KIND, message_id
from server.config import ServerConfig
from server.decode import JsonBody
from server.errors import InvalidRequest, NotFound, quote
from server.prepare import check_metadata
from server.protocol.stored import DeletedCompletion, ListPage, MetadataUpdate
from server.store import Document, Query, Store

METADATA_FILTER = re.compile(r"metadata\[(.+)\]", re.DOTALL)

_encoder = msgspec.json.Encoder()
_messages = msgspec.json.Decoder(list[Raw])


class StoredCompletions:
    """OpenAI's routes; needs no model."""

    def __init__(self, config: ServerConfig, store: Store) -> None:
        self._limit = config.max_body_bytes
        self._store = store
        self._body = JsonBody(MetadataUpdate)

    def routes(self) -> list[Route]:
        """Also where clients forget the /v1."""
        return [
            route for prefix in ("/v1", "") for route in self._routes(f"{prefix}/chat/completions")
        ]

    def _routes(self, path: str) -> list[Route]:
        return [
            Route(path, self.list, methods=["GET"]),
            Route(path + "/{id}", self.retrieve, methods=["GET"]),
            Route(path + "/{id}", self.update, methods=["POST"]),
            Route(path + "/{id}", self.delete, methods=["DELETE"]),
            Route(path + "/{id}/messages", self.messages, methods=["GET"]),
        ]

    async def list(self, request: Request) -> Response:
        """Filtered by `model` and `metadata[key]=value`."""
        notes = _metadata_filters(request)
        page, ignored = read_page_query(
            request, others=("model", *(f"metadata[{key}]" for key in notes))
        )
        query = Query(
            kind=KIND,
            model=request.query_params.get("model"),
            metadata=notes,
            after=page.after,
            limit=page.limit,
            order=page.order,
        )
        found = await self._store.find(query)
        ids = [document.id for document in found.documents]
        data = [_completion(document) for document in found.documents]
        return with_ignored(json_response(_page(data, ids, found.has_more)), ignored)

    async def retrieve(self, request: Request) -> Response:
        """One completion."""
        return json_response(_completion(await self._get(request)))

    async def messages(self, request: Request) -> Response:
        """What one completion answers."""
        query, ignored = read_page_query(request)
        document = await self._get(request)
        items = _messages.decode(document.input)
        indices = _wanted(document.id, len(items), query)
        wanted = indices[: query.limit]
        ids = [message_id(document.id, index) for index in wanted]
        page = _page([items[index] for index in wanted], ids, len(indices) > len(wanted))
        return with_ignored(json_response(page), ignored)

    async def update(self, request: Request) -> Response:
        """New metadata."""
        wire, ignored = await self._body.read(request, self._limit)
        check_metadata(wire.metadata)
        id = request.path_params["id"]
        document = await self._store.set_metadata(KIND, id, wire.metadata or {})
        return with_ignored(json_response(_completion(_there(document, id))), ignored)

    async def delete(self, request: Request) -> Response:
        """It is gone from the file too."""
        id = request.path_params["id"]
        if not await self._store.delete(KIND, id):
            raise _not_found(id)
        return json_response(DeletedCompletion(id=id))

    async def _get(self, request: Request) -> Document:
        id = request.path_params["id"]
        return _there(await self._store.get(KIND, id), id)


def _there(document: Document | None, id: str) -> Document:
    if document is None:
        raise _not_found(id)
    return document


def _not_found(id: str) -> NotFound:
    return NotFound(
        f"no stored chat completion has the id {quote(id)}; only those created with store: true are"
        " kept",
        loc=("path", "id"),
    )


def _completion(document: Document) -> Raw:
    """The completion as it was sent, with its present metadata."""
    metadata = _encoder.encode(document.metadata)
    return Raw(b"".join((document.body[:-1], b',"metadata":', metadata, b"}")))


def _page(data: Sequence[Raw], ids: Sequence[str], has_more: bool) -> ListPage:
    return ListPage(
        data=list(data),
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        has_more=has_more,
    )


def _metadata_filters(request: Request) -> dict[str, str]:
    found = (
        (METADATA_FILTER.fullmatch(name), value) for name, value in request.query_params.items()
    )
    return {match[1]: value for match, value in found if match}


def _wanted(id: str, count: int, query: PageQuery) -> Sequence[int]:
    """Indices of messages from where the page begins, in its order."""
    indices = range(count) if query.order == "asc" else range(count - 1, -1, -1)
    if query.after is None:
        return indices
    ids = [message_id(id, index) for index in indices]
    if query.after not in ids:
        raise InvalidRequest(
            f"after: {quote(query.after)} is no message of this completion", loc=("query", "after")
        )
    return indices[ids.index(query.after) + 1 :]
