"""POST /v1/grammar: the grammar of a schema, for people to look at."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.api.http import json_response, with_ignored
from server.config import ServerConfig
from server.constraints import Constraints, Wanted, schema_format
from server.decode import JsonBody


class GrammarRequest(Struct, kw_only=True):
    """A JSON Schema."""

    schema: Any


class GrammarResponse(Struct):
    """GBNF text, and the formats in the schema that are annotations only."""

    grammar: str
    ignored: list[str]


class GrammarTool:
    """Needs no model."""

    def __init__(self, config: ServerConfig) -> None:
        self._limit = config.max_body_bytes
        self._body = JsonBody(GrammarRequest)
        self._constraints = Constraints()

    def routes(self) -> list[Route]:
        """One tool."""
        return [Route("/v1/grammar", self.create, methods=["POST"])]

    async def create(self, request: Request) -> Response:
        """Schema → GBNF."""
        wire, ignored = await self._body.read(request, self._limit)
        wanted = Wanted(form=schema_format(wire.schema, ("body", "schema")))
        output = await asyncio.to_thread(self._constraints.compile, wanted)
        assert output is not None
        body = GrammarResponse(output.grammar.gbnf, list(output.ignored))
        return with_ignored(json_response(body), ignored)
