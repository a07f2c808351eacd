"""Stored responses: chains of them as a conversation, and single items by their id."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from server.api.responses.call import ResponseCall
from server.api.responses.items import Conversation
from server.errors import ApiError, InvalidRequest, NotFound, quote
from server.protocol.responses import ResponseObject, ResponsesRequest
from server.store import Document, Query, Store

log = logging.getLogger("ingle.store")

KIND = "response"
MAX_CHAIN = 10_000
"""Responses that one may build on; a longer chain is a loop or a mistake."""


class Kept(Struct):
    """Of a stored response, what a conversation needs."""

    previous_response_id: str | None
    output: list[dict[str, Any]]


_encoder = msgspec.json.Encoder()
_kept = msgspec.json.Decoder(Kept)
_items = msgspec.json.Decoder(list[dict[str, Any]])


class History:
    """What is kept of responses, in the store that all APIs share."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def check(self) -> None:
        """Raises where nothing can be stored; see `Store.check`."""
        await self._store.check()

    async def keep(self, call: ResponseCall, response: ResponseObject) -> ResponseObject:
        """The response as it is answered: once this returns, it can be asked for again.

        Where the store fails now, the answer is given all the same, with `store` false.
        """
        if not call.store:
            return response
        try:
            await self._put(call, response)
        except ApiError as error:
            log.warning("%s could not be stored: %s", response.id, error)
            return replace(response, store=False)
        return response

    async def _put(self, call: ResponseCall, response: ResponseObject) -> None:
        """Its items are found by their ids."""
        ids = [item["id"] for item in call.input] + [item.id for item in response.output]
        await self._store.put(
            Document(
                kind=KIND,
                id=response.id,
                created=response.created_at,
                model=response.model,
                body=_encoder.encode(response),
                input=_encoder.encode(call.input),
                metadata=dict.fromkeys((str(id) for id in ids), ""),
            )
        )

    async def get(self, id: str) -> Document:
        """Raises NotFound."""
        document = await self._store.get(KIND, id)
        if document is None:
            raise NotFound(f"there is no response with the id {quote(id)}", loc=("path", "id"))
        return document

    async def delete(self, id: str) -> None:
        """Raises NotFound."""
        if not await self._store.delete(KIND, id):
            raise NotFound(f"there is no response with the id {quote(id)}", loc=("path", "id"))

    async def conversation(self, request: ResponsesRequest) -> Conversation:
        """All that was said up to `previous_response_id`, without anybody's instructions.

        Raises InvalidRequest where a response of the chain is not stored.
        """
        chain: list[list[dict[str, Any]]] = []
        id = request.previous_response_id
        while id is not None:
            document = await self._store.get(KIND, id)
            if document is None or len(chain) == MAX_CHAIN:
                raise InvalidRequest(
                    f"the previous response {quote(id)} is not stored",
                    loc=("body", "previous_response_id"),
                    code="previous_response_not_found",
                )
            kept = _kept.decode(document.body)
            chain.append(_items.decode(document.input) + kept.output)
            id = kept.previous_response_id
        conversation = Conversation()
        for items in reversed(chain):
            for item in items:
                conversation.add(item, ("body", "previous_response_id"))
        conversation.ignored.clear()
        return conversation

    async def resolve(self, request: ResponsesRequest) -> None:
        """Puts the items that `item_reference`s mean in their place. Raises InvalidRequest."""
        if not isinstance(request.input, list):
            return
        for index, item in enumerate(request.input):
            if isinstance(item, dict) and (
                item.get("type") == "item_reference" or item.keys() == {"id"}
            ):
                request.input[index] = await self._item(item.get("id"), index)

    async def _item(self, id: Any, index: int) -> dict[str, Any]:
        found = Query(kind=KIND, metadata={str(id): ""}, limit=1)
        for listed in (await self._store.find(found)).documents:
            document = await self.get(listed.id)
            for item in _items.decode(document.input) + _kept.decode(document.body).output:
                if item["id"] == id:
                    return item
        raise InvalidRequest(
            f"there is no stored item with the id {quote(id)}",
            loc=("body", "input", index, "id"),
            code="item_not_found",
        )
