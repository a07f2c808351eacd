"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's door."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server import conversation, prepare
from server.api.chat_call import prepare_chat
from server.api.http import client_of, json_response, note, with_ignored
from server.api.messages_answer import PING, Answering, MessageEncoder, message
from server.api.messages_call import Translation, anthropic_paths, translate
from server.config import ServerConfig
from server.connection import Attendance
from server.decode import JsonBody
from server.generation import collect
from server.models import Models, ServedModel
from server.protocol.anthropic import CountTokensRequest, MessagesRequest
from server.protocol.anthropic_answer import TokenCount
from server.sse import EventStream
from server.tools import read_toolset


class Messages:
    """decode → translate → prepare → stream."""

    def __init__(self, config: ServerConfig, models: Models) -> None:
        self._config = config
        self._models = models
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
        model = self._models.get(wire.model)
        with anthropic_paths(translation):
            call = await prepare_chat(translation.chat, model, self._config, client_of(request))
        ignored = [*ignored, *translation.ignored, *call.ignored]
        note(request, model=model.name, prompt=len(call.request.prompt))
        stream = model.engine.submit(call.request)
        log = request.scope["request_log"]
        answering = Answering(call, wire.max_tokens, translation.show_thoughts, log.id)
        if call.stream:
            events = EventStream(stream, MessageEncoder(answering), self._config.keepalive, PING)
            return with_ignored(events, ignored)
        async with Attendance(request.receive):
            [choice], done = await collect(stream, 1, call.new_reader)
        log.outcome(done)
        return with_ignored(json_response(message(answering, choice, done)), ignored)

    async def count_tokens(self, request: Request) -> Response:
        """How many tokens the prompt of such a message has."""
        wire, ignored = await self._count.read(request, self._config.max_body_bytes)
        translation = translate(wire)
        model = self._models.get(wire.model)
        with anthropic_paths(translation):
            count = await _prompt_tokens(translation, model)
        note(request, model=model.name, prompt=count)
        return with_ignored(json_response(TokenCount(count)), [*ignored, *translation.ignored])


async def _prompt_tokens(translation: Translation, model: ServedModel) -> int:
    chat = translation.chat
    prepare.check(chat)
    toolset = read_toolset(chat)
    tools = toolset.offered if toolset is not None else ()
    kwargs = conversation.template_kwargs(chat)
    prompt = await conversation.prompt(model, chat.messages, kwargs, tools)
    return len(prompt.tokens)
