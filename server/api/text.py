"""POST /tokenize, /detokenize, /apply-template: what a prompt becomes before it is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server import conversation, prepare
from server.api.http import json_response, with_ignored
from server.checks import check_tokens
from server.config import ServerConfig
from server.decode import JsonBody
from server.dispatch import Dispatcher
from server.protocol.text import (
    ApplyTemplateRequest,
    ApplyTemplateResponse,
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
    TokenPiece,
)

if TYPE_CHECKING:
    from engine.llama.tokenizer import Tokenizer

_CHARS_PER_TOKEN = 4


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
            tokenizer = model.loaded_engine.tokenizer
            response = await conversation.off_loop_if(
                len(wire.content), lambda: json_response(tokenized(wire, tokenizer))
            )
        return with_ignored(response, ignored)

    async def detokenize(self, request: Request) -> Response:
        """Tokens → text."""
        wire, ignored = await self._detokenize.read(request, self._limit)
        async with self._dispatcher.lease(wire.model) as model:
            tokenizer = model.loaded_engine.tokenizer
            check_tokens(wire.tokens, tokenizer.n_vocab, ("body", "tokens"))
            response = await conversation.off_loop_if(
                len(wire.tokens) * _CHARS_PER_TOKEN,
                lambda: json_response(DetokenizeResponse(tokenizer.decode(wire.tokens))),
            )
        return with_ignored(response, ignored)

    async def apply_template(self, request: Request) -> Response:
        """Messages → the prompt as text."""
        wire, ignored = await self._template.read(request, self._limit)
        prepare.check(wire)
        async with self._dispatcher.lease(wire.model) as model:
            kwargs = conversation.template_kwargs(wire)
            prompt = await conversation.prompt_text(model, wire.messages, kwargs)
        return with_ignored(json_response(ApplyTemplateResponse(prompt)), ignored)


def tokenized(wire: TokenizeRequest, tokenizer: Tokenizer) -> TokenizeResponse:
    """Blocks for as long as the text is."""
    tokens = tokenizer.encode(
        wire.content,
        add_special=bool(wire.add_special),
        parse_special=wire.parse_special is not False,
    )
    if not wire.with_pieces:
        return TokenizeResponse(tokens)
    return TokenizeResponse([TokenPiece(t, _piece(tokenizer.token_bytes(t))) for t in tokens])


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
