"""POST /api/chat and /api/generate."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.api.chat_call import check_chat
from server.api.http import client_of, json_response, note, with_ignored
from server.api.ollama.answer import Answering, LineEncoder, Words, framing, whole
from server.api.ollama.body import Body, find, seconds_of
from server.api.ollama.call import Translation, ollama_paths, translate_chat, translate_generate
from server.api.ollama.prepared import prepare_ollama
from server.config import ServerConfig
from server.connection import Attendance
from server.dispatch import Asked, Attempt, Dispatcher, Submitted
from server.generation import collect
from server.models import Models, ServedModel
from server.protocol.ollama import ChatRequest, GenerateRequest, GenerationRequest


class OllamaGeneration:
    """decode → translate → prepare → stream."""

    def __init__(self, config: ServerConfig, models: Models, dispatcher: Dispatcher) -> None:
        self._config = config
        self._models = models
        self._dispatcher = dispatcher
        self._chat = Body(ChatRequest)
        self._generate = Body(GenerateRequest)

    def routes(self) -> list[Route]:
        """Messages, or one prompt."""
        return [
            Route("/api/chat", self.chat, methods=["POST"]),
            Route("/api/generate", self.generate, methods=["POST"]),
        ]

    async def chat(self, request: Request) -> Response:
        """The next message of a conversation."""
        wire, ignored = await self._chat.read(request, self._config.max_body_bytes)
        words = Words(wire.model, chat=True)
        if not wire.messages:
            return await self._load(request, wire, words)
        return await self._answer(request, wire, words, translate_chat(wire), ignored)

    async def generate(self, request: Request) -> Response:
        """What follows a prompt."""
        wire, ignored = await self._generate.read(request, self._config.max_body_bytes)
        words = Words(wire.model, chat=False)
        if not wire.prompt:
            return await self._load(request, wire, words)
        return await self._answer(request, wire, words, translate_generate(wire), ignored)

    async def _load(self, request: Request, wire: GenerationRequest, words: Words) -> Response:
        """Nothing is asked: the model is to be there, or with `keep_alive` 0 to go."""
        model, stay = find(self._models, wire.model), seconds_of(wire.keep_alive)
        note(request, model=model.name)
        if stay != 0 or model.loaded:
            async with Attendance(request.receive), self._dispatcher.lease(model.name) as leased:
                leased.stay(stay)
        return json_response(words.loaded("unload" if stay == 0 else "load"))

    async def _answer(
        self,
        request: Request,
        wire: GenerationRequest,
        words: Words,
        translation: Translation,
        ignored: list[str],
    ) -> Response:
        ignored = [*ignored, *translation.ignored]
        stay = seconds_of(wire.keep_alive)
        with ollama_paths():
            check_chat(translation.chat)
        asked = Asked(find(self._models, wire.model).name)
        attempt = self._attempt(request, translation, words, stay)
        if translation.chat.stream:
            return await self._dispatcher.stream(
                asked,
                attempt,
                lambda admission: LineEncoder(admission.value.call),
                ignored=ignored,
                framing=framing(words),
            )
        async with (
            Attendance(request.receive),
            self._dispatcher.admit(asked, attempt) as admission,
        ):
            answering = admission.value.call
            [choice], done = await collect(admission.value.stream, 1, answering.new_reader)
        request.scope["request_log"].outcome(done)
        body = whole(answering, choice, done)
        return with_ignored(json_response(body), [*ignored, *admission.value.ignored])

    def _attempt(
        self, request: Request, translation: Translation, words: Words, stay: float | None
    ) -> Attempt[Submitted[Answering]]:
        began = time.monotonic()

        async def attempt(model: ServedModel) -> Submitted[Answering]:
            load = time.monotonic() - began
            with ollama_paths():
                prepared = await prepare_ollama(
                    translation, model, self._config, client_of(request)
                )
            note(request, model=model.name, prompt=len(prepared.request.prompt))
            model.stay(stay)
            answering = Answering(words, prepared.new_reader, load)
            return Submitted(answering, model.engine.submit(prepared.request), prepared.ignored)

        return attempt
