"""POST /v1/chat/completions."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.api.chat_answer import ChunkEncoder, completion
from server.api.chat_call import prepare_chat
from server.api.http import client_of, json_response, note, with_ignored
from server.config import ServerConfig
from server.connection import Attendance
from server.decode import JsonBody
from server.generation import collect
from server.models import Models
from server.protocol.chat_completions import ChatCompletionRequest
from server.sse import EventStream


class ChatCompletions:
    """decode → prepare → stream."""

    def __init__(self, config: ServerConfig, models: Models) -> None:
        self._config = config
        self._models = models
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
        model = self._models.get(wire.model)
        call = await prepare_chat(wire, model, self._config, client_of(request))
        ignored = [*ignored, *call.ignored]
        note(request, model=model.name, prompt=len(call.request.prompt))
        stream = model.engine.submit(call.request)
        if call.stream:
            events = EventStream(stream, ChunkEncoder(call), self._config.keepalive)
            return with_ignored(events, ignored)
        async with Attendance(request.receive):
            choices, done = await collect(stream, call.request.n, call.new_reader)
        request.scope["request_log"].outcome(done)
        return with_ignored(json_response(completion(call, choices, done)), ignored)
