"""POST /tokenize, /detokenize, /apply-template: what a prompt becomes before it is computed."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server import conversation, prepare
from server.api.http import json_response, with_ignored
from server.config import ServerConfig
from server.decode import JsonBody
from server.dispatch import Dispatcher
from server.errors import InvalidRequest
from server.protocol.text import (
    ApplyTemplateRequest,
    ApplyTemplateResponse,
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
    TokenPiece,
)


class TextTools:
    """Needs a loaded model, and no slot of it."""

    def __init__(self, config: ServerConfig, dispatcher: Dispatcher) -> None:
        self._limit = config.max_body_bytes
        self._dispatcher = dispatcher
        self._tokenize = JsonBody(TokenizeRequest)
        self._detokenize = JsonBody(DetokenizeRequest)
        self._template = JsonBody(ApplyTemplateRequest)

    def routes(self) -> list[Route]:
        """Three tools."""
        return [
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
            Route("/apply-template", self.apply_template, methods=["POST"]),
        ]

    async def tokenize(self, request: Request) -> Response:
        """Text → tokens."""
        wire, ignored = await self._tokenize.read(request, self._limit)
        async with self._dispatcher.lease(wire.model) as model:
            tokens: list[int] = await conversation.encode(
                model,
                wire.content,
                add_special=bool(wire.add_special),
                parse_special=wire.parse_special is not False,
            )
            body = TokenizeResponse(tokens)
            if wire.with_pieces:
                token_bytes = model.loaded_engine.tokenizer.token_bytes
                body = TokenizeResponse([TokenPiece(t, _piece(token_bytes(t))) for t in tokens])
        return with_ignored(json_response(body), ignored)

    async def detokenize(self, request: Request) -> Response:
        """Tokens → text."""
        wire, ignored = await self._detokenize.read(request, self._limit)
        async with self._dispatcher.lease(wire.model) as model:
            n_vocab = model.loaded_engine.info.n_vocab
            for index, token in enumerate(wire.tokens):
                if not 0 <= token < n_vocab:
                    raise InvalidRequest(
                        f"tokens must be 0 to {n_vocab - 1}, but one is {token}",
                        loc=("body", "tokens", index),
                        code="invalid_token",
                    )
            body = DetokenizeResponse(model.loaded_engine.tokenizer.decode(wire.tokens))
        return with_ignored(json_response(body), ignored)

    async def apply_template(self, request: Request) -> Response:
        """Messages → the prompt as text."""
        wire, ignored = await self._template.read(request, self._limit)
        prepare.check(wire)
        async with self._dispatcher.lease(wire.model) as model:
            kwargs = conversation.template_kwargs(wire)
            prompt = await conversation.prompt_text(model, wire.messages, kwargs)
        return with_ignored(json_response(ApplyTemplateResponse(prompt)), ignored)


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
