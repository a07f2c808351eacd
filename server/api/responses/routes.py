"""POST /v1/responses; GET, DELETE, cancel and input_items of a stored one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.request import RequestDone, RequestFailed, TokenOutput
from server.api.chat_call import count_prompt
from server.api.http import client_of, json_response, note, with_ignored
from server.api.paging import PageQuery, read_page_query
from server.api.responses.answer import Answer
from server.api.responses.call import ResponseCall, prepare_response
from server.api.responses.events import FRAMING, ResponseEncoder, SettledStream
from server.api.responses.history import History
from server.api.responses.wire import Wire, read_wire
from server.config import ServerConfig
from server.connection import Attendance
from server.decode import JsonBody
from server.dispatch import Admission, Asked, Attempt, Dispatcher, Submitted
from server.errors import ApiError, InvalidRequest, UnsupportedField, quote
from server.models import ServedModel
from server.protocol.responses import (
    DeletedResponse,
    InputTokens,
    ItemList,
    ResponseObject,
    ResponsesRequest,
)
from server.sse import EventSource
from server.store import Store

_items = msgspec.json.Decoder(list[dict[str, Any]])


class Responses:
    """decode → history → prepare → stream → store."""

    def __init__(self, config: ServerConfig, dispatcher: Dispatcher, store: Store) -> None:
        self._config = config
        self._dispatcher = dispatcher
        self._history = History(store)
        self._body = JsonBody(ResponsesRequest)

    def routes(self) -> list[Route]:
        """The endpoints, also where clients forget the /v1."""
        one = "/responses/{id}"
        return [
            Route(prefix + path, endpoint, methods=[method])
            for prefix in ("/v1", "")
            for path, endpoint, method in (
                ("/responses", self.create, "POST"),
                ("/responses/input_tokens", self.count, "POST"),
                (one, self.retrieve, "GET"),
                (one, self.delete, "DELETE"),
                (f"{one}/cancel", self.cancel, "POST"),
                (f"{one}/input_items", self.input_items, "GET"),
            )
        ]

    async def create(self, request: Request) -> Response:
        """One response, whole or streamed."""
        body, ignored = await self._body.read(request, self._config.max_body_bytes)
        stores = await self._stores(body)
        await self._history.resolve(body)
        wire = read_wire(body, await self._history.conversation(body))
        asked = Asked(body.model, body.fallbacks)
        prepare = self._preparing(request, body, wire, stores)
        if body.stream:
            return await self._dispatcher.stream(
                asked, self._opening(prepare), _encoder_of, ignored=ignored, framing=FRAMING
            )
        async with (
            Attendance(request.receive),
            self._dispatcher.admit(asked, prepare) as admission,
        ):
            call = admission.value.call
            response, done = await whole(call, admission.value.stream)
            response = await self._history.keep(call, response)
        request.scope["request_log"].outcome(done)
        return with_ignored(json_response(response), [*ignored, *call.ignored])

    async def count(self, request: Request) -> Response:
        """How many tokens the input of such a response has."""
        body, ignored = await self._body.read(request, self._config.max_body_bytes)
        await self._history.resolve(body)
        wire = read_wire(body, await self._history.conversation(body))
        async with self._dispatcher.lease(body.model) as model:
            with wire.placing():
                count = await count_prompt(wire.chat, model)
        note(request, model=model.name, prompt=count)
        return with_ignored(json_response(InputTokens(count)), [*ignored, *wire.ignored])

    def _preparing(
        self, request: Request, body: ResponsesRequest, wire: Wire, stores: bool
    ) -> Attempt[Submitted[ResponseCall]]:
        """Prepares and submits the request for whichever model is asked."""

        async def attempt(model: ServedModel) -> Submitted[ResponseCall]:
            client = client_of(request)
            call = await prepare_response(body, wire, model, self._config, client, stores=stores)
            note(request, model=model.name, prompt=len(call.chat.request.prompt))
            return Submitted(call, model.engine.submit(call.chat.request), call.ignored)

        return attempt

    def _opening(
        self, prepare: Attempt[Submitted[ResponseCall]]
    ) -> Attempt[Submitted[ResponseEncoder]]:
        """The same for a stream, which is stored before its last event."""

        async def attempt(model: ServedModel) -> Submitted[ResponseEncoder]:
            submitted = await prepare(model)
            encoder = ResponseEncoder(submitted.call, self._history)
            stream = SettledStream(submitted.stream, encoder)
            return Submitted(encoder, stream, submitted.ignored)

        return attempt

    async def _stores(self, wire: ResponsesRequest) -> bool:
        """As at OpenAI, responses are stored unless they are not to be; without a word only
        where they can be."""
        if wire.store is False:
            return False
        try:
            await self._history.check()
        except ApiError:
            if wire.store:
                raise
            return False
        return True

    async def retrieve(self, request: Request) -> Response:
        """A stored response. It cannot be streamed again."""
        if request.query_params.get("stream", "false").lower() not in ("false", "0"):
            raise UnsupportedField(
                "a stored response is given whole, not streamed", loc=("query", "stream")
            )
        document = await self._history.get(request.path_params["id"])
        ignored = [name for name in request.query_params if name != "stream"]
        return with_ignored(Response(document.body, media_type="application/json"), ignored)

    async def delete(self, request: Request) -> Response:
        """Responses that build on it can no longer be continued."""
        id = request.path_params["id"]
        await self._history.delete(id)
        return json_response(DeletedResponse(id))

    async def cancel(self, request: Request) -> Response:
        """Always refused: what is stored has ended; hanging up cancels the rest."""
        id = request.path_params["id"]
        await self._history.get(id)
        raise InvalidRequest(
            f"{quote(id)} was not made in the background: only such responses can be cancelled",
            loc=("path", "id"),
        )

    async def input_items(self, request: Request) -> Response:
        """The request's own items, newest first unless told otherwise."""
        document = await self._history.get(request.path_params["id"])
        query, ignored = read_page_query(request, order="desc")
        return with_ignored(json_response(page(_items.decode(document.input), query)), ignored)


def _encoder_of(admission: Admission[Submitted[ResponseEncoder]]) -> ResponseEncoder:
    return admission.value.call


async def whole(call: ResponseCall, stream: EventSource) -> tuple[ResponseObject, RequestDone]:
    """The finished response. Raises the EngineError that the request failed with."""
    answer = Answer(call)
    try:
        async for event in stream:
            match event:
                case TokenOutput():
                    for _ in answer.read(event):
                        pass
                case RequestDone():
                    answer.end(event)
                    return answer.response, event
                case RequestFailed():
                    raise event.error
    finally:
        stream.cancel()
    raise RuntimeError("the engine ended a stream without a last word")


def page(items: Sequence[dict[str, Any]], query: PageQuery) -> ItemList:
    """The part of a list that is wanted. Raises InvalidRequest if `after` is not in it."""
    listed = list(items) if query.order == "asc" else list(reversed(items))
    if query.after is not None:
        ids = [item["id"] for item in listed]
        if query.after not in ids:
            raise InvalidRequest(
                f"after: there is no item with the id {quote(query.after)}", loc=("query", "after")
            )
        listed = listed[ids.index(query.after) + 1 :]
    shown = listed[: query.limit]
    return ItemList(
        data=shown,
        first_id=shown[0]["id"] if shown else None,
        last_id=shown[-1]["id"] if shown else None,
        has_more=len(listed) > len(shown),
    )
