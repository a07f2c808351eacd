"""POST /v1/chat/completions."""

from __future__ import annotations

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.api.chat_answer import ChunkEncoder, completion
from server.api.chat_call import ChatCall, check_chat, prepare_chat, unread
from server.api.http import client_of, json_response, note, with_ignored
from server.api.recording import RecordedStream, Recording, RecordingEncoder
from server.config import ServerConfig
from server.connection import Attendance
from server.decode import JsonBody
from server.dispatch import Admission, Asked, Attempt, Dispatcher, Submitted
from server.generation import collect
from server.models import ServedModel
from server.protocol.chat_completions import ChatCompletionRequest
from server.sse import EventEncoder, EventSource
from server.store import Store


class ChatCompletions:
    """decode → prepare → stream."""

    def __init__(self, config: ServerConfig, dispatcher: Dispatcher, store: Store) -> None:
        self._config = config
        self._dispatcher = dispatcher
        self._store = store
        self._body = JsonBody(ChatCompletionRequest)

    def routes(self) -> list[Route]:
        """The endpoint, also where clients forget the /v1."""
        return [
            Route("/v1/chat/completions", self.create, methods=["POST"]),
            Route("/chat/completions", self.create, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        """One chat completion, whole or streamed."""
        wire, ignored = await self._body.read(request, self._config.max_body_bytes)
        check_chat(wire)
        if wire.store:
            await self._store.check()
        asked, attempt = Asked(wire.model, wire.fallbacks), self._attempt(request, wire)
        if wire.stream:
            return await self._dispatcher.stream(asked, attempt, _encoder, ignored=ignored)
        async with (
            Attendance(request.receive),
            self._dispatcher.admit(asked, attempt) as admission,
        ):
            call, stream = admission.value.call, admission.value.stream
            choices, done = await collect(stream, call.request.n, call.new_reader)
        request.scope["request_log"].outcome(done)
        body = completion(call, choices, done, admission.trail)
        if wire.store:
            await self._recording(request, wire, call).keep(body)
        return with_ignored(json_response(body), [*ignored, *call.ignored])

    def _attempt(
        self, request: Request, wire: ChatCompletionRequest
    ) -> Attempt[Submitted[ChatCall]]:
        """Prepares and submits the request for whichever model is asked."""

        async def attempt(model: ServedModel) -> Submitted[ChatCall]:
            call = await prepare_chat(wire, model, self._config, client_of(request))
            call = replace(call, ignored=(*call.ignored, *unread(wire, model, call)))
            note(request, model=model.name, prompt=len(call.request.prompt))
            stream: EventSource = model.engine.submit(call.request)
            if wire.store and wire.stream:
                stream = RecordedStream(stream, self._recording(request, wire, call))
            return Submitted(call, stream, call.ignored)

        return attempt

    def _recording(
        self, request: Request, wire: ChatCompletionRequest, call: ChatCall
    ) -> Recording:
        return Recording(self._store, wire, call, request.scope["request_log"].id)


def _encoder(admission: Admission[Submitted[ChatCall]]) -> EventEncoder:
    encoder, stream = ChunkEncoder(admission), admission.value.stream
    if isinstance(stream, RecordedStream):
        return RecordingEncoder(encoder, stream, admission.trail)
    return encoder
