"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.errors import ContextLengthExceeded
from server.answers import ChoiceReader
from server.api.completions_answer import ChunkEncoder, completion
from server.api.completions_call import CompletionCall, check_completion, prepare_completion
from server.api.http import client_of, json_response, note, with_ignored
from server.config import ServerConfig
from server.connection import Attendance
from server.conversation import off_loop_if
from server.decode import JsonBody
from server.dispatch import Asked, Attempt, Dispatcher, Submitted
from server.generation import collect
from server.models import ServedModel
from server.prompt_batch import PromptBatch
from server.protocol.completions import CompletionRequest
from server.sse import EventSource

_CHARS_PER_LOGPROB = 40
"""As much work as so many characters of a prompt."""


class Completions:
    """decode → prepare → stream."""

    def __init__(self, config: ServerConfig, dispatcher: Dispatcher) -> None:
        self._config = config
        self._dispatcher = dispatcher
        self._body = JsonBody(CompletionRequest)

    def routes(self) -> list[Route]:
        """The endpoint, also where clients forget the /v1."""
        return [
            Route("/v1/completions", self.create, methods=["POST"]),
            Route("/completions", self.create, methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        """Continuations of one prompt or several, whole or streamed."""
        wire, ignored = await self._body.read(request, self._config.max_body_bytes)
        check_completion(wire)
        asked, attempt = Asked(wire.model, wire.fallbacks), self._attempt(request, wire)
        if wire.stream:
            return await self._dispatcher.stream(asked, attempt, ChunkEncoder, ignored=ignored)
        async with (
            Attendance(request.receive),
            self._dispatcher.admit(asked, attempt) as admission,
        ):
            call = admission.value.call
            n_choices = len(call.requests) * call.best_of
            choices, done = await collect(
                admission.value.stream, n_choices, lambda index: ChoiceReader(None)
            )
        request.scope["request_log"].outcome(done)
        listed = sum(len(choice.prompt_logprobs) + len(choice.logprobs) for choice in choices)
        response = await off_loop_if(
            listed * _CHARS_PER_LOGPROB,
            lambda: json_response(completion(call, choices, done, admission.trail)),
        )
        return with_ignored(response, [*ignored, *call.ignored])

    def _attempt(
        self, request: Request, wire: CompletionRequest
    ) -> Attempt[Submitted[CompletionCall]]:
        async def attempt(model: ServedModel) -> Submitted[CompletionCall]:
            with _prompt_named():
                call = await prepare_completion(wire, model, self._config, client_of(request))
                prompts = [each.prompt for each in call.requests]
                note(request, model=model.name, prompt=sum(map(len, prompts)))
                return Submitted(call, _submit(model, call), call.ignored)

        return attempt


@contextmanager
def _prompt_named() -> Iterator[None]:
    """The engine knows the prompt by the name of the other API's field."""
    try:
        yield
    except ContextLengthExceeded as error:
        error.param = "prompt"
        raise


def _submit(model: ServedModel, call: CompletionCall) -> EventSource:
    if len(call.requests) == 1:
        return model.engine.submit(call.requests[0])
    return PromptBatch(model.engine, call.requests)
