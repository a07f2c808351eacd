"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's door."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.api.chat_call import check_chat, count_prompt, prepare_chat
from server.api.http import client_of, json_response, note, with_ignored
from server.api.messages_answer import Answering, MessageEncoder, framing, message
from server.api.messages_call import Translation, anthropic_paths, translate
from server.config import ServerConfig
from server.connection import Attendance
from server.decode import JsonBody
from server.dispatch import Asked, Attempt, Dispatcher, Submitted
from server.generation import collect
from server.middleware import RequestLog
from server.models import ServedModel
from server.protocol.anthropic import CountTokensRequest, MessagesRequest
from server.protocol.anthropic_answer import TokenCount


class Messages:
    """decode → translate → prepare → stream."""

    def __init__(self, config: ServerConfig, dispatcher: Dispatcher) -> None:
        self._config = config
        self._dispatcher = dispatcher
        self._create = JsonBody(MessagesRequest)
        self._count = JsonBody(CountTokensRequest)

    def routes(self) -> list[Route]:
        """Answer, or count only."""
        return [
            Route("/v1/messages", self.create, methods=["POST"]),
            Route("/v1/messages/count_tokens", self.count_tokens, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        """One message, whole or streamed."""
        wire, ignored = await self._create.read(request, self._config.max_body_bytes)
        translation = translate(wire)
        ignored = [*ignored, *translation.ignored]
        record: RequestLog = request.scope["request_log"]
        with anthropic_paths(translation):
            check_chat(translation.chat)
        asked, attempt = Asked(wire.model), self._attempt(request, wire, translation)
        if wire.stream:
            return await self._dispatcher.stream(
                asked,
                attempt,
                lambda admission: MessageEncoder(admission.value.call),
                ignored=ignored,
                framing=framing(record.id),
            )
        async with (
            Attendance(request.receive),
            self._dispatcher.admit(asked, attempt) as admission,
        ):
            answering = admission.value.call
            [choice], done = await collect(admission.value.stream, 1, answering.call.new_reader)
        record.outcome(done)
        body = message(answering, choice, done)
        return with_ignored(json_response(body), [*ignored, *admission.value.ignored])

    def _attempt(
        self, request: Request, wire: MessagesRequest, translation: Translation
    ) -> Attempt[Submitted[Answering]]:
        async def attempt(model: ServedModel) -> Submitted[Answering]:
            client = client_of(request)
            with anthropic_paths(translation):
                call = await prepare_chat(translation.chat, model, self._config, client)
            note(request, model=model.name, prompt=len(call.request.prompt))
            record: RequestLog = request.scope["request_log"]
            answering = Answering(call, wire.max_tokens, translation.show_thoughts, record.id)
            return Submitted(answering, model.engine.submit(call.request), call.ignored)

        return attempt

    async def count_tokens(self, request: Request) -> Response:
        """How many tokens the prompt of such a message has."""
        wire, ignored = await self._count.read(request, self._config.max_body_bytes)
        translation = translate(wire)
        async with self._dispatcher.lease(wire.model) as model:
            with anthropic_paths(translation):
                count = await count_prompt(translation.chat, model)
        note(request, model=model.name, prompt=count)
        return with_ignored(json_response(TokenCount(count)), [*ignored, *translation.ignored])
